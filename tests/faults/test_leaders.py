"""Two managers: never two leaders' writes interleaved beyond what was under way, and a quick failover."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.conformance.cluster import running
from support.leaders import contest


@pytest.mark.slow
async def test_processes_that_are_killed_and_stopped(tmp_path: Path) -> None:
    """Killed, stopped for longer than the Lease, ended in good order: told from the API server's record of writes."""
    with running(tmp_path / "data", controllers=False) as cluster:
        outcome = await contest(cluster.kubeconfig, rounds=5)
    assert outcome.turns >= 6
    assert max(outcome.late) <= 1
    assert all(seconds < 3 for seconds in outcome.failovers["term"])
    assert all(seconds < 20 for found in outcome.failovers.values() for seconds in found)
