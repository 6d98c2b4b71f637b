"""Bytes from one connection to another and back, as they come: back-pressure kept, nothing looked at.

`SpliceEnd` first collects what arrives, for a handshake; once joined to a peer it passes everything on, what it has
collected included. Either end's close closes both. It works on sockets directly, because every request passes here twice: asyncio's
own TLS takes four times as long. `Tls` works in memory, so that one call of the kernel takes or gives many of its records. It uses the
event loop, no tasks.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any, cast

_ROOM = 1 << 18
"""Bytes that are taken from the kernel at once."""
_READ = memoryview(bytearray(_ROOM))
_DECRYPTED = memoryview(bytearray(_ROOM + (1 << 15)))
"""What is read is in here until it has been written, or put aside: all of one process's ends take turns. (A record that was
not whole before may come with it.)"""


class Tls:
    """TLS of one connection. Raises `ssl.SSLError`."""

    def __init__(self, context: ssl.SSLContext, name: str) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)

    def shake(self, data: bytes = b"") -> tuple[bool, bytes]:
        """Take what has arrived; whether the handshake is done, and what to send."""
        self._incoming.write(data)
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False, self._outgoing.read()
        return True, self._outgoing.read()

    def names(self) -> list[str]:
        """The DNS names in the peer's certificate."""
        found: Any = (self._tls.getpeercert() or {}).get("subjectAltName") or ()
        return [name for kind, name in found if kind == "DNS"]

    def encrypt(self, data: bytes | memoryview) -> bytes:
        """What to send for `data`."""
        self._tls.write(data)
        return self._outgoing.read()

    def decrypt(self, data: memoryview) -> tuple[memoryview, bool]:
        """What has arrived (in a buffer that the next call uses again), and whether that was the end."""
        self._incoming.write(data)
        size, read = 0, cast("Callable[[int, memoryview], int]", self._tls.read)
        try:
            while count := read(len(_DECRYPTED), _DECRYPTED[size:]):
                size += count
                if not self._incoming.pending:  # to be told so by OpenSSL costs more
                    return _DECRYPTED[:size], False
        except ssl.SSLWantReadError:
            return _DECRYPTED[:size], False
        except ssl.SSLZeroReturnError:
            pass
        return _DECRYPTED[:size], True


class SpliceEnd:
    """One end of a splice: a connected socket, perhaps with TLS. `bytes_received` grows with what arrives; `lost` is done when the connection is."""

    def __init__(self, sock: socket.socket, tls: Tls | None = None) -> None:
        self.bytes_received = 0
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[Exception | None] = self._loop.create_future()
        self._sock = sock
        self._tls = tls
        self._collected = bytearray(tls.decrypt(memoryview(b""))[0] if tls is not None else b"")
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
        if self._tls is not None and len(data):
            data = self._tls.encrypt(data)
        if self._unsent:
            self._unsent += data
        elif (sent := self._send(data)) < len(data) and not self.lost.done():
            self._unsent += data[sent:]
            self._loop.add_writer(self._sock, self._writable)
            if self._peer is not None:
                self._peer._pause()

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
        try:
            count = self._sock.recv_into(_READ)
            data, ended = _READ[:count], not count
            if self._tls is not None and count:
                data, ended = self._tls.decrypt(data)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lose(error)
            return
        if data:
            self._received(data)
        if ended:
            self._lose(None)

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
        except (BlockingIOError, InterruptedError):
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


async def secured(sock: socket.socket, context: ssl.SSLContext, name: str, seconds: float) -> Tls:
    """TLS over a connected socket, which is closed when that fails. Raises `OSError` (`ssl.SSLError`) and `TimeoutError`."""
    loop, tls = asyncio.get_running_loop(), Tls(context, name)
    try:
        async with asyncio.timeout(seconds):
            done, out = tls.shake()
            while True:
                if out:
                    await loop.sock_sendall(sock, out)
                if done:
                    return tls
                if not (data := await loop.sock_recv(sock, _ROOM)):
                    raise ConnectionError("the connection ended in the TLS handshake")
                done, out = tls.shake(data)
    except BaseException:
        sock.close()
        raise
