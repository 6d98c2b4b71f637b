"""No request is lost or misrouted while routes change and routers roll: the benchmark of the same name, short, counted by changes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from bench.route_changes import cluster, play
from bench.route_load import KINDS

CHANGES = 12


@pytest.mark.slow
def test_no_request_is_lost_while_routes_change(tmp_path: Path) -> None:
    """HTTP/1.1, HTTP/2 and gRPC clients are answered by whom the routes name, whatever happens meanwhile."""
    scene, outcome = cluster(
        tmp_path, lambda data: asyncio.run(play(data, 0, 40, CHANGES, ("server-side apply", "roll")))
    )
    assert not outcome.wrong
    assert scene.changes >= CHANGES
    assert scene.disturbances >= 2
    assert all(outcome.sent[kind] for kind in KINDS)
