"""Connections of this machine are found by others, and those of killed processes are forgotten."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sandlane.kube.clock import SystemClock
from sandlane.laptop.errors import ConnectError
from sandlane.laptop.inbound import LocalTarget
from sandlane.laptop.registry import RUNTIME_DIR, ended, entry, records, runtime_dir
from sandlane.laptop.state import Held, State

HOLD = """
import os, sys
from sandlane.kube.clock import SystemClock
from sandlane.laptop.registry import entry
with entry(SystemClock(), "rides", "mine"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runtime directory of the test's own."""
    monkeypatch.setenv(RUNTIME_DIR, str(tmp_path / "run"))
    return tmp_path / "run"


def test_a_connection_is_there_as_long_as_its_process_holds_it(folder: Path) -> None:
    """Others read what it last wrote; nothing is left at the end."""
    with entry(SystemClock(), "rides", "mine") as mine:
        mine.write(State([Held("rides", "a", "mine", "eta", (LocalTarget(1, "127.0.0.1", 2),), {"r0": 1})]))
        [record] = records()
        assert (record.namespace, record.sandbox) == ("rides", "mine")
        assert record.state.workloads[0].spoken() == "connected: 1 tunnel to 1 server"
    assert records() == []
    assert list(folder.iterdir()) == []


def test_what_a_killed_process_leaves_is_removed(folder: Path) -> None:
    """Its lock has gone with it, so whoever looks next cleans up."""
    with subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert [record.pid for record in records()] == [process.pid]
        process.kill()
        process.wait()
    assert records() == []
    assert list(folder.iterdir()) == []


def test_the_last_words_of_what_has_ended_by_itself_are_told_once(folder: Path) -> None:
    """They are in its log, which stays until somebody has asked; a living connection's log is left alone."""
    with entry(SystemClock(), "rides", "mine") as mine:
        Path(mine.record.log).write_text("connected\nrides/a: another laptop has taken it over\n")
        assert ended() == []
    assert records() == []
    assert [words for _, words in ended()] == ["rides/a: another laptop has taken it over"]
    assert ended() == []
    assert list(folder.iterdir()) == []


def test_a_path_that_is_too_long_for_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said at once, not by Envoy."""
    monkeypatch.setenv(RUNTIME_DIR, str(tmp_path / ("x" * 100)))
    with pytest.raises(ConnectError, match="too long a path"), entry(SystemClock(), "rides", "mine"):
        pytest.fail("it has begun")


def test_a_folder_that_others_may_write_to_is_refused(folder: Path) -> None:
    """Somebody could put a record there that makes us end their choice of processes."""
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(ConnectError, match="belongs to somebody else or others may write"):
        runtime_dir()
