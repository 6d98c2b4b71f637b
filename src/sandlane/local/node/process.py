"""One container's process: started by `launch.py` in its own session and view, its output in a file, killed by the
kernel when this node dies. What it leaves behind when it ends is killed too.
"""

from __future__ import annotations

import asyncio
import contextlib
import marshal
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from sandlane.local.node import launch
from sandlane.local.node.view import Mount, Plan, View

Output = int | IO[Any]


class StartFailed(Exception):
    """The program could not be started; the message says why."""


class ContainerProcess:
    """A running (or ended) process; `view` is its own mount namespace, an open file that is closed when it has ended."""

    def __init__(self, process: asyncio.subprocess.Process, view: int = -1) -> None:
        self._process = process
        self._view = view

    @property
    def pid(self) -> int:
        """Its process id, which is also that of its session."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.returncode is None

    @property
    def streams(self) -> asyncio.subprocess.Process:
        """The process as asyncio knows it: its pipes, where it was started with pipes."""
        return self._process

    async def wait(self) -> int:
        """Its exit code as a container's: 128 + the signal that killed it."""
        code = await self._process.wait()
        self._signal_group(signal.SIGKILL)  # what it left behind in its session
        if self._view >= 0:
            kill_view(self._view)
            os.close(self._view)
            self._view = -1
        return 128 - code if code < 0 else code

    def signal(self, number: int) -> None:
        """Send a signal to it and its children."""
        if self.running:
            self._signal_group(number)

    async def end(self, grace: float) -> int:
        """SIGTERM, and SIGKILL after the grace (seconds); its exit code."""
        self.signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(grace, 0.1)):
                return await self.wait()
        self.signal(signal.SIGKILL)
        return await self.wait()

    def _signal_group(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


def kill_view(view: int) -> None:
    """Kill every process that lives in a mount namespace (an open file), whatever sessions it has made."""
    inode = os.fstat(view).st_ino  # nobody else's while the file is open
    killed: set[int] = set()
    while found := {int(name) for name in os.listdir("/proc") if name.isdigit() and _lives_in(name, inode)} - killed:
        for pid in found:  # and again, for what these have started meanwhile
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        killed |= found


def _lives_in(pid: str, inode: int) -> bool:
    try:
        return os.stat(f"/proc/{pid}/ns/mnt").st_ino == inode
    except OSError:  # it has ended, or is somebody else's
        return False


async def start(
    argv: Sequence[str],
    env: Mapping[str, str],
    folder: str,
    streams: tuple[Output, Output, Output],
    memory_limit: int | None,
    view: View | None = None,
    cpu_group: str = "",
    *,
    tty: bool = False,
) -> ContainerProcess:
    """Start a container's program. Raises `StartFailed`."""
    plan: Plan = {
        "parent": os.getpid(),
        "argv": list(argv),
        "env": dict(env),
        "folder": folder,
        "memory": memory_limit,
        "cpu_group": cpu_group,
        "view": view,
        "tty": tty,
    }
    return await launched(plan, *streams)


async def join(
    pid: int,
    argv: Sequence[str],
    env: Mapping[str, str],
    folder: str,
    streams: tuple[Output, Output, Output],
    *,
    tty: bool = False,
) -> ContainerProcess:
    """Start a program beside a container's process, in its view. Raises `StartFailed`."""
    plan: Plan = {
        "parent": os.getpid(),
        "argv": list(argv),
        "env": dict(env),
        "folder": folder,
        "join": pid,
        "tty": tty,
    }
    return await launched(plan, *streams)


async def launched(plan: Plan, stdin: Output, stdout: Output, stderr: Output) -> ContainerProcess:
    """Carry out a plan. Raises `StartFailed`."""
    if not plan["argv"]:
        raise StartFailed("there is no command to start")
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    steps = os.memfd_create("plan")
    process: asyncio.subprocess.Process | None = None
    view = -1
    try:
        os.write(steps, marshal.dumps(dict(plan)))
        os.lseek(steps, 0, os.SEEK_SET)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-S",
            launch.__file__,
            str(steps),
            str(theirs.fileno()),
            env={},
            cwd="/",
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
            pass_fds=(steps, theirs.fileno()),
        )
        theirs.close()
        loop = asyncio.get_running_loop()
        report = b""
        while part := await loop.sock_recv(ours, 65536):  # until exec, which closes it
            report += part
            if report == b"view\n":
                view = os.open(f"/proc/{process.pid}/ns/mnt", os.O_RDONLY)
                await loop.sock_sendall(ours, b"\n")
        kind, _, error = report.decode(errors="replace").removeprefix("view\n").partition(" ")
        if kind == "error":
            await process.wait()
            raise StartFailed(error.strip())
        return ContainerProcess(process, view)
    except BaseException as error:
        if view >= 0:
            os.close(view)
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()
        if isinstance(error, (OSError, ValueError)):
            raise StartFailed(f"cannot start {plan['argv'][0]}: {error}") from error
        raise
    finally:
        ours.close()
        theirs.close()
        os.close(steps)


async def views_missing(folder: Path) -> str:
    """Why containers cannot have mount views here; the empty text when they can. Tries it, in `folder`."""
    root = folder / "view-probe"
    root.mkdir(parents=True, exist_ok=True)
    hosts = root / "hosts"
    hosts.write_text("", encoding="ascii")
    mounts: list[Mount] = [
        {"source": str(hosts), "target": "/etc/hosts", "read_only": True},
        {"source": str(root), "target": "/sandlane-view-probe/nested", "read_only": False},
    ]
    view: View = {"root": str(root), "hostname": "probe", "mounts": mounts}
    plan: Plan = {"parent": os.getpid(), "argv": ["true"], "env": dict(os.environ), "folder": "/", "view": view}
    try:
        process = await launched(plan, subprocess.DEVNULL, subprocess.DEVNULL, subprocess.DEVNULL)
    except StartFailed as error:
        return str(error)
    try:
        return "" if await process.wait() == 0 else "a program in a new view fails"
    finally:
        if process.running:  # cancelled
            process.signal(signal.SIGKILL)
            await process.wait()
