"""One supervisor per directory, one cluster per block of addresses, and clear words when that fails."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from sandlane.cli.manager import parse
from sandlane.local.settings import DataDir, DataDirError
from sandlane.local.up.claim import AlreadyRunning, Lock, claim_block, holder
from sandlane.local.up.commands import commands
from sandlane.testing.clock import ManualClock


@pytest.fixture
def data(tmp_path: Path) -> DataDir:
    """A prepared data directory."""
    made = DataDir(tmp_path / "data")
    made.prepare()
    return made


def test_directory_is_private(data: DataDir) -> None:
    """Nobody else may read the directory."""
    assert data.root.stat().st_mode & 0o777 == 0o700


def test_another_format_is_refused(data: DataDir) -> None:
    """A directory of another version is left alone, with a message that names both versions."""
    data.version.write_text("99\n")
    with pytest.raises(DataDirError, match="data format 99, this sandlane reads format 1"):
        data.prepare()


def test_a_strangers_directory_is_refused(tmp_path: Path) -> None:
    """A directory with other content is not taken over."""
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(DataDirError, match="was not made by sandlane"):
        DataDir(tmp_path).prepare()


def test_a_full_disk_is_said(data: DataDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too little free space ends the start before anything is written."""
    monkeypatch.setattr("shutil.disk_usage", lambda path: os.times_result((0, 0, 1, 0, 0)) and _Usage())
    with pytest.raises(DataDirError, match="is full"):
        data.prepare()


class _Usage:
    free = 1


def test_lock_names_its_holder(data: DataDir) -> None:
    """While the lock is held others learn the holder's process id; afterwards nobody holds it."""
    lock = Lock(data.lock)
    assert holder(data.lock) == os.getpid()
    with pytest.raises(AlreadyRunning) as caught:
        Lock(data.lock)
    assert caught.value.pid == os.getpid()
    lock.release()
    assert holder(data.lock) is None


def test_blocks_do_not_overlap_and_stay(data: DataDir, tmp_path: Path) -> None:
    """Two clusters get different blocks, and a cluster has its own again at the next start."""
    other = DataDir(tmp_path / "other")
    other.prepare()
    first, claimed_first = claim_block(data)
    second, claimed_second = claim_block(other)
    assert first.block != second.block
    claimed_first.close()
    again, claimed_again = claim_block(data)
    assert again == first
    claimed_again.close()
    claimed_second.close()


def test_a_taken_api_port_is_said(data: DataDir) -> None:
    """When another program listens on the API server's port the message names the port and the way out."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(DataDirError, match=rf"port {port} .* --port"):
            claim_block(data, port)


def test_the_managers_options_may_be_there_before_the_cluster(tmp_path: Path) -> None:
    """A file with the manager's options makes no directory a stranger's, and the manager reads it."""
    data = DataDir(tmp_path / "data")
    data.root.mkdir()
    data.manager_options.write_text("routingKeyHeaders: [x-key]\n")
    data.prepare()
    settings, claimed = claim_block(data)
    claimed.close()
    (manager,) = (each for each in commands(data, settings, None, ManualClock()) if each.name == "manager")
    flags = manager.argv[manager.argv.index("manager") + 1 :]
    assert parse(flags).routing_key_headers == ("x-key",)
