"""`kubectl exec`: a command beside a container's process, its streams on one WebSocket.

Each message begins with the number of its stream. Protocol: v4.channel.k8s.io and v5.channel.k8s.io (which can also
close single streams), https://github.com/kubernetes/enhancements/tree/master/keps/sig-api-machinery/4006-transition-spdy-to-websockets
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Mapping

import msgspec
from aiohttp import WSMsgType, web

from sandlane.kube.resource import Object
from sandlane.local.node.process import ContainerProcess, StartFailed, join

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
CHUNK = 32 * 1024


class Wanted(msgspec.Struct, frozen=True):
    """What a client asks for."""

    command: list[str]
    stdin: bool
    tty: bool


class Session:
    """One command and its WebSocket."""

    def __init__(self, socket: web.WebSocketResponse, wanted: Wanted) -> None:
        self._socket = socket
        self._wanted = wanted
        self._terminal = -1

    async def run(self, pid: int, env: Mapping[str, str], folder: str) -> None:
        """Run the command to its end, and say how it ended."""
        try:
            process = await self._start(pid, env, folder)
        except StartFailed as error:
            await self._end(_failure(str(error), 126))
            return
        try:
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(self._from_client(process))
                writing = tasks.create_task(self._to_client(process))
                ended = tasks.create_task(process.wait())
                await asyncio.wait({reading, ended}, return_when=asyncio.FIRST_COMPLETED)
                if not ended.done():  # the client has gone
                    await process.end(1.0)
                code = await ended
                await writing
                reading.cancel()
            await self._end({"metadata": {}, "status": "Success"} if code == 0 else _failure("", code))
        finally:
            if process.running:
                await process.end(0)
            if process.streams.stdin is not None:
                process.streams.stdin.close()
            if self._terminal >= 0:
                os.close(self._terminal)

    async def _start(self, pid: int, env: Mapping[str, str], folder: str) -> ContainerProcess:
        if not self._wanted.tty:
            stdin = subprocess.PIPE if self._wanted.stdin else subprocess.DEVNULL
            return await join(pid, self._wanted.command, env, folder, (stdin, subprocess.PIPE, subprocess.PIPE))
        self._terminal, theirs = pty.openpty()
        try:
            env = {"TERM": "xterm", **env}
            return await join(pid, self._wanted.command, env, folder, (theirs, theirs, theirs), tty=True)
        except BaseException:
            os.close(self._terminal)
            self._terminal = -1
            raise
        finally:
            os.close(theirs)

    async def _end(self, status: Object) -> None:
        with contextlib.suppress(ConnectionError):
            await self._socket.send_bytes(bytes([ERROR]) + msgspec.json.encode(status))

    # -- to the client ----------------------------------------------------------------------------------

    async def _to_client(self, process: ContainerProcess) -> None:
        try:
            if self._terminal >= 0:
                await self._terminal_to_client()
                return
            out, err = process.streams.stdout, process.streams.stderr
            assert out is not None
            assert err is not None
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._copy(out, STDOUT))
                tasks.create_task(self._copy(err, STDERR))
        except* ConnectionError:
            pass  # the client has gone: whoever reads from it ends the command

    async def _copy(self, source: asyncio.StreamReader, stream: int) -> None:
        while part := await source.read(CHUNK):
            await self._socket.send_bytes(bytes([stream]) + part)

    async def _terminal_to_client(self) -> None:
        while True:
            await ready(self._terminal)
            try:
                part = os.read(self._terminal, CHUNK)
            except OSError:  # EIO: nobody has the terminal open any more
                return
            if not part:
                return
            await self._socket.send_bytes(bytes([STDOUT]) + part)

    # -- from the client --------------------------------------------------------------------------------

    async def _from_client(self, process: ContainerProcess) -> None:
        """Pass messages on until the client goes."""
        async for message in self._socket:
            if message.type != WSMsgType.BINARY or not message.data:
                continue
            stream, data = message.data[0], message.data[1:]
            if stream == STDIN and self._wanted.stdin:
                await self._input(process, data)
            elif stream == CLOSE and data[:1] == bytes([STDIN]):
                self._close_input(process)
            elif stream == RESIZE and self._terminal >= 0:
                resize(self._terminal, data)

    async def _input(self, process: ContainerProcess, data: bytes) -> None:
        if self._terminal >= 0:
            with contextlib.suppress(OSError):
                os.write(self._terminal, data)
            return
        stdin = process.streams.stdin
        if stdin is not None and not stdin.is_closing():
            stdin.write(data)
            with contextlib.suppress(ConnectionError):
                await stdin.drain()

    def _close_input(self, process: ContainerProcess) -> None:
        if self._terminal >= 0:
            with contextlib.suppress(OSError):
                os.write(self._terminal, b"\x04")
        elif process.streams.stdin is not None:
            process.streams.stdin.close()


async def ready(fd: int) -> None:
    """Return once a file can be read."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[None] = loop.create_future()

    def readable() -> None:
        if not found.done():
            found.set_result(None)

    loop.add_reader(fd, readable)
    try:
        await found
    finally:
        loop.remove_reader(fd)


def resize(terminal: int, data: bytes) -> None:
    """Set the size of a terminal as a client says it; nonsense is passed over."""
    try:
        size = msgspec.json.decode(data, type=dict[str, int])
    except msgspec.DecodeError:
        return
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", size.get("Height", 0), size.get("Width", 0), 0, 0))


def _failure(message: str, code: int) -> Object:
    text = message or f"command terminated with non-zero exit code: exit status {code}"
    causes = [{"reason": "ExitCode", "message": str(code)}]
    return {
        "metadata": {},
        "status": "Failure",
        "message": text,
        "reason": "NonZeroExitCode",
        "details": {"causes": causes},
    }
