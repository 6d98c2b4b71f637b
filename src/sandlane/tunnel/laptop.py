"""The laptop's side of a LocalWorkload: a certificate from the cluster, the local Envoy, and the dialler.

`hold_tunnel` owns the Envoy and the dialler; both end with it. Private keys live in a 0600 file in a folder that goes, too.
"""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import ssl
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from sandlane.api.places import NAMESPACE
from sandlane.kube.client import Client, Random
from sandlane.kube.clock import Clock
from sandlane.kube.errors import Forbidden, NotFound
from sandlane.kube.resource import CERTIFICATE_SIGNING_REQUESTS, CONFIG_MAPS
from sandlane.routing.envoy.binary import envoy_binary
from sandlane.tunnel import identity
from sandlane.tunnel.bootstrap import SERVER_NAME, LocalTarget, laptop_bootstrap
from sandlane.tunnel.dialler import Dialler, TunnelState, direct
from sandlane.tunnel.resources import NAME, TUNNEL

PATIENCE = 30.0
LIFETIME = 3600


class ConnectError(Exception):
    """The laptop cannot be connected; the message says why and what to do."""


class Directory(msgspec.Struct, frozen=True):
    """Where the tunnel servers are."""

    host: str
    port: int
    replicas: int
    ca: str


async def find_directory(client: Client, clock: Clock) -> Directory:
    """Read where the cluster's tunnel servers are, waiting for them to be made. Raises `ConnectError`."""
    end = clock.monotonic() + PATIENCE
    while clock.monotonic() < end:
        if (data := await _directory(client)) is not None:
            host, _, port = data["address"].rpartition(":")
            return Directory(host, int(port), int(data["replicas"]), data["ca.crt"])
        await clock.sleep(0.2)
    raise ConnectError(
        f"the cluster has made no tunnel servers within {PATIENCE:.0f} s: is Sandlane's manager running? (see its log)"
    )


async def _directory(client: Client) -> dict[str, str] | None:
    """The directory's entries: in the usual namespace, which everybody may read, or wherever the user may look."""
    try:
        found = await client.get(CONFIG_MAPS, NAME, NAMESPACE)
    except (NotFound, Forbidden):
        try:
            listed = (await client.list(CONFIG_MAPS, label_selector=f"{TUNNEL}=true")).items
        except Forbidden:
            return None
        found = next((obj for obj in listed if obj["metadata"]["name"] == NAME), {})
    data: dict[str, str] | None = found.get("data")
    return data


async def get_certificate(client: Client, clock: Clock, uid: str) -> bytes:
    """A fresh key and the certificate for it, as PEM. Raises `ConnectError` when the cluster denies it."""
    key = identity.new_key()
    name = f"sandlane-tunnel-{uid[:8]}-{secrets.token_hex(4)}"
    request = {
        "apiVersion": CERTIFICATE_SIGNING_REQUESTS.api_version,
        "kind": CERTIFICATE_SIGNING_REQUESTS.kind,
        "metadata": {"name": name},
        "spec": {
            "signerName": identity.SIGNER,
            "request": base64.b64encode(identity.signing_request(key, uid)).decode(),
            "usages": ["client auth"],
            "expirationSeconds": LIFETIME,
        },
    }
    await client.create(CERTIFICATE_SIGNING_REQUESTS, request)
    end = clock.monotonic() + PATIENCE
    while clock.monotonic() < end:
        obj = await client.get(CERTIFICATE_SIGNING_REQUESTS, name)
        status = obj.get("status") or {}
        for condition in status.get("conditions") or ():
            if condition["type"] in ("Denied", "Failed"):
                raise ConnectError(f"the cluster denied the certificate: {condition.get('message', '')}")
        if certificate := status.get("certificate"):
            return base64.b64decode(certificate) + identity.key_pem(key)
        await clock.sleep(0.1)
    raise ConnectError(
        f"certificate signing request {name} was not answered within {PATIENCE:.0f} s: is the manager running?"
    )


def tls_context(pem: bytes, ca: str) -> ssl.SSLContext:
    """TLS with a laptop's certificate."""
    context = ssl.create_default_context(cadata=ca)
    with tempfile.NamedTemporaryFile() as file:  # 0600; the ssl module only loads from files
        file.write(pem)
        file.flush()
        context.load_cert_chain(file.name)
    return context


async def hold_tunnel(
    client: Client,
    clock: Clock,
    rng: Random,
    uid: str,
    targets: Iterable[LocalTarget],
    on_change: Callable[[TunnelState], None],
) -> None:
    """Keep the laptop connected until cancelled. Raises `ConnectError` and `dialler.Refused`."""
    directory = await find_directory(client, clock)
    context = tls_context(await get_certificate(client, clock, uid), directory.ca)

    async def renew() -> None:
        nonlocal context
        while True:
            await clock.sleep(LIFETIME * 0.6 * (0.9 + 0.2 * rng.random()))
            context = tls_context(await get_certificate(client, clock, uid), directory.ca)

    with tempfile.TemporaryDirectory(prefix="sandlane-") as folder:
        path = Path(folder) / "tunnel.sock"
        config = laptop_bootstrap(str(path), targets, str(Path(folder) / "admin.sock"))
        text = msgspec.json.encode(config).decode()
        flags = ["--disable-hot-restart", "--concurrency", "1", "-l", "error"]
        process = await asyncio.create_subprocess_exec(
            str(envoy_binary()), "--config-yaml", text, *flags, stdin=asyncio.subprocess.DEVNULL, env=dict(os.environ)
        )
        try:
            await _wait_for(path, process, clock)
            connect = direct(directory.host, directory.port, lambda: context, SERVER_NAME)
            dialler = Dialler(connect, str(path), clock, rng.random, replicas=directory.replicas, on_change=on_change)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(renew(), name="renew certificate")
                tasks.create_task(dialler.run(), name="dialler")
                tasks.create_task(_watch(process), name="envoy")
        finally:
            if process.returncode is None:
                process.terminate()
                try:
                    async with asyncio.timeout(5):
                        await process.wait()
                except TimeoutError:
                    process.kill()
                    await process.wait()


async def _wait_for(path: Path, process: asyncio.subprocess.Process, clock: Clock) -> None:
    end = clock.monotonic() + PATIENCE
    while not await asyncio.to_thread(path.exists):
        if process.returncode is not None or clock.monotonic() > end:
            raise ConnectError("the local Envoy did not start; its message is above")
        await clock.sleep(0.02)


async def _watch(process: asyncio.subprocess.Process) -> None:
    code = await process.wait()
    raise ConnectError(f"the local Envoy ended with {code}")
