"""Starting a cluster in the background, from the outside."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sandlane.kube.clock import SystemClock
from sandlane.local.settings import DataDir
from sandlane.local.up import launch
from sandlane.local.up.claim import AlreadyRunning, Lock


def test_of_two_starts_at_once_one_hears_of_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have found the directory free; the slower one's supervisor ends, and it is said who was faster."""
    data, faster = DataDir(tmp_path / "d"), []

    def check(data: DataDir) -> None:
        data.prepare()
        faster.append(Lock(data.lock))

    monkeypatch.setattr(launch, "check", check)
    monkeypatch.setattr(launch, "command_line", lambda *given: [sys.executable, "-S", "-c", "raise SystemExit(1)"])
    with pytest.raises(AlreadyRunning):
        launch.start_detached(data, SystemClock(), lambda seconds: None)
    faster[0].release()
