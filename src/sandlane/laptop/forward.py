"""Connections to Pods through the Kubernetes API's port-forward: nothing has to be exposed, and the user's own rights count.

Each connection is a WebSocket to the API server; bytes are passed on as they come, with back-pressure. All tasks run in
the TaskGroup that `Forwarder` is given.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from sandlane.kube.client import Client
from sandlane.kube.errors import KubeError
from sandlane.kube.pods import PortForward, port_forward
from sandlane.kube.resource import Key

log = structlog.get_logger(__name__)

CHUNK = 1 << 16
TIMEOUT = 10.0


class Forwarder:
    """Opens connections to ports of Pods."""

    def __init__(self, client: Client, tasks: asyncio.TaskGroup) -> None:
        self._client = client
        self._tasks = tasks

    async def open(self, pod: Key, port: int) -> socket.socket:
        """A socket whose other end is the Pod's port. Raises `ConnectionError` saying why not."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks.create_task(self._serve(theirs, pod, port, opened))
        try:
            await opened
        except BaseException:
            ours.close()
            raise
        return ours

    async def join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pod: Key, port: int) -> None:
        """Pass bytes between a local connection and the Pod's port until either ends. Raises `ConnectionError`."""
        async with self._forwarded(pod, port) as forward:
            await _join(reader, writer, forward)

    async def _serve(self, sock: socket.socket, pod: Key, port: int, opened: asyncio.Future[None]) -> None:
        reader, writer = await asyncio.open_connection(sock=sock)
        try:
            async with self._forwarded(pod, port) as forward:
                if not opened.done():
                    opened.set_result(None)
                await _join(reader, writer, forward)
        except ConnectionError as error:
            if not opened.done():
                opened.set_exception(error)
            else:
                log.debug("port_forward_ended", pod=str(pod), error=str(error))
        finally:
            writer.transport.abort()

    @asynccontextmanager
    async def _forwarded(self, pod: Key, port: int) -> AsyncIterator[PortForward]:
        try:
            async with port_forward(self._client, pod, port, timeout=TIMEOUT) as forward:
                yield forward
        except KubeError as error:
            raise ConnectionError(f"port-forward to Pod {pod}: {error}") from error


async def _join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, forward: PortForward) -> None:
    """Both ways, until either ends."""
    failures: list[BaseException] = []

    async def up() -> None:
        while data := await reader.read(CHUNK):
            await forward.write(data)

    async def down() -> None:
        while data := await forward.read():
            writer.write(data)
            await writer.drain()

    async def one(way: object) -> None:
        try:
            await way  # type: ignore[misc]
        except (OSError, KubeError) as error:
            failures.append(error)

    async with asyncio.TaskGroup() as tasks:
        ways = {tasks.create_task(one(up())), tasks.create_task(one(down()))}
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for each in ways:
            each.cancel()
    if failures:
        raise ConnectionError(str(failures[0])) from failures[0]
