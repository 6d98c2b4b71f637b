"""One container's process: started by `launch.py` in its own session and view, its output in a file, killed by the
kernel when this node dies. What it leaves behind when it ends is killed too.
"""

from __future__ import annotations

import asyncio
import contextlib
import marshal
import os
import signal
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
    """A running (or ended) process; `view` is the inode of its own mount namespace, 0 when it has none."""

    def __init__(self, process: asyncio.subprocess.Process, view: int = 0) -> None:
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
        if self._view:
            kill_view(self._view)
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
    """Kill every process that lives in a container's mount namespace, whatever sessions it has made."""
    killed: set[int] = set()
    while found := {int(name) for name in os.listdir("/proc") if name.isdigit() and _lives_in(name, view)} - killed:
        for pid in found:  # and again, for what these have started meanwhile
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        killed |= found


def _lives_in(pid: str, view: int) -> bool:
    try:
        return os.stat(f"/proc/{pid}/ns/mnt").st_ino == view
    except OSError:  # it has ended, or is somebody else's
        return False


async def start(
    argv: Sequence[str],
    env: Mapping[str, str],
    folder: str,
    log: Path,
    memory_limit: int | None,
    view: View | None = None,
) -> ContainerProcess:
    """Start a container's program with its output in a file. Raises `StartFailed`."""
    plan: Plan = {
        "parent": os.getpid(),
        "argv": list(argv),
        "env": dict(env),
        "folder": folder,
        "memory": memory_limit,
        "view": view,
    }
    with log.open("ab") as out:
        return await launched(plan, subprocess.DEVNULL, out, out)


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
    reading, writing = os.pipe()
    steps = os.memfd_create("plan")
    process: asyncio.subprocess.Process | None = None
    try:
        os.write(steps, marshal.dumps(dict(plan)))
        os.lseek(steps, 0, os.SEEK_SET)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-S",
            launch.__file__,
            str(steps),
            str(writing),
            env={},
            cwd="/",
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
            pass_fds=(steps, writing),
        )
        os.close(writing)
        writing = -1
        report = await _whole(reading)
    except (OSError, ValueError) as error:
        raise StartFailed(f"cannot start {plan['argv'][0]}: {error}") from error
    except BaseException:
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()
        raise
    finally:
        for fd in (reading, writing, steps):
            if fd >= 0:
                os.close(fd)
    words = dict(line.split(" ", 1) for line in report.splitlines() if " " in line)
    if "error" in words:
        await process.wait()
        raise StartFailed(report.partition("error ")[2].strip())
    return ContainerProcess(process, int(words.get("view", "0")))


async def _whole(fd: int) -> str:
    """All that is written to a pipe until it is closed, which exec does."""
    loop = asyncio.get_running_loop()
    os.set_blocking(fd, False)
    parts: list[bytes] = []
    done: asyncio.Future[None] = loop.create_future()

    def read() -> None:
        try:
            part = os.read(fd, 65536)
        except BlockingIOError:
            return
        parts.append(part)
        if not part and not done.done():
            done.set_result(None)

    loop.add_reader(fd, read)
    try:
        await done
    finally:
        loop.remove_reader(fd)
    return b"".join(parts).decode(errors="replace")


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
    return "" if await process.wait() == 0 else "a program in a new view fails"
