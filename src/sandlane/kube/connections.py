"""HTTP/1.1 for requests whose answers are read whole: a pool of connections to one server, kept open between requests.

A controller's requests are small and many, so what a general HTTP client does for each of them is most of a reconcile's
time. This does what an API server needs and no more: no redirects, cookies, proxies or upgrades (`sandlane.kube.http`
leaves those to aiohttp). Failures are `OSError`s. A `Connections` belongs to one event loop and has no tasks.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import zlib
from collections import deque
from urllib.parse import urlsplit

from sandlane.kube.transport import Response

IDLE_SECONDS = 15.0
"""How long an unused connection is kept."""
HEAD_LIMIT = 256 * 1024
"""Bytes of an answer's head, or of the length of one of its chunks."""
HARMLESS = ("GET", "HEAD", "PUT", "DELETE")
"""Methods that may be sent twice (RFC 9110, 9.2.2)."""


class Connections:
    """Connections to the server of a URL. `tls` is None for plain HTTP, `server_name` the name that TLS checks."""

    def __init__(self, url: str, tls: ssl.SSLContext | None, server_name: str = "") -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or (80 if tls is None else 443)
        self._name = parts.netloc.rpartition("@")[2]
        self._prefix = parts.path.rstrip("/")
        self._tls = tls
        self._server_name = (server_name or self._host) if tls is not None else None
        self._idle: deque[_Connection] = deque()
        self._all: set[_Connection] = set()
        self._closed = False

    async def send(
        self, method: str, target: str, headers: list[tuple[str, str]], body: bytes, deadline: float
    ) -> Response:
        """One request and its whole answer, until `deadline` (of the event loop). Raises `OSError`."""
        message = self._message(method, target, headers, body)
        while (connection := self._reusable()) is not None:
            try:
                return await self._exchange(connection, method, message, deadline)
            except ConnectionError:
                # The server may have closed it just then, before it saw the request.
                if connection.heard or method not in HARMLESS:
                    raise
        async with asyncio.timeout_at(deadline):
            connection = await self._connect()
        return await self._exchange(connection, method, message, deadline)

    def retire(self) -> None:
        """Open no more connections; those in use are closed after their answers."""
        self._closed = True
        for connection in self._idle:
            connection.abort()
        self._idle.clear()

    async def close(self) -> None:
        """Close all connections; requests under way fail."""
        self.retire()
        for connection in self._all:
            connection.abort()
        for connection in list(self._all):
            await connection.ended

    async def _exchange(self, connection: _Connection, method: str, message: bytes, deadline: float) -> Response:
        try:
            response = await connection.exchange(method, message, deadline)
        except BaseException:
            connection.abort()  # also when cancelled: the rest of the answer is nobody's
            raise
        if connection.keep and not self._closed:
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle.append(connection)
        else:
            connection.abort()
        return response

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            _Connection,
            self._host,
            self._port,
            ssl=self._tls,
            server_hostname=self._server_name,
            happy_eyeballs_delay=0.25,
        )
        self._all.add(connection)
        connection.ended.add_done_callback(lambda _: self._forget(connection))
        return connection

    def _reusable(self) -> _Connection | None:
        """The connection that was used last, if it is alive and not too old."""
        oldest = asyncio.get_running_loop().time() - IDLE_SECONDS
        while self._idle and self._idle[0].idle_since < oldest:
            self._idle.popleft().abort()
        return self._idle.pop() if self._idle else None

    def _forget(self, connection: _Connection) -> None:
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def _message(self, method: str, target: str, headers: list[tuple[str, str]], body: bytes) -> bytes:
        lines = [f"{method} {self._prefix}{target} HTTP/1.1", f"host: {self._name}", "accept-encoding: gzip"]
        lines += [f"{name}: {value}" for name, value in headers]
        if body or method not in ("GET", "HEAD", "DELETE"):
            lines.append(f"content-length: {len(body)}")
        head = "\r\n".join(lines)
        if head.count("\n") != len(lines) - 1 or head.count("\r") != len(lines) - 1:
            raise ConnectionError("a header or the path has a line break")
        if lines[0].count(" ") != 2:
            raise ConnectionError("the path has a space")
        return head.encode() + b"\r\n\r\n" + body


