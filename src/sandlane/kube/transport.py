"""The seam between the client and an API server: requests and answers as plain values.

`sandlane.kube.http` sends them over HTTP; the embedded API server answers the same values in process.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol, runtime_checkable
from urllib.parse import urlencode

import msgspec


class Request(msgspec.Struct, frozen=True):
    """One HTTP request to an API server. `query` keeps order and repeats; header names are lower case."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = {}
    body: bytes = b""

    @property
    def target(self) -> str:
        """Path and query, as on the request line."""
        return f"{self.path}?{urlencode(self.query)}" if self.query else self.path


class Response(msgspec.Struct, frozen=True):
    """A whole answer; header names are lower case, repeated headers (`warning`) repeat in order."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def header(self, name: str) -> str | None:
        """The first value of a header, or None."""
        return next((value for key, value in self.headers if key == name), None)


class Stream(Protocol):
    """An answer whose body arrives piece by piece (a watch, a log). `status` and `headers` are known at once."""

    status: int
    headers: tuple[tuple[str, str], ...]

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives; ends when the server ends it; raises `TransportError` when the connection breaks."""


class WebSocket(Protocol):
    """A WebSocket; `protocol` is the subprotocol that the server chose."""

    protocol: str

    async def receive(self) -> bytes | None:
        """The next message, or None at the end. Raises `TransportError` when the connection breaks."""

    async def send(self, message: bytes) -> None:
        """Send a binary message. Raises `TransportError`."""


@runtime_checkable
class WebSocketTransport(Protocol):
    """A transport that can make WebSockets (port-forward, exec)."""

    def websocket(
        self, request: Request, *, protocols: tuple[str, ...], timeout: float
    ) -> AbstractAsyncContextManager[WebSocket]:
        """A WebSocket. Raises `ApiError` when the server refuses it, `TransportError` when there is no answer."""


class Transport(Protocol):
    """Carries requests to one API server."""

    async def send(self, request: Request, *, timeout: float) -> Response:
        """The whole answer. Raises `TransportError` when there is none within `timeout` seconds."""

    def stream(self, request: Request, *, timeout: float) -> AbstractAsyncContextManager[Stream]:
        """An answer to be read piece by piece; `timeout` (seconds) covers the wait for its headers."""

    async def close(self) -> None:
        """Close idle connections."""
