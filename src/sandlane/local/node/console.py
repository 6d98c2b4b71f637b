"""A container's standard input and terminal, where its spec asks for them, and `kubectl attach` to it.

What a container writes goes to its log; who is attached reads it there. The protocol is that of exec.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import WSMsgType, web

from sandlane.kube.clock import Clock
from sandlane.kube.resource import Object
from sandlane.local.node.exec import CHUNK, CLOSE, ERROR, RESIZE, STDIN, STDOUT, ready, resize
from sandlane.local.node.logs import Wanted, read_log
from sandlane.local.node.process import ContainerProcess, Output

_SUCCESS = b'{"metadata":{},"status":"Success"}'


class Console:
    """The input of one run of a container. `stdio` is what its process is started with; close it after the start."""

    def __init__(self, spec: Object) -> None:
        self.tty = bool(spec.get("tty"))
        self._stdin = bool(spec.get("stdin"))
        self._once = bool(spec.get("stdinOnce"))
        self._terminal = self._theirs = -1
        self._process: ContainerProcess | None = None
        self.over = False
        """Whether all that the run has written is in the log."""

    def stdio(self, log: Output) -> tuple[Output, Output, Output]:
        """Input, output and errors for the process, with `log` for what it writes."""
        if self.tty:
            self._terminal, self._theirs = pty.openpty()
            os.set_blocking(self._terminal, False)  # who does not read its input loses it
            return self._theirs, self._theirs, self._theirs
        return subprocess.PIPE if self._stdin else subprocess.DEVNULL, log, log

    def started(self, process: ContainerProcess | None) -> None:
        """The process has what it was started with; None when it could not be started."""
        self._process = process
        if self._theirs >= 0:
            os.close(self._theirs)
            self._theirs = -1
        if process is None:
            self.close()

    def close(self) -> None:
        """The run is over."""
        self.over = True
        if self._terminal >= 0:
            os.close(self._terminal)
            self._terminal = -1
        if self._process is not None and self._process.streams.stdin is not None:
            self._process.streams.stdin.close()

    async def keep(self, log: Path) -> None:
        """Write what comes from the terminal into the log, until nobody has it open any more."""
        if self._terminal < 0:
            return
        with log.open("ab") as file:
            while True:
                await ready(self._terminal)
                try:
                    part = os.read(self._terminal, CHUNK)
                except OSError:  # EIO
                    return
                if not part:
                    return
                file.write(part)
                file.flush()

    async def write(self, data: bytes) -> None:
        """Give input to the process; nothing where it takes none."""
        if not self._stdin:
            return
        with contextlib.suppress(OSError):
            if self._terminal >= 0:
                os.write(self._terminal, data)
            elif self._process is not None and self._process.streams.stdin is not None:
                self._process.streams.stdin.write(data)
                await self._process.streams.stdin.drain()

    def end_input(self) -> None:
        """A client that gave input gives no more: the end of it, where one client is all there is to be."""
        if not (self._stdin and self._once):
            return
        if self._terminal >= 0:
            with contextlib.suppress(OSError):
                os.write(self._terminal, b"\x04")
        elif self._process is not None and self._process.streams.stdin is not None:
            self._process.streams.stdin.close()

    def resize(self, data: bytes) -> None:
        """Another size of the terminal."""
        if self._terminal >= 0:
            resize(self._terminal, data)


async def attach(socket: web.WebSocketResponse, console: Console, log: Path, clock: Clock) -> None:
    """Pass on what a container writes from now on, and input to it, until it ends or the client goes."""
    chunks = read_log(log, clock, Wanted(follow=True, tail=0), lambda: not console.over)
    async with asyncio.TaskGroup() as tasks:
        out = tasks.create_task(_to_client(socket, chunks))
        back = tasks.create_task(_from_client(socket, console))
        await asyncio.wait({out, back}, return_when=asyncio.FIRST_COMPLETED)
        out.cancel()
        back.cancel()


async def _to_client(socket: web.WebSocketResponse, chunks: AsyncIterator[bytes]) -> None:
    with contextlib.suppress(ConnectionError):
        async for chunk in chunks:
            await socket.send_bytes(bytes([STDOUT]) + chunk)
        await socket.send_bytes(bytes([ERROR]) + _SUCCESS)


async def _from_client(socket: web.WebSocketResponse, console: Console) -> None:
    gave = False
    async for message in socket:
        if message.type != WSMsgType.BINARY or not message.data:
            continue
        stream, data = message.data[0], message.data[1:]
        if stream == STDIN:
            gave = True
            await console.write(data)
        elif stream == CLOSE and data[:1] == bytes([STDIN]):
            console.end_input()
        elif stream == RESIZE:
            console.resize(data)
    if gave:
        console.end_input()
