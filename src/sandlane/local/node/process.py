"""One container's process: started in its own session, its output in a file, killed by the kernel when this node dies."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import resource
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class StartFailed(Exception):
    """The program could not be started; the message says why."""


class ContainerProcess:
    """A running (or ended) process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """Its process id, which is also that of its session."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.returncode is None

    async def wait(self) -> int:
        """Its exit code as a container's: 128 + the signal that killed it."""
        code = await self._process.wait()
        self._signal_group(signal.SIGKILL)  # what it left behind in its session
        return 128 - code if code < 0 else code

    def signal(self, number: int) -> None:
        """Send a signal to it and its children."""
        if self.running:
            self._signal_group(number)

    def _signal_group(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


async def start(
    argv: Sequence[str], env: Mapping[str, str], folder: str, log: Path, memory_limit: int | None
) -> ContainerProcess:
    """Start a program. Raises `StartFailed`."""
    parent = os.getpid()

    def prepare() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        if memory_limit is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (memory_limit, memory_limit))

    with log.open("ab") as out:
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                env=dict(env),
                cwd=folder or "/",
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                preexec_fn=prepare,
            )
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            raise StartFailed(f"cannot start {argv[0] if argv else 'nothing'}: {error}") from error
    return ContainerProcess(process)
