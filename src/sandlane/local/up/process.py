"""One supervised process: started in its own group with its own log, ended with us, started again when it dies.

`Supervised.run` owns the process; cancelling it ends the process (SIGTERM, then SIGKILL) and everything in its group.
When we are killed instead, the kernel kills the process (PR_SET_PDEATHSIG), and each process does so for its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import structlog

from sandlane.kube.clock import Clock
from sandlane.local.up.guard import adopt_orphans, die_with_parent, kill_children
from sandlane.local.up.logs import open_log
from sandlane.local.up.state import ProcessState

log = structlog.get_logger(__name__)

FIRST_DELAY, LAST_DELAY = 0.1, 10.0
HEALTHY_AFTER = 10.0
"""Seconds of life after which the back-off starts afresh."""
STOP_SECONDS = 10.0
LOG_LIMIT = 8 * 2**20


@dataclass(frozen=True)
class Command:
    """What to start. `may_start` is waited for before each start, `probe` says whether it is ready."""

    name: str
    title: str
    argv: Sequence[str]
    may_start: Callable[[], Awaitable[None]]
    probe: Callable[[], Awaitable[str]]
    """The empty text when ready, else what is missing."""
    env: Mapping[str, str] = field(default_factory=dict)
    over: str = ""
    """What it means when it ends by itself with 0: then it is not started again. Empty: it must not do so."""


class Children:
    """The processes that we started. What else is our child is an orphan of one of them, and has to go."""

    def __init__(self) -> None:
        self._known: set[int] = set()
        self._starting = 0
        self._adopting = False

    def adopt(self) -> None:
        """From now on orphans come to this process, whose other children are all started here."""
        adopt_orphans()
        self._adopting = True

    async def start(self, command: Command, output: BinaryIO) -> asyncio.subprocess.Process:
        """Start a process. Raises `OSError`."""
        parent = os.getpid()
        self._starting += 1
        try:
            process = await asyncio.create_subprocess_exec(
                *command.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **command.env},
                start_new_session=True,
                preexec_fn=lambda: die_with_parent(parent, signal.SIGKILL),
            )
            self._known.add(process.pid)
            return process
        finally:
            self._starting -= 1

    async def ended(self, process: asyncio.subprocess.Process, clock: Clock) -> None:
        """Forget a process and kill its orphans."""
        self._known.discard(process.pid)
        if not self._adopting:
            return
        while self._starting:  # a process that is being started is no orphan
            await clock.sleep(0.01)
        kill_children(self._known)


children = Children()


class Supervised:
    """A process and its history; `changed` is called whenever `state` did."""

    def __init__(self, command: Command, log_file: Path, clock: Clock, changed: Callable[[], None]) -> None:
        self.command = command
        self.state = ProcessState(command.name, command.title, log=str(log_file))
        self.deaths_before_ready = 0
        self._log_file = log_file
        self._clock = clock
        self._changed = changed
        self._ever_ready = False

    async def run(self) -> None:
        """Keep the process alive until cancelled."""
        delay = FIRST_DELAY
        while True:
            await self.command.may_start()
            started = self._clock.monotonic()
            ended = await self._live_once()
            if self.command.over and ended == how_it_ended(0):
                self._set(state="ended", message=self.command.over, last_end=ended)
                log.info("process_over", process=self.command.name)
                return
            if self._clock.monotonic() - started > HEALTHY_AFTER:
                delay = FIRST_DELAY
            self.deaths_before_ready += not self._ever_ready
            restarts = self.state.restarts + 1
            self._set(state="waiting", ready=False, pid=None, restarts=restarts, message=ended, last_end=ended)
            log.warning("process_ended", process=self.command.name, how=ended, again_in=delay)
            await self._clock.sleep(delay)
            delay = min(delay * 2, LAST_DELAY)

    def _set(self, **values: object) -> None:
        for name, value in values.items():
            setattr(self.state, name, value)
        self._changed()

    async def _live_once(self) -> str:
        rotate(self._log_file)
        with open_log(self._log_file) as output:
            try:
                process = await children.start(self.command, output)
            except OSError as error:
                return f"cannot be started: {error.strerror or error}"
        try:
            self._set(state="running", pid=process.pid)
            async with asyncio.TaskGroup() as tasks:
                watching = tasks.create_task(self._wait_ready())
                code = await process.wait()
                watching.cancel()
            return how_it_ended(code)
        finally:
            await end_group(process)
            await children.ended(process, self._clock)
            self._set(state="stopped", ready=False, pid=None)

    async def _wait_ready(self) -> None:
        pause = 0.02
        while missing := await self.command.probe():
            if missing != self.state.message:
                self._set(message=missing)
            await self._clock.sleep(pause)
            pause = min(pause * 1.3, 0.5)
        self._ever_ready = True
        self._set(ready=True, message="")


async def end_group(process: asyncio.subprocess.Process) -> None:
    """End a process gently, then with force; also what is left of its group."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            log.warning("process_killed", pid=process.pid, after=STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def how_it_ended(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exited with {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def rotate(path: Path, limit: int = LOG_LIMIT) -> None:
    """Keep a log under `limit` bytes: its content moves to `NAME.1`, its writers (which append) go on."""
    try:
        if path.stat().st_size <= limit:
            return
        content = path.read_bytes()[-limit:]
        path.with_name(f"{path.name}.1").write_bytes(content)
        os.truncate(path, 0)
    except FileNotFoundError:
        return
    except OSError as error:  # a full disk: the newest lines matter more than the old ones
        log.warning("log_not_rotated", log=str(path), error=str(error))
        os.truncate(path, 0)
