"""Port-forward as client libraries ask for it: two numbered channels per port, raw bytes, all on one WebSocket.

Channel 2n carries the nth port's bytes, channel 2n+1 what went wrong with it; the first message on each is the port.
A session's connections are tasks of its own group; they end with the WebSocket.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct

from aiohttp import WSMsgType, web

from sandlane.local.node.portforward import CHUNK, CONNECT_SECONDS

PROTOCOL = "v4.channel.k8s.io"


class Channels:
    """One client's connections to a Pod, one for each port asked for."""

    def __init__(self, socket: web.WebSocketResponse, address: str, pod: str, ports: list[int]) -> None:
        self._socket = socket
        self._address = address
        self._pod = pod
        self._ports = ports
        self._writers: dict[int, asyncio.StreamWriter] = {}

    async def run(self) -> None:
        """Serve until the client goes, or all connections have ended."""
        async with asyncio.TaskGroup() as tasks:
            ways: list[asyncio.Task[None]] = []
            connected: list[asyncio.StreamReader | None] = []
            for index, port in enumerate(self._ports):
                connected.append(await self._connect(index, port))
            for index, reader in enumerate(connected):
                if reader is not None:
                    ways.append(tasks.create_task(self._down(index, reader)))
            if ways:
                listening = tasks.create_task(self._up())
                all_down = tasks.create_task(_all(ways))
                await asyncio.wait({listening, all_down}, return_when=asyncio.FIRST_COMPLETED)
                for task in (listening, all_down, *ways):
                    task.cancel()
        for writer in self._writers.values():
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _connect(self, index: int, port: int) -> asyncio.StreamReader | None:
        number = struct.pack("<H", port)
        for channel in (2 * index, 2 * index + 1):
            await self._send(channel, number)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                reader, self._writers[2 * index] = await asyncio.open_connection(self._address, port)
        except OSError as error:  # a TimeoutError, too
            why = f"{self._address}:{port}: {error.strerror or 'no answer'}"
            await self._send(2 * index + 1, f"error forwarding port {port} to pod {self._pod}: {why}".encode())
            return None
        return reader

    async def _down(self, index: int, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            while part := await reader.read(CHUNK):
                await self._send(2 * index, part)

    async def _up(self) -> None:
        async for message in self._socket:
            if message.type == WSMsgType.BINARY and message.data:
                writer = self._writers.get(message.data[0])
                if writer is not None:
                    with contextlib.suppress(ConnectionError):
                        writer.write(message.data[1:])
                        await writer.drain()

    async def _send(self, channel: int, data: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            await self._socket.send_bytes(bytes([channel]) + data)


async def _all(tasks: list[asyncio.Task[None]]) -> None:
    await asyncio.wait(tasks)
