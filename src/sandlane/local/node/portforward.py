"""`kubectl port-forward`: connections to a Pod's address, each a pair of SPDY streams, all on one WebSocket.

A session's connections are tasks of its own group; they end with the WebSocket. Protocol:
https://github.com/kubernetes/enhancements/tree/master/keps/sig-api-machinery/4006-transition-spdy-to-websockets
"""

from __future__ import annotations

import asyncio
import contextlib

import msgspec
import structlog
from aiohttp import WSMsgType, web

from sandlane.local.node.spdy import Away, Data, Frame, Opened, Ping, Reader, Reset, SpdyError, Writer

log = structlog.get_logger(__name__)

PROTOCOL = "SPDY/3.1+portforward.k8s.io"
CHUNK = 32 * 1024
AHEAD = 64
"""Frames of one connection that may wait before everything else does."""
CONNECT_SECONDS = 10.0


class _Pair(msgspec.Struct):
    """One connection: its streams, what the client has sent, and its task."""

    port: int = 0
    error: int = 0
    data: int = 0
    sent: asyncio.Queue[bytes] = msgspec.field(default_factory=lambda: asyncio.Queue(AHEAD))
    task: asyncio.Task[None] | None = None


class Forwarding:
    """One client's connections to a Pod."""

    def __init__(self, socket: web.WebSocketResponse, address: str, pod: str) -> None:
        self._socket = socket
        self._address = address
        self._pod = pod
        self._reader = Reader()
        self._writer = Writer()
        self._pairs: dict[str, _Pair] = {}
        self._streams: dict[int, _Pair] = {}

    async def run(self) -> None:
        """Serve until the client goes."""
        async with asyncio.TaskGroup() as tasks:
            try:
                async for message in self._socket:
                    if message.type == WSMsgType.BINARY:
                        for frame in self._reader.feed(message.data):
                            if isinstance(frame, Away):
                                return
                            await self._take(frame, tasks)
            except SpdyError as error:
                log.warning("port_forward_failed", pod=self._pod, error=str(error))
            except ConnectionError:
                return  # the client has gone
            finally:
                for pair in self._pairs.values():
                    if pair.task is not None:
                        pair.task.cancel()

    async def _take(self, frame: Frame, tasks: asyncio.TaskGroup) -> None:
        if isinstance(frame, Opened):
            await self._open(frame, tasks)
        elif isinstance(frame, Data):
            pair = self._streams.get(frame.stream)
            if pair is not None and frame.stream == pair.data:
                if frame.data:
                    await pair.sent.put(frame.data)
                if frame.fin:
                    await pair.sent.put(b"")
        elif isinstance(frame, Reset):
            pair = self._streams.get(frame.stream)
            if pair is not None and pair.task is not None and frame.stream == pair.data:
                pair.task.cancel()
        elif isinstance(frame, Ping) and frame.number % 2:
            await self._send(self._writer.ping(frame.number))

    async def _open(self, frame: Opened, tasks: asyncio.TaskGroup) -> None:
        number = frame.headers.get("requestid", "")
        port = frame.headers.get("port", "")
        if not port.isdigit():
            raise SpdyError(f"a stream for port {port!r}")
        pair = self._pairs.setdefault(number, _Pair())
        pair.port = int(port)
        if frame.headers.get("streamtype") == "error":
            pair.error = frame.stream
        else:
            pair.data = frame.stream
        self._streams[frame.stream] = pair
        await self._send(self._writer.accept(frame.stream))
        if pair.error and pair.data and pair.task is None:
            pair.task = tasks.create_task(self._connect(number, pair))

    async def _connect(self, number: str, pair: _Pair) -> None:
        """One connection, to its end."""
        try:
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    reader, writer = await asyncio.open_connection(self._address, pair.port)
            except OSError as error:  # a TimeoutError, too
                why = error.strerror or "no answer"
                text = f"error forwarding port {pair.port} to pod {self._pod}: {self._address}:{pair.port}: {why}"
                await self._send(self._writer.data(pair.error, text.encode()))
            else:
                await self._splice(pair, reader, writer)
            await self._send(self._writer.data(pair.data, b"", fin=True))
            await self._send(self._writer.data(pair.error, b"", fin=True))
        except ConnectionError:
            return  # the client has gone
        finally:
            self._pairs.pop(number, None)
            self._streams.pop(pair.error, None)
            self._streams.pop(pair.data, None)
            while not pair.sent.empty():  # whoever waits to put more is let go
                pair.sent.get_nowait()

    async def _splice(self, pair: _Pair, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def upwards() -> None:
            with contextlib.suppress(OSError):
                while part := await pair.sent.get():
                    writer.write(part)
                    await writer.drain()
                writer.write_eof()

        try:
            async with asyncio.TaskGroup() as tasks:
                going = tasks.create_task(upwards())
                try:
                    while part := await reader.read(CHUNK):
                        await self._send(self._writer.data(pair.data, part))
                except ConnectionError as error:
                    log.debug("port_forward_cut", pod=self._pod, error=str(error))
                going.cancel()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _send(self, data: bytes) -> None:
        await self._socket.send_bytes(data)