class _Connection(asyncio.Protocol):
    """One connection: one request at a time."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.keep = False
        self.heard = False
        self.idle_since = 0.0
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Response] | None = None
        self._bare = False
        self._begin()

    def _begin(self) -> None:
        """Ready for the next answer."""
        self._buffer = bytearray()
        self._status = 0
        self._headers: tuple[tuple[str, str], ...] = ()
        self._pieces: list[bytes] = []
        self._left = 0  # bytes of the body, or of its present chunk, that are still to come
        self._chunked = self._until_end = False

    async def exchange(self, method: str, message: bytes, deadline: float) -> Response:
        """Send a request and wait for its answer. (A bare timer: a quarter of the price of `asyncio.timeout`.)"""
        if self._transport is None or self.ended.done():
            raise ConnectionResetError("the server has closed the connection")
        self._begin()
        self.heard, self._bare = False, method == "HEAD"
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = loop.call_at(deadline, self._fail, TimeoutError("no answer in time"))
        self._transport.write(message)
        try:
            return await self._waiter
        finally:
            timer.cancel()
            self._waiter = None

    def abort(self) -> None:
        """Close it without ceremony."""
        if self._transport is not None:
            self._transport.abort()

    # -- what the event loop calls ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if (sock := transport.get_extra_info("socket")) is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def data_received(self, data: bytes) -> None:
        """A part of an answer."""
        self.heard = True
        if self._waiter is None:  # nobody has asked
            self.keep = False
            self.abort()
            return
        try:
            self._feed(data)
        except ValueError as error:
            self._fail(ConnectionError(f"the answer is not HTTP: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        """It is closed."""
        self.keep = False
        if self._until_end and exc is None:
            self._finish()
        else:
            self._fail(exc if isinstance(exc, OSError) else ConnectionResetError("the server closed the connection"))
        if not self.ended.done():
            self.ended.set_result(None)

    # -- parsing (RFC 9112) -----------------------------------------------------------------------------

    def _feed(self, data: bytes) -> None:
        """Take in bytes. Raises `ValueError` for what is no answer."""
        if self._status and not self._chunked:
            self._body(data)
            return
        self._buffer += data
        while not self._status:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                _check_length(self._buffer)
                return
            head = self._buffer[:end].decode("latin-1")
            del self._buffer[: end + 4]
            self._head(head)
        if self._chunked:
            self._chunks()
        else:
            rest, self._buffer = bytes(self._buffer), bytearray()
            self._body(rest)

    def _head(self, head: str) -> None:
        """Status and headers; how the body will end."""
        first, *lines = head.split("\r\n")
        version, _, rest = first.partition(" ")
        if not version.startswith("HTTP/1."):
            raise ValueError(first[:80])
        status = int(rest[:3])
        if status == 101:
            raise ValueError("an upgrade that nobody asked for")
        if status < 200:
            return  # an interim answer: the real one follows
        headers = [(name.strip().lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        found = dict(headers)
        self._headers = tuple(headers)
        self._status = status
        options = found.get("connection", "").lower()
        self.keep = options == "keep-alive" or (version == "HTTP/1.1" and "close" not in options)
        if self._bare or status in (204, 304):
            self._left = 0
        elif "chunked" in found.get("transfer-encoding", "").lower():
            self._chunked = True
        elif "content-length" in found:
            self._left = int(found["content-length"])
            if self._left < 0:
                raise ValueError("a negative length")
        else:
            self._until_end, self.keep = True, False

    def _body(self, data: bytes) -> None:
        """A part of a body that has a length, or that ends with the connection."""
        if self._until_end:
            self._pieces.append(data)
            return
        if len(data) > self._left:
            self.keep = False  # more than was announced: this connection cannot be trusted
            data = data[: self._left]
        if data:
            self._pieces.append(data)
            self._left -= len(data)
        if not self._left:
            self._finish()

    def _chunks(self) -> None:
        """As many chunks as have arrived. `_left` counts a chunk's bytes with its line break."""
        buffer = self._buffer
        start = 0
        while True:
            if self._left:
                piece = buffer[start : start + self._left]
                start += len(piece)
                self._left -= len(piece)
                if piece:
                    self._pieces.append(bytes(piece))
                if self._left:
                    break
                self._end_of_chunk()
                continue
            end = buffer.find(b"\r\n", start)
            if end < 0:
                _check_length(memoryview(buffer)[start:])
                break
            size = int(bytes(buffer[start:end]).split(b";")[0], 16)
            if size < 0:
                raise ValueError("a negative length")
            if size == 0:
                if self._trailers(start, end):
                    return
                break
            start = end + 2
            self._left = size + 2
        del buffer[:start]

    def _end_of_chunk(self) -> None:
        """Drop the line break after a chunk; it may have come in two pieces."""
        last = self._pieces.pop()
        if len(last) == 1 and self._pieces:
            last = self._pieces.pop() + last
        if not last.endswith(b"\r\n"):
            raise ValueError("a chunk is longer than it says")
        self._pieces.append(last[:-2])

    def _trailers(self, start: int, end: int) -> bool:
        """Whether the end of a chunked body is there: the empty line after any trailers."""
        if self._buffer[end : end + 4] == b"\r\n\r\n":
            stop = end + 4
        elif (found := self._buffer.find(b"\r\n\r\n", end)) >= 0:
            stop = found + 4
        else:
            _check_length(memoryview(self._buffer)[start:])
            return False
        if len(self._buffer) > stop:
            self.keep = False
        self._finish()
        return True

    def _finish(self) -> None:
        body = b"".join(self._pieces)
        if dict(self._headers).get("content-encoding", "").lower() == "gzip":
            try:
                body = zlib.decompress(body, wbits=31)
            except zlib.error as error:
                self._fail(ConnectionError(f"the answer is not gzip: {error}"))
                return
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(Response(self._status, self._headers, body))

    def _fail(self, error: OSError) -> None:
        self.keep = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)


def _check_length(part: bytearray | memoryview) -> None:
    if len(part) > HEAD_LIMIT:
        raise ValueError("a line without an end")
