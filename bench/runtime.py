"""The cache against bare loops on lightkube and kubernetes-asyncio: the same work, in the same run."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.report import Table

ROOT = Path(__file__).resolve().parent.parent
PODS, EVENTS = 10_000, 50_000
FEW_EVENTS = 5_000
SECONDS = 600


def case(name: str, *arguments: object) -> dict[str, float]:
    """Run a case in a process of its own; its figures."""
    command = [sys.executable, "-m", "bench.runtime_cases", name, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr[-2000:]}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


@contextmanager
def stand_in(module: str, *arguments: int) -> Iterator[int]:
    """A stand-in API server; its port."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        try:
            yield int(server.stdout.readline())
        finally:
            server.kill()


def installed(module: str) -> bool:
    """Whether what we compare with is there."""
    return importlib.util.find_spec(module) is not None


def syncs() -> Table:
    """The initial list and the watch."""
    rows = []
    plans = [
        ("sandlane, slim records", "sync_sandlane", EVENTS, ("slim",)),
        ("sandlane, whole objects", "sync_sandlane", EVENTS, ("whole",)),
    ]
    if installed("lightkube"):
        plans.append(("lightkube", "sync_lightkube", EVENTS, ()))
    if installed("kubernetes_asyncio"):
        plans.append(("kubernetes-asyncio", "sync_kubernetes_asyncio", FEW_EVENTS, ()))
    for title, name, events, more in plans:
        with stand_in("bench.kube_server", PODS, events) as port:
            f = case(name, port, PODS, events, *more)
        rows.append(
            (title, f"{f['list_us']:.0f}", f"{f['list_wall']:.2f}", f"{f['kept_kb']:.1f}", f"{f['event_us']:.0f}")
        )
    return Table(
        "runtime",
        "Controller runtime: the cache",
        ("", "list: µs CPU per Pod", "list: s", "kept: KB per Pod", "watch: µs CPU per event"),
        tuple(rows),
        f"{PODS:,} Pods of 11 KB over HTTP, then {EVENTS:,} events ({FEW_EVENTS:,} for kubernetes-asyncio); the "
        "latest of each kept. Limits: 120 µs, 15 KB (read-only kinds), 60 µs.",
    )


def run() -> list[Table]:
    """One table."""
    return [syncs()]
