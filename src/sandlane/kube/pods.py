"""What only Pods can do: give their logs, and take connections to their ports.

`port_forward` speaks `v4.channel.k8s.io`: each message begins with its channel (0 data, 1 errors), and the first one of
each channel carries the port.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sandlane.kube.client import REQUEST_TIMEOUT, Client
from sandlane.kube.errors import KubeError, TransportError
from sandlane.kube.resource import PODS, Key
from sandlane.kube.transport import Request, WebSocket

PROTOCOL = "v4.channel.k8s.io"
_DATA, _ERRORS = 0, 1
_PIECE = 32 * 1024


@asynccontextmanager
async def logs(
    client: Client,
    pod: Key,
    *,
    container: str = "",
    follow: bool = False,
    previous: bool = False,
    timestamps: bool = False,
    tail_lines: int | None = None,
    since_seconds: int | None = None,
    timeout: float = REQUEST_TIMEOUT,
) -> AsyncIterator[AsyncIterator[bytes]]:
    """A container's log, piece by piece as it is written. `timeout` covers the wait for its beginning."""
    flags = {"follow": follow, "previous": previous, "timestamps": timestamps}
    numbers = {"tailLines": tail_lines, "sinceSeconds": since_seconds}
    query = [("container", container)] if container else []
    query += [(name, "true") for name, wanted in flags.items() if wanted]
    query += [(name, str(number)) for name, number in numbers.items() if number is not None]
    request = Request("GET", PODS.path(pod.namespace, pod.name, "log"), tuple(query), {"accept": "*/*"})
    async with client.stream(request, timeout=timeout) as stream:
        yield stream.chunks()


class PortForward:
    """A connection to a port of a Pod, as a stream of bytes. Made by `port_forward`."""

    def __init__(self, socket: WebSocket, port: int) -> None:
        self._socket = socket
        self._port = port
        self._opened: set[int] = set()

    async def read(self) -> bytes:
        """The next bytes, or none at the end. Raises `TransportError` with what the node says went wrong."""
        while True:
            message = await self._socket.receive()
            if message is None:
                return b""
            if not message:
                continue
            channel, content = message[0], message[1:]
            if channel not in self._opened:
                self._opened.add(channel)
                content = content[2:]  # the port, little-endian
            if channel == _ERRORS and content:
                raise TransportError(f"port {self._port}: {content.decode(errors='replace').strip()}")
            if channel == _DATA and content:
                return content

    async def write(self, data: bytes) -> None:
        """Send bytes. Raises `TransportError`."""
        for start in range(0, len(data), _PIECE):
            await self._socket.send(bytes([_DATA]) + data[start : start + _PIECE])


@asynccontextmanager
async def port_forward(
    client: Client, pod: Key, port: int, *, timeout: float = REQUEST_TIMEOUT
) -> AsyncIterator[PortForward]:
    """Connect to a port of a Pod through the API server. Raises `KubeError`; leaving the block closes it."""
    request = Request("GET", PODS.path(pod.namespace, pod.name, "portforward"), (("ports", str(port)),))
    async with client.websocket(request, protocols=(PROTOCOL,), timeout=timeout) as socket:
        if socket.protocol != PROTOCOL:
            raise KubeError(f"port-forward to {pod}: the server chose the protocol {socket.protocol!r}")
        yield PortForward(socket, port)
