"""Durability of the whole server: what it answered survives `kill -9`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.killed_server import Lost, torment

KILLS = int(os.environ.get("SANDLANE_KILLS", "15"))
"""`make bench BENCH=kills` does 200."""


@pytest.mark.slow
async def test_no_answered_write_is_lost(tmp_path: Path) -> None:
    """However often the process is killed under eight writers, each write that it answered is there afterwards."""
    try:
        outcome = await torment(tmp_path, KILLS, 20)
    except* Lost as lost:
        pytest.fail(f"{lost.exceptions}")
    assert outcome.kills >= KILLS
    assert all(outcome.acknowledged[verb] > KILLS for verb in ("create", "update", "patch", "delete"))
