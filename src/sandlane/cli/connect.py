"""`sandlane connect`: puts a process on this machine in the place of a workload, for one sandbox's key."""

from __future__ import annotations

import asyncio
import random  # noqa: TID251 - the composition root
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from sandlane.kube.client import Client
from sandlane.kube.clock import SystemClock
from sandlane.kube.config import ConfigError, load_config
from sandlane.kube.errors import AlreadyExists, ApiError, NotFound, TransportError
from sandlane.kube.http import HttpTransport
from sandlane.kube.resource import LOCAL_WORKLOADS, Object
from sandlane.routing.envoy.binary import EnvoyMissing
from sandlane.tunnel.bootstrap import LocalTarget
from sandlane.tunnel.dialler import Refused, TunnelState
from sandlane.tunnel.laptop import ConnectError, hold_tunnel


class BadMapping(ValueError):
    """A port mapping that is not PORT=HOST:PORT."""


def parse_mapping(text: str) -> LocalTarget:
    """`8083`, `8083=9000` or `8083=localhost:9000`. Raises `BadMapping`."""
    port, _, to = text.partition("=")
    host, _, number = (to or port).rpartition(":")
    if not port.isdigit() or not number.isdigit():
        raise BadMapping(f"{text!r} is not a port mapping: it must be PORT, PORT=LOCAL_PORT or PORT=HOST:LOCAL_PORT")
    return LocalTarget(int(port), _address(host or "localhost"), int(number))


def _address(host: str) -> str:
    return "127.0.0.1" if host == "localhost" else host


def connect(
    sandbox: str,
    workload: str,
    ports: list[str],
    namespace: str | None,
    on_disconnect: str,
    kubeconfig: Path | None,
    fail: Callable[[object], NoReturn],
) -> None:
    """Connect until Ctrl-C."""
    try:
        asyncio.run(_connect(sandbox, workload, ports, namespace, on_disconnect, kubeconfig))
    except (ConfigError, BadMapping, ConnectError, EnvoyMissing, TransportError) as error:
        fail(error)
    except ApiError as error:
        fail(f"the cluster refused: {error}")
    except BaseExceptionGroup as group:
        known = group.subgroup((ConnectError, Refused, ApiError, TransportError))
        if known is None:
            raise
        fail(_first(known))


async def _connect(
    sandbox: str, workload: str, ports: list[str], namespace: str | None, on_disconnect: str, kubeconfig: Path | None
) -> None:
    config = load_config(kubeconfig)
    clock, rng = SystemClock(), random.Random()
    client = Client(HttpTransport(config), clock=clock, rng=rng, user_agent="sandlane-connect")
    namespace = namespace or config.namespace
    targets = [parse_mapping(text) for text in ports]
    loop = asyncio.get_running_loop()
    try:
        local, made = await _ensure(client, namespace, sandbox, workload, targets, on_disconnect)
        targets = targets or [
            LocalTarget(m["port"], _address(m["to"].rpartition(":")[0]), int(m["to"].rpartition(":")[2]))
            for m in local["spec"]["mappings"]
        ]
        for target in targets:
            if not _listens(target):
                print(f"note: nothing listens at {target.host}:{target.to_port} yet (for port {target.port})")
        name = local["metadata"]["name"]
        print(f"LocalWorkload {namespace}/{name}: {workload or local['spec']['from']['name']} for sandbox {sandbox}")
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        try:
            async with asyncio.TaskGroup() as tasks:
                holding = tasks.create_task(hold_tunnel(client, clock, rng, local["metadata"]["uid"], targets, _show()))
                stopping = tasks.create_task(stop.wait())
                await asyncio.wait({holding, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if stop.is_set() and made:  # routes out first
                    await _remove(client, namespace, name)
                    made = False
                holding.cancel()
                stopping.cancel()
        finally:
            if made:
                await _remove(client, namespace, name)
    finally:
        await client.close()


async def _ensure(
    client: Client, namespace: str, sandbox: str, workload: str, targets: list[LocalTarget], on_disconnect: str
) -> tuple[Object, bool]:
    """The LocalWorkload to hold: the one that is there already, or a new one. Raises `ConnectError`."""
    known = [
        obj
        for obj in (await client.list(LOCAL_WORKLOADS, namespace)).items
        if obj["spec"]["sandbox"] == sandbox and (not workload or obj["spec"]["from"]["name"] == workload)
    ]
    if len(known) == 1:
        return known[0], False
    if len(known) > 1:
        names = ", ".join(obj["spec"]["from"]["name"] for obj in known)
        raise ConnectError(f"sandbox {sandbox} has several local workloads ({names}): say which with --workload")
    if not workload or not targets:
        raise ConnectError(
            f"sandbox {sandbox} has no local workload: name the workload and its ports, for example "
            f"`sandlane connect {sandbox} --workload routes --port 8083=localhost:8083`"
        )
    obj = {
        "apiVersion": LOCAL_WORKLOADS.api_version,
        "kind": LOCAL_WORKLOADS.kind,
        "metadata": {"name": f"{sandbox}-{workload}"[:63].rstrip("-"), "namespace": namespace},
        "spec": {
            "sandbox": sandbox,
            "from": {"kind": "Deployment", "name": workload},
            "mappings": [{"port": target.port, "to": f"{target.host}:{target.to_port}"} for target in targets],
            "onDisconnect": on_disconnect,
        },
    }
    try:
        return await client.create(LOCAL_WORKLOADS, obj), True
    except AlreadyExists as error:
        raise ConnectError(f"{error}; delete it, or choose another sandbox") from error


async def _remove(client: Client, namespace: str, name: str) -> None:
    try:
        await client.delete(LOCAL_WORKLOADS, name, namespace)
        print(f"removed LocalWorkload {namespace}/{name}")
    except NotFound:
        pass


def _show() -> Callable[[TunnelState], None]:
    """Print the connection whenever it changes."""
    last = ""

    def show(state: TunnelState) -> None:
        nonlocal last
        held = ", ".join(f"{count} to {replica or 'the server'}" for replica, count in sorted(state.tunnels.items()))
        text = f"connected: {held}" if state.connected else f"not connected: {state.error or 'dialling'}"
        if text != last:
            print(text, flush=True)
        last = text

    return show


def _listens(target: LocalTarget) -> bool:
    try:
        with socket.create_connection((target.host, target.to_port), timeout=0.5):
            return True
    except OSError:
        return False


def _first(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group
