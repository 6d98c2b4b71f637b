"""A TCP proxy on loopback that can do what networks do: reset, swallow, forget one side, delay and lose."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct

LINGER = struct.pack("ii", 1, 0)


class FaultyProxy:
    """Passes connections on to `host:port`, until told otherwise. All tasks end with `close`."""

    def __init__(self, host: str, port: int, seed: int = 1) -> None:
        self.target = (host, port)
        self.port = 0
        self.open = asyncio.Event()
        self.open.set()
        self.delay = 0.0
        self.loss = 0.0
        self._random = random.Random(seed)
        self._forgotten: set[asyncio.StreamReader] = set()
        self._pairs: dict[
            asyncio.Task[None], tuple[asyncio.StreamReader, asyncio.StreamWriter, asyncio.StreamWriter]
        ] = {}
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen on a free port of 127.0.0.1."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """End everything."""
        assert self._server is not None
        self._server.close()
        self.reset()
        for task in list(self._pairs):
            task.cancel()

    def reset(self) -> None:
        """End all connections with RST, on both sides."""
        for _, *writers in list(self._pairs.values()):
            for writer in writers:
                abort(writer)

    def forget(self) -> None:
        """End all connections on the servers' side; the laptop's side hears nothing."""
        for reader, _, server in list(self._pairs.values()):
            self._forgotten.add(reader)
            abort(server)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        await self.open.wait()
        try:
            far_reader, far_writer = await asyncio.open_connection(*self.target)
        except OSError:
            abort(writer)
            return
        self._pairs[task] = (far_reader, writer, far_writer)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pass(reader, far_writer))
                tasks.create_task(self._pass(far_reader, writer))
        except* OSError:
            pass
        except* asyncio.CancelledError:  # `close`
            pass
        finally:
            del self._pairs[task]
            self._forgotten.discard(far_reader)
            abort(writer)
            abort(far_writer)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One direction. The end of a connection that the server has forgotten is not passed on, and what is sent to it is lost."""
        loop = asyncio.get_running_loop()
        chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(64)

        async def write() -> None:
            while True:
                due, chunk = await chunks.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                await self.open.wait()
                if not chunk:
                    with contextlib.suppress(OSError):
                        writer.write_eof()
                    return
                if not writer.is_closing():
                    writer.write(chunk)
                    await writer.drain()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(write())
            while True:
                chunk = await reader.read(65536) if reader not in self._forgotten else b""
                if reader in self._forgotten:
                    await loop.create_future()
                late = 3 * self.delay if self._random.random() < self.loss else 0.0  # sent again after a while
                await chunks.put((loop.time() + self.delay + late, chunk))
                if not chunk:
                    return


def abort(writer: asyncio.StreamWriter) -> None:
    """Close with RST."""
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
    writer.transport.abort()
