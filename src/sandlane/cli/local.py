"""The commands of the local cluster: `up`, `status`, `down`, `url`."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from sandlane.kube.clock import SystemClock
from sandlane.local.settings import DataDir, DataDirError, default_data_dir
from sandlane.local.up.claim import AlreadyRunning
from sandlane.local.up.launch import StartFailed, check, command_line, start_detached, state_of, stop
from sandlane.local.up.progress import Progress
from sandlane.local.up.state import ClusterState

Fail = Callable[[object], NoReturn]
NOT_RUNNING = 3


def _dir(given: Path | None) -> DataDir:
    return DataDir(given or default_data_dir())


def up(data_dir: Path | None, *, detach: bool, images: Path | None, port: int | None, fail: Fail) -> None:
    """Start a cluster: in the background until it is ready, or in this process until a signal comes."""
    data, clock = _dir(data_dir), SystemClock()
    if images is not None:
        _check_images(images.expanduser(), fail)
    try:
        if detach:
            progress = Progress(sys.stdout, clock)
            start_detached(data, clock, time.sleep, images=images, port=port, report=progress.show)
            return
        check(data)
    except AlreadyRunning as error:
        fail(
            f"a cluster already runs in {data.root} (process {error.pid}): use it with\n"
            f"  export KUBECONFIG={data.kubeconfig}\nor end it with\n  sandlane down --data-dir {data.root}"
        )
    except (DataDirError, StartFailed) as error:
        fail(error)
    argv = [*command_line(data, images, port), "--show"]
    os.execv(argv[0], argv)  # become the supervisor: no second process, nothing of this one left


def _check_images(images: Path, fail: Fail) -> None:
    from sandlane.local.node.images import ImageMap, ImageMapError

    try:
        ImageMap.load(images)
    except ImageMapError as error:
        fail(error)


def status(data_dir: Path | None, output: str, *, fail: Fail) -> int:
    """Print how the cluster is; the exit code."""
    if output not in ("text", "json"):
        fail(f"--output {output}: it must be text or json")
    data = _dir(data_dir)
    state = state_of(data)
    if output == "json":
        document: Any = state if state is not None else {"running": False, "ready": False, "dataDir": str(data.root)}
        print(msgspec.json.format(msgspec.json.encode(_running(document)), indent=2).decode())
    elif state is None:
        print(f"no cluster runs in {data.root}: start it with `sandlane up`")
    else:
        _print(state)
    if state is None:
        return NOT_RUNNING
    return 0 if state.ready else 1


def _running(document: Any) -> Any:
    return {"running": True, **msgspec.to_builtins(document)} if isinstance(document, ClusterState) else document


def _print(state: ClusterState) -> None:
    print(f"{'ready' if state.ready else 'not ready'}: process {state.pid}, {state.server}, since {state.started_at}")
    print(f"KUBECONFIG={state.kubeconfig}\n")
    for process in state.processes:
        how = "ready" if process.ready else process.state
        restarts = f", started again {process.restarts} times, last {process.last_end}" if process.restarts else ""
        why = f": {process.message}" if process.message else ""
        print(f"  {process.title:22} {how}{restarts}{why}  ({process.pid or '-'}, {process.log})")


def down(data_dir: Path | None, *, fail: Fail) -> None:
    """End a cluster."""
    data = _dir(data_dir)
    try:
        ran = stop(data, SystemClock(), time.sleep)
    except DataDirError as error:
        fail(error)
    print("stopped" if ran else f"no cluster runs in {data.root}")


def url(data_dir: Path | None, service: str, namespace: str, port: str, *, fail: Fail) -> str:
    """Where a Service is served: its cluster IP and the port that the Service proxy really uses."""
    from sandlane.kube.config import ConfigError, load_config
    from sandlane.kube.errors import KubeError

    data = _dir(data_dir)
    if state_of(data) is None:
        fail(f"no cluster runs in {data.root}: start it with `sandlane up`")
    try:
        found = asyncio.run(_service(load_config(data.kubeconfig), service, namespace))
    except (ConfigError, KubeError) as error:
        fail(error)
    return served_url(found, port, fail)


async def _service(config: Any, name: str, namespace: str) -> dict[str, Any]:
    import random  # noqa: TID251 - the composition root

    from sandlane.kube.client import Client
    from sandlane.kube.http import HttpTransport
    from sandlane.kube.resource import SERVICES

    client = Client(HttpTransport(config), clock=SystemClock(), rng=random.Random())
    try:
        return await client.get(SERVICES, name, namespace)
    finally:
        await client.close()


def served_url(service: dict[str, Any], wanted: str, fail: Fail) -> str:
    """The URL (or `host:port` for what is not HTTP) of a Service's port."""
    from sandlane.local.proxy.ports import first_bindable_port, served_port

    spec, name = service["spec"], service["metadata"]["name"]
    if spec.get("clusterIP") in (None, "", "None"):
        fail(f"Service {name} has no cluster IP: reach its Pods instead")
    ports = spec.get("ports") or []
    chosen = [p for p in ports if wanted in (p.get("name"), str(p["port"]))] if wanted else ports[:1]
    if not chosen:
        known = ", ".join(p.get("name") or str(p["port"]) for p in ports) or "none"
        fail(f"Service {name} has no port {wanted!r}; it has: {known}")
    port = chosen[0]
    number = served_port(port["port"], first_bindable_port())
    address = f"{spec['clusterIP']}:{number}"
    if port.get("protocol", "TCP") == "UDP":
        return f"udp://{address}"
    secure = port["port"] == 443 or port.get("name", "").startswith("https") or port.get("appProtocol") == "https"
    return f"{'https' if secure else 'http'}://{address}"
