"""kill -9 of the API server process under eight writers, again and again: what is there afterwards."""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from bench.report import Table
from support.killed_server import WRITERS, torment

KILLS, SEED = 200, 1


def run() -> list[Table]:
    """One table. Raises `Lost` when a write that was acknowledged is not there."""
    with tempfile.TemporaryDirectory() as folder:
        outcome = asyncio.run(torment(Path(folder), KILLS, SEED))
    writes = ", ".join(f"{count:,} {verb}" for verb, count in sorted(outcome.acknowledged.items()))
    rows = (
        ("kills, of those while it started", f"{outcome.kills}, {outcome.while_starting}"),
        ("acknowledged writes", f"{sum(outcome.acknowledged.values()):,} ({writes})"),
        ("of those lost or undone", "0"),
        ("writes without an answer, of those found done", f"{outcome.unanswered:,}, {outcome.kept:,}"),
        ("restart to serving (modules loaded before), median", f"{statistics.median(outcome.starts):.2f} s"),
    )
    note = (
        f"{WRITERS} clients create, replace, patch and delete ConfigMaps over HTTPS while the server process is killed at "
        "random moments; after each restart every object is compared with what was acknowledged. The first write that "
        "is missing would end the run with an error."
    )
    return [Table("kills", "The embedded API server: kill -9", ("", "measured"), rows, note)]
