"""A real Envoy as the Service proxy, fed by a real xDS server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from sandlane.local.proxy.bootstrap import NODE, bootstrap
from sandlane.local.proxy.translate import EndpointSlice, Service, merge, translate
from sandlane.routing.envoy.binary import envoy_binary
from sandlane.routing.envoy.server import XdsServer

DEADLINE = 20.0
HOST = "127.252.0.1"


class Proxy:
    """The running proxy."""

    def __init__(self, xds: XdsServer) -> None:
        self.xds = xds

    async def serve(self, service: dict[str, Any], *backends: tuple[str, int]) -> None:
        """Publish one Service with these ready endpoints and wait until Envoy serves it."""
        ports = sorted({port for _, port in backends})
        protocol = service["spec"]["ports"][0].get("protocol", "TCP")
        slices = [
            {
                "metadata": {"name": str(port)},
                "endpoints": [{"addresses": [host]} for host, at in backends if at == port],
                "ports": [{"port": port, "protocol": protocol}],
            }
            for port in ports
        ]
        parts = translate(msgspec.convert(service, Service), [msgspec.convert(s, EndpointSlice) for s in slices], 1024)
        self.xds.publish(NODE, merge([parts]))
        await until(lambda: bool(self.xds.clients(NODE)) and not self.xds.behind(NODE), "Envoy serves it")


async def until(check: Callable[[], bool], what: str) -> None:
    """Wait for a condition."""
    try:
        async with asyncio.timeout(DEADLINE):
            while not check():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"not so after {DEADLINE:.0f} s: {what}") from None


def free_port() -> int:
    """A port that nobody uses on the test's addresses."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def envoy(folder: Path, xds_port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """An Envoy whose xDS server is at this port."""
    config = folder / "proxy.json"
    config.write_text(json.dumps(bootstrap((HOST, xds_port))))
    process = await asyncio.create_subprocess_exec(
        *(str(envoy_binary()), "--config-path", str(config), "--concurrency", "1", "--disable-hot-restart"),
        *("--log-level", "warning"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
