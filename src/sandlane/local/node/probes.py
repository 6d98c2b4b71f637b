"""Probes of containers: one attempt by http, tcp or exec, and the counting that turns attempts into a verdict."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from sandlane.kube.resource import Object


class Verdict(msgspec.Struct):
    """Counts successes and failures in a row. `passing` is None until there is a verdict."""

    success_threshold: int
    failure_threshold: int
    passing: bool | None = None
    row: int = 0
    last: bool | None = None

    @classmethod
    def of(cls, probe: Object) -> Verdict:
        """From a probe's thresholds."""
        return cls(probe.get("successThreshold") or 1, probe.get("failureThreshold") or 3)

    def count(self, success: bool) -> bool:
        """Count one attempt; whether the verdict is another one now."""
        self.row = self.row + 1 if success == self.last else 1
        self.last = success
        needed = self.success_threshold if success else self.failure_threshold
        if self.row >= needed and self.passing != success:
            self.passing = success
            return True
        return False


Run = Callable[[list[str]], Awaitable[str]]
"""Runs a command in the container; the empty text when it ends well, else what it said."""


async def attempt(probe: Object, address: str, ports: Mapping[str, int], run: Run) -> str:
    """Try once; the empty text for success, else what went wrong."""
    try:
        async with asyncio.timeout(probe.get("timeoutSeconds") or 1):
            if "httpGet" in probe:
                return await _http(probe["httpGet"], address, ports)
            if "tcpSocket" in probe:
                return await _tcp(probe["tcpSocket"], address, ports)
            if "exec" in probe:
                return await run(probe["exec"].get("command") or [])
            if "grpc" in probe:
                return await _tcp({"port": probe["grpc"]["port"]}, address, ports)
    except TimeoutError:
        return f"no answer within {probe.get('timeoutSeconds') or 1} s"
    except (OSError, ValueError) as error:
        return str(error) or type(error).__name__
    return ""


def resolve_port(port: Any, ports: Mapping[str, int]) -> int:
    """A port by number or by a container's name for it. Raises `ValueError`."""
    if isinstance(port, int) or str(port).isdigit():
        return int(port)
    if port not in ports:
        raise ValueError(f"the container has no port named {port!r}")
    return ports[port]


async def _http(get: Object, address: str, ports: Mapping[str, int]) -> str:
    host, port = get.get("host") or address, resolve_port(get["port"], ports)
    tls: ssl.SSLContext | None = None
    if (get.get("scheme") or "HTTP").upper() == "HTTPS":
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # without the system's authorities, which take long to read
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE  # as the kubelet does: a probe asks for health, not for identity
    reader, writer = await asyncio.open_connection(host, port, ssl=tls)
    try:
        path = get.get("path") or "/"
        lines = [f"GET {path if path.startswith('/') else '/' + path} HTTP/1.1", f"host: {host}:{port}"]
        lines += ["user-agent: kube-probe/1.36", "accept: */*", "connection: close"]
        lines += [f"{header['name']}: {header['value']}" for header in get.get("httpHeaders") or ()]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        status = (await reader.readline()).split()
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    if len(status) < 2 or not status[1].isdigit():
        return "the answer was not HTTP"
    return "" if 200 <= int(status[1]) < 400 else f"HTTP probe failed with statuscode: {int(status[1])}"


async def _tcp(target: Object, address: str, ports: Mapping[str, int]) -> str:
    _, writer = await asyncio.open_connection(target.get("host") or address, resolve_port(target["port"], ports))
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return ""
