"""Bytes from one connection to another and back, as they come: back-pressure kept, nothing looked at.

`SpliceEnd` first collects what arrives, for a handshake; once joined to a peer it passes everything on, what it has
collected included. Either end's close closes both. It works on sockets directly, TLS too, because every request passes here
twice: asyncio's own TLS takes four times as long. It uses the event loop, no tasks.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable

_RECORD = 16384
"""The most that TLS gives at once."""
_BUFFER = memoryview(bytearray(16 * _RECORD))
"""What is read is in here until it has been written, or put aside: all of one process's ends take turns."""
_BLOCKED = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class SpliceEnd:
    """One end of a splice: a connected socket. `bytes_received` grows with what arrives; `lost` is done when the connection is."""

    def __init__(self, sock: socket.socket) -> None:
        self.bytes_received = 0
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[Exception | None] = self._loop.create_future()
        self._sock = sock
        self._tls = sock if isinstance(sock, ssl.SSLSocket) else None
        self._collected = bytearray()
        self._arrived = asyncio.Event()
        self._peer: SpliceEnd | None = None
        self._unsent = bytearray()
        self._ending = False
        self._paused = False
        sock.setblocking(False)
        self._loop.add_reader(sock, self._readable)

    async def read_until(self, separator: bytes, limit: int = 65536) -> bytes:
        """What arrives up to and with `separator`. Raises `ConnectionError` at the end, or beyond `limit` bytes."""
        while (at := self._collected.find(separator)) < 0:
            if len(self._collected) > limit:
                raise ConnectionError(f"no {separator!r} within {limit} bytes")
            await self._more()
        return self._take(at + len(separator))

    async def read_exactly(self, count: int) -> bytes:
        """The next `count` bytes. Raises `ConnectionError` at the end."""
        while len(self._collected) < count:
            await self._more()
        return self._take(count)

    def write(self, data: bytes | memoryview) -> None:
        """Send, now or when there is room; while there is none, the peer stops reading. Raises `ConnectionError` when it is lost."""
        if self.lost.done():
            raise ConnectionError("the connection is closed")
        if not self._unsent and (sent := self._send(data)) < len(data) and not self.lost.done():
            self._unsent += data[sent:]
            self._loop.add_writer(self._sock, self._writable)
            if self._peer is not None:
                self._peer._pause()
        elif self._unsent:
            self._unsent += data

    def join(self, peer: SpliceEnd, first: bytes = b"") -> None:
        """Pass everything on to `peer` from now on, `first` and what has been collected before it; and the reverse."""
        self._peer, peer._peer = peer, self
        peer.write(first + self._take(len(self._collected)))
        self.write(peer._take(len(peer._collected)))

    def abort(self) -> None:
        """Close at once."""
        self._lose(None)

    async def _more(self) -> None:
        if self.lost.done():
            raise ConnectionError(str(self.lost.result() or "the connection was closed"))
        self._arrived.clear()
        await self._arrived.wait()

    def _take(self, count: int) -> bytes:
        taken = bytes(self._collected[:count])
        del self._collected[:count]
        return taken

    def _readable(self) -> None:
        """Called by the event loop."""
        if self._paused or self.lost.done():
            return
        size, ended = 0, False
        try:
            while True:
                count = self._sock.recv_into(_BUFFER[size:])
                size, ended = size + count, not count
                full = size > len(_BUFFER) - _RECORD
                if ended or full or self._tls is None or (count < _RECORD and not self._tls.pending()):
                    break
        except _BLOCKED:
            pass
        except OSError as error:
            self._lose(error)
            return
        if size:
            self._received(_BUFFER[:size])
        if ended:
            self._lose(None)
        elif self._tls is not None and not self.lost.done() and self._tls.pending():
            self._loop.call_soon(self._readable)  # the kernel says nothing of what TLS has read already

    def _received(self, data: memoryview) -> None:
        self.bytes_received += len(data)
        if self._peer is None:
            self._collected += data
            self._arrived.set()
        elif not self._peer.lost.done():
            self._peer.write(data)

    def _send(self, data: bytes | bytearray | memoryview) -> int:
        """How much the kernel has taken."""
        try:
            return self._sock.send(data) if len(data) else 0
        except _BLOCKED:
            return 0
        except OSError as error:
            self._lose(error)
            return 0

    def _writable(self) -> None:
        """Called by the event loop while something is unsent."""
        sent = self._send(self._unsent)
        if self.lost.done():
            return
        del self._unsent[:sent]
        if self._unsent:
            return
        self._loop.remove_writer(self._sock)
        if self._ending:
            self._lose(None)
        elif self._peer is not None:
            self._peer._resume()

    def _pause(self) -> None:
        if not self._paused and not self.lost.done():
            self._paused = True
            self._loop.remove_reader(self._sock)

    def _resume(self) -> None:
        if self._paused and not self.lost.done():
            self._paused = False
            self._loop.add_reader(self._sock, self._readable)
            self._loop.call_soon(self._readable)

    def _lose(self, error: Exception | None) -> None:
        """The connection is over. The peer gets what is still unsent, then it is closed."""
        if self.lost.done():
            return
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        self.lost.set_result(error)
        self._arrived.set()
        if (peer := self._peer) is not None:
            if peer._unsent:
                peer._ending = True
            else:
                peer._lose(None)


async def connected(host: str, port: int) -> socket.socket:
    """A TCP connection to the first of a host's addresses that takes one. Raises `OSError`."""
    loop, failure = asyncio.get_running_loop(), OSError(f"{host} has no address")
    for family, kind, protocol, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        sock.setblocking(False)
        try:
            await loop.sock_connect(sock, address)
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
    raise failure


async def secured(sock: socket.socket, context: ssl.SSLContext, name: str, seconds: float) -> ssl.SSLSocket:
    """TLS over a connected socket, which is closed when that fails. Raises `OSError` (`ssl.SSLError`) and `TimeoutError`."""
    loop = asyncio.get_running_loop()
    tls = context.wrap_socket(sock, server_hostname=name, do_handshake_on_connect=False)
    try:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    tls.do_handshake()
                    return tls
                except ssl.SSLWantReadError:
                    await _ready(tls, loop.add_reader, loop.remove_reader)
                except ssl.SSLWantWriteError:
                    await _ready(tls, loop.add_writer, loop.remove_writer)
    except BaseException:
        tls.close()
        raise


async def _ready(sock: socket.socket, add: Callable[..., object], remove: Callable[..., object]) -> None:
    ready = asyncio.Event()
    add(sock, ready.set)
    try:
        await ready.wait()
    finally:
        remove(sock)
