"""Supervised processes: started again when they die, ended with their supervisor, however it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sandlane.kube.clock import SystemClock
from sandlane.local.settings import DataDir, Settings
from sandlane.local.up.logs import last_lines
from sandlane.local.up.process import Command, Supervised, rotate
from sandlane.local.up.state import read_state
from sandlane.local.up.supervisor import Cluster

DEADLINE = 20.0


def command(*argv: str, probe: Callable[[], str] = lambda: "", name: str = "it") -> Command:
    """A command that may start at once."""

    async def at_once() -> None:
        return

    async def ask() -> str:
        return probe()

    return Command(name, name.title(), argv, at_once, ask)


async def until(check: Callable[[], object], what: str) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(DEADLINE):
        while not check():
            await asyncio.sleep(0.01)
    assert check(), what


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_a_dead_process_is_started_again(tmp_path: Path) -> None:
    """After kill -9 there is a new process, the count is one higher and it says how the last one ended."""
    it = Supervised(command("sleep", "1000"), tmp_path / "log", SystemClock(), lambda: None)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(it.run())
        await until(lambda: it.state.ready, "ready")
        first = it.state.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda: it.state.ready and it.state.pid not in (None, first), "another one")
        assert (it.state.restarts, it.state.last_end) == (1, "killed by SIGKILL")
        second = it.state.pid
        assert second is not None
        running.cancel()
    assert not alive(second)


async def test_a_deaf_process_and_its_children_are_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ignores SIGTERM is killed after a while, with everything in its group."""
    monkeypatch.setattr("sandlane.local.up.process.STOP_SECONDS", 0.2)
    script = "trap '' TERM; sleep 1000 & echo $!; wait; wait"
    log = tmp_path / "log"
    it = Supervised(command("sh", "-c", script), log, SystemClock(), lambda: None)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(it.run())
        await until(lambda: last_lines(log), "the child's id")
        child = int(last_lines(log)[0])
        running.cancel()
    assert not alive(child)


def test_nothing_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    """After kill -9 of the supervising process its children are gone."""
    script = f"""
import asyncio
from pathlib import Path
from sandlane.kube.clock import SystemClock
from sandlane.local.up.process import Command, Supervised, rotate
async def at_once(): pass
async def ask(): return ""
it = None
def say():
    if it is not None and it.state.ready:
        print(it.state.pid, flush=True)
command = Command("it", "It", ["sleep", "1000"], at_once, ask)
it = Supervised(command, Path({str(tmp_path / "log")!r}), SystemClock(), say)
asyncio.run(it.run())
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        child = int(supervisor.stdout.readline())
        assert alive(child)
        supervisor.kill()
    end = time.monotonic() + DEADLINE
    while alive(child) and time.monotonic() < end:
        time.sleep(0.01)
    assert not alive(child)


async def test_a_start_that_cannot_succeed_is_given_up(tmp_path: Path) -> None:
    """A process that dies again and again before the cluster was ever ready ends the start, and is named."""
    data = DataDir(tmp_path / "data")
    data.prepare()
    failing = command("sh", "-c", "echo no such luck; exit 3", probe=lambda: "not yet", name="bad")
    cluster = Cluster(data, Settings(16, 16016), [command("sleep", "1000"), failing], SystemClock())
    async with asyncio.timeout(DEADLINE):
        await cluster.run()
    state = read_state(data.status)
    assert state is not None
    assert state.failed == "bad exited with 3 3 times"
    assert last_lines(data.log("bad"))[-1] == "no such luck"
    assert [p.state for p in state.processes] == ["stopped", "stopped"]


async def test_a_process_may_be_over(tmp_path: Path) -> None:
    """Where ending well has a meaning, it is told and nothing is started again; the cluster lacks nothing."""
    over = replace(command("true", probe=lambda: "not yet"), over="its work is done")
    it = Supervised(over, tmp_path / "log", SystemClock(), lambda: None)
    async with asyncio.timeout(DEADLINE):
        await it.run()
    assert (it.state.state, it.state.message, it.state.restarts) == ("ended", "its work is done", 0)
    assert it.state.fine


async def test_a_command_that_does_not_exist(tmp_path: Path) -> None:
    """A program that cannot be started counts as a death with the system's reason."""
    it = Supervised(command("/no/such/program"), tmp_path / "log", SystemClock(), lambda: None)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(it.run())
        await until(lambda: it.state.restarts, "a failed start")
        assert "No such file" in it.state.last_end
        running.cancel()


def test_logs_are_bounded(tmp_path: Path) -> None:
    """A log over its limit moves aside, and an appending writer goes on in the empty file."""
    log = tmp_path / "log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"x" * 100)
        rotate(log, limit=50)
        writer.write(b"new\n")
    assert log.read_bytes() == b"new\n"
    assert (tmp_path / "log.1").stat().st_size == 50
