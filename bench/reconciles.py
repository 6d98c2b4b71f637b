"""Reconciles against kopf, start-up time and idle memory of a manager."""

from __future__ import annotations

from bench.report import Table
from bench.runtime import PODS, case, installed, stand_in

RECONCILES = 100_000
BOOKS = 1000


def full(name: str) -> dict[str, float]:
    """Full reconciles on a fresh store."""
    with stand_in("bench.kube_store", BOOKS) as port:
        return case(name, port, BOOKS)


def rates() -> Table:
    """Reconciles, start and memory."""
    rows = [("no-op reconciles, sandlane", f"{case('noop', RECONCILES)['per_second']:,.0f} /s", "20,000 /s")]
    ours = full("full_sandlane")
    rows.append(("full reconciles, sandlane", f"{ours['per_second']:.0f} /s, {ours['cpu_ms']:.2f} ms CPU", ""))
    if installed("kopf"):
        theirs = full("full_kopf")
        rows.append(("full reconciles, kopf", f"{theirs['per_second']:.0f} /s, {theirs['cpu_ms']:.1f} ms CPU", ""))
        rows.append(("ratio", f"{ours['per_second'] / theirs['per_second']:.1f}", "5"))
        rows.append(("ratio of CPU", f"{theirs['cpu_ms'] / ours['cpu_ms']:.1f}", ""))
    with stand_in("bench.kube_server", PODS, 0) as port:
        rows.append(
            (f"start to first reconcile, {PODS:,} objects", f"{case('start', port, PODS)['seconds']:.2f} s", "3 s")
        )
    with stand_in("bench.kube_server", 0, 0) as port:
        rows.append(("idle manager", f"{case('start', port, 0)['idle_mib']:.0f} MiB", "60 MiB"))
    return Table(
        "reconciles",
        "Controller runtime: reconciles",
        ("", "measured", "wanted"),
        tuple(rows),
        f"Full: {BOOKS} Guestbooks, each gets a Deployment by server-side apply, an Event and its status, on a stand-in API "
        "server that is cheaper than either controller. Both ratios: kopf's time over ours.",
    )


def run() -> list[Table]:
    """One table."""
    return [rates()]
