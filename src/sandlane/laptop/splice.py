"""Bytes from one connection to another and back, as they come: back-pressure kept, nothing looked at.

`SpliceEnd` first collects what arrives, for a handshake; once joined to a peer it passes everything on, what it has
collected included. Either end's close closes both.
"""

from __future__ import annotations

import asyncio


class SpliceEnd(asyncio.Protocol):
    """One end of a splice. `bytes_received` grows with what arrives; `lost` is done when the connection is."""

    def __init__(self) -> None:
        self.bytes_received = 0
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self._collected = bytearray()
        self._arrived = asyncio.Event()
        self._peer: SpliceEnd | None = None
        self._transport: asyncio.Transport | None = None

    @property
    def transport(self) -> asyncio.Transport:
        """The connection. Raises `ConnectionError` when it is not made or already lost."""
        if self._transport is None:
            raise ConnectionError("the connection is closed")
        return self._transport

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

    def join(self, peer: SpliceEnd, first: bytes = b"") -> None:
        """Pass everything on to `peer` from now on, `first` and what has been collected before it; and the reverse."""
        self._peer, peer._peer = peer, self
        peer.transport.write(first + self._take(len(self._collected)))
        self.transport.write(peer._take(len(peer._collected)))

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    async def _more(self) -> None:
        if self.lost.done():
            raise ConnectionError(str(self.lost.result() or "the connection was closed"))
        self._arrived.clear()
        await self._arrived.wait()

    def _take(self, count: int) -> bytes:
        taken = bytes(self._collected[:count])
        del self._collected[:count]
        return taken

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        self.bytes_received += len(data)
        if self._peer is None:
            self._collected += data
            self._arrived.set()
        elif self._peer._transport is not None:
            self._peer._transport.write(data)

    def pause_writing(self) -> None:
        """Called by the event loop when this end's buffer is full: the peer stops reading."""
        if self._peer is not None and self._peer._transport is not None and self._peer._transport.is_reading():
            self._peer._transport.pause_reading()

    def resume_writing(self) -> None:
        """Called by the event loop when this end's buffer has drained."""
        if self._peer is not None and self._peer._transport is not None and not self._peer._transport.is_reading():
            self._peer._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop. The peer gets what is still buffered for it, then it is closed."""
        self._transport = None
        if not self.lost.done():
            self.lost.set_result(exc)
        self._arrived.set()
        if self._peer is not None and self._peer._transport is not None:
            self._peer._transport.close()
