"""Leader election under kills, pauses and restarts: what the API server's record of writes says."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from bench.report import Table
from support.conformance.cluster import running
from support.leaders import OPTIONS, contest

ROUNDS = 45


def run() -> list[Table]:
    """One table."""
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "data", controllers=False) as cluster:
        outcome = asyncio.run(contest(cluster.kubeconfig, ROUNDS))
    names = {"kill": "SIGKILL", "stop": "SIGSTOP, SIGCONT after the Lease was another's", "term": "SIGTERM"}
    rows = [
        (names[how], str(len(found)), f"{sorted(found)[len(found) // 2]:.2f} s", f"{max(found):.2f} s")
        for how, found in sorted(outcome.failovers.items())
    ]
    note = (
        f"Two managers as processes, a Lease of {OPTIONS.lease_duration_seconds:g}/{OPTIONS.renew_deadline_seconds:g}/"
        f"{OPTIONS.retry_period_seconds:g} s, the leader writes every 10 ms: {outcome.writes:,} writes in "
        f"{outcome.turns} turns; writes of a former leader that were accepted after the next one's first: "
        f"{sum(outcome.late)} in all, at most {max(outcome.late)} in a turn (1 may be under way)."
    )
    columns = ("the leader gets", "times", "failover, median", "failover, longest")
    return [Table("leaders", "Leader election", columns, tuple(rows), note)]
