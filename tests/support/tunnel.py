"""A real tunnel on loopback: a tunnel server Envoy, a laptop Envoy, certificates, and an application to reach."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import os
import random
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from sandlane.laptop.dialler import Dialler, TunnelState, direct
from sandlane.laptop.inbound import Inbound, LocalTarget, inbound_bootstrap
from sandlane.routing.envoy.binary import envoy_binary
from sandlane.runtime.signing import SERVER, key_pem, make_ca, make_pair, new_key, subject_of
from sandlane.tunnel import bootstrap, identity, routes
from sandlane.tunnel.authority import Authority

NOW = datetime.datetime.now(datetime.UTC)
UID = "11111111-2222-3333-4444-555555555555"
SESSION = "0123456789abcdef"
OTHER_UID = "99999999-2222-3333-4444-555555555555"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Pki:
    """A certificate authority in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = make_ca("test CA", NOW)
        server = make_pair(
            self.ca, subject_of("tunnel"), [x509.DNSName("tunnel")], [SERVER], NOW, datetime.timedelta(days=1)
        )
        (folder / "ca.crt").write_bytes(self.ca.certificate)
        (folder / "tls.crt").write_bytes(server.certificate)
        (folder / "tls.key").write_bytes(server.key)

    def client(
        self, uid: str, lifetime: datetime.timedelta = datetime.timedelta(hours=1), session: str = SESSION
    ) -> ssl.SSLContext:
        """A TLS context with a certificate for `uid`, made as the manager makes it."""
        key = new_key()
        pem = identity.sign(identity.signing_request(key, identity.Claim(session, uid)), self.ca, NOW, lifetime)
        path = self.folder / f"{session}-{uid}-{lifetime.total_seconds():.0f}.pem"
        path.write_bytes(pem + key_pem(key))
        context = ssl.create_default_context(cafile=str(self.folder / "ca.crt"))
        context.load_cert_chain(path)
        return context


@contextlib.asynccontextmanager
async def running_envoy(
    config: dict[str, Any], log: Path, *, threads: int = 1, **env: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A real Envoy; ended by its pid at the end."""
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            str(envoy_binary()), "--config-yaml", json.dumps(config), "--use-dynamic-base-id",
            "--concurrency", str(threads), "-l", "warning", stdout=out, stderr=out, env=os.environ | env,
        )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def eventually(check: Callable[[], bool], what: str, seconds: float = 20) -> None:
    """Wait until a condition holds; fail with what was waited for after a deadline."""
    try:
        async with asyncio.timeout(seconds):
            while not check():
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"not within {seconds} s: {what}")


def listening(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


class Tunnel:
    """A tunnel server on loopback; laptops join it with `laptop`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pki = Pki(folder)
        self.options = bootstrap.ServerOptions(
            address="127.0.0.1", replica=f"r0-{free_port()}", front_port=free_port(), accept_port=free_port(),
            ingress_port=free_port(), certificate=f"{folder}/tls.crt", key=f"{folder}/tls.key", ca=f"{folder}/ca.crt",
        )  # fmt: skip

    def allow(self, *uids: str) -> None:
        """Publish the route tables: the usual session holds each uid."""
        self.publish(dict.fromkeys(uids, routes.Holder(SESSION, "jane")))

    def publish(self, holders: routes.Holders) -> None:
        """Publish the route tables."""
        options = self.options
        tables = [routes.front_routes(holders, options.workers), routes.ingress_routes(holders, options.max_body)]
        kind = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
        for table in tables:
            new = self.folder / "new.json"
            new.write_text(json.dumps({"resources": [{"@type": kind} | table]}))
            new.rename(self.rds_file(table["name"]))

    def rds_file(self, name: str) -> Path:
        """Where a route table lies."""
        return self.folder / f"{name.replace('/', '-')}.json"

    @contextlib.asynccontextmanager
    async def server(self, *, tls_ingress: bool = True) -> AsyncIterator[asyncio.subprocess.Process]:
        """The tunnel server; without `tls_ingress` a load generator that knows no client certificates can use it."""
        watched = {"path": str(self.folder)}
        rds = {
            name: {"path_config_source": {"path": str(self.rds_file(name)), "watched_directory": watched}}
            for name in (bootstrap.FRONT_ROUTES, bootstrap.INGRESS_ROUTES)
        }
        config = bootstrap.server_bootstrap(self.options, rds)
        if not tls_ingress:
            del config["static_resources"]["listeners"][2]["filter_chains"][0]["transport_socket"]
        async with running_envoy(config, self.folder / "server.log", POD_NAME="r0") as process:
            ports = (self.options.front_port, self.options.ingress_port)
            await eventually(lambda: all(listening(port) for port in ports), "the tunnel server listens")
            yield process

    @contextlib.asynccontextmanager
    async def laptop(self, uid: str, *targets: LocalTarget) -> AsyncIterator[Dialler]:
        """A laptop: Envoy and dialler."""
        path = self.folder / f"{uid[:8]}.sock"
        inbound = Inbound(uid[:8], str(path), targets)
        config = inbound_bootstrap([inbound], str(self.folder / f"{uid[:8]}-admin.sock"))
        async with running_envoy(config, self.folder / f"laptop-{uid[:8]}.log"), asyncio.TaskGroup() as tasks:
            await eventually(path.exists, "the laptop's Envoy listens")
            dialler = self.dialler(uid, path)
            task = tasks.create_task(dialler.run())
            await eventually(lambda: dialler.state.connected, "the tunnel is up")
            yield dialler
            task.cancel()

    def dialler(
        self,
        uid: str,
        path: Path,
        on_change: Callable[[TunnelState], None] = lambda state: None,
        context: ssl.SSLContext | None = None,
    ) -> Dialler:
        """A dialler with a certificate for `uid`, or with another one."""
        context = context or self.pki.client(uid)
        connect = direct("127.0.0.1", self.options.front_port, lambda: context, "tunnel")
        return Dialler(connect, str(path), RealClock(), random.Random(1).random, replicas=1, on_change=on_change)

    def router(self) -> ssl.SSLContext:
        """A TLS context as a router has it."""
        pair = Authority(self.pki.ca).router_pair(NOW)
        path = self.folder / "router.pem"
        path.write_bytes(pair.certificate + pair.key)
        context = ssl.create_default_context(cafile=str(self.folder / "ca.crt"))
        context.load_cert_chain(path)
        context.check_hostname = False
        return context


class RealClock:
    """The event loop's clock."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
