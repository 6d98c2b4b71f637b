"""A manager under constant change for a quarter of an hour: its memory must not grow. `SOAK_SECONDS` shortens it."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from bench.report import Table
from sandlane.kube.client import Client
from sandlane.kube.clock import SystemClock
from sandlane.kube.config import load_config
from sandlane.kube.errors import NotFound
from sandlane.kube.http import HttpTransport
from sandlane.kube.resource import CUSTOM_RESOURCE_DEFINITIONS, Resource
from sandlane.runtime.recorder import SERIES
from support.conformance.cluster import running

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "guestbook-controller"
BOOKS = Resource("example.com", "v1", "guestbooks", "Guestbook")
SECONDS = float(os.environ.get("SOAK_SECONDS", "900"))
OBJECTS = 200
PER_SECOND = 20
PROGRAM = """
import main
from sandlane.runtime.options import ManagerOptions
main.asyncio.run(main.main(ManagerOptions()))
"""


def resident(pid: int) -> float:
    """MiB in use by a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 2**20


async def change(client: Client, until: float, sample: list[tuple[float, float]], pid: int) -> int:
    """Make, change and delete Guestbooks at a steady rate; a sample of the manager's memory each second."""
    rng, made, started = random.Random(1), set[str](), time.monotonic()
    changes = 0
    while (now := time.monotonic()) < until:
        name = f"book-{rng.randrange(OBJECTS)}"
        if name not in made:
            body = {
                "apiVersion": "example.com/v1",
                "kind": "Guestbook",
                "metadata": {"name": name, "namespace": "default"},
            }
            await client.create(BOOKS, body)
            made.add(name)
        elif rng.random() < 0.2:
            await client.delete(BOOKS, name, "default")
            made.discard(name)
        else:
            await client.patch(BOOKS, name, {"spec": {"size": rng.randrange(5)}}, namespace="default")
        changes += 1
        if not sample or now - started - sample[-1][0] >= 1:
            sample.append((now - started, resident(pid)))
        await asyncio.sleep(max(0.0, started + changes / PER_SECOND - time.monotonic()))
    return changes


async def soak(kubeconfig: Path) -> tuple[int, list[tuple[float, float]]]:
    """How many changes, and the samples."""
    client = Client(HttpTransport(load_config(kubeconfig)), clock=SystemClock(), rng=random.Random(1))
    await client.apply(CUSTOM_RESOURCE_DEFINITIONS, yaml.safe_load((EXAMPLE / "crd.yaml").read_text()))
    while True:
        try:
            await client.list(BOOKS)
            break
        except NotFound:
            await asyncio.sleep(0.05)
    environment = os.environ | {"KUBECONFIG": str(kubeconfig), "PYTHONPATH": str(EXAMPLE)}
    manager = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, env=environment, stderr=asyncio.subprocess.DEVNULL
    )
    samples: list[tuple[float, float]] = []
    try:
        changes = await change(client, time.monotonic() + SECONDS, samples, manager.pid)
    finally:
        manager.terminate()
        await manager.wait()
        await client.close()
    return changes, samples


def run() -> list[Table]:
    """One table."""
    found: list[Table] = []
    with (
        suppress(subprocess.TimeoutExpired),  # of the servers, when they end
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder) / "data") as cluster,
    ):
        found.append(table(*asyncio.run(soak(cluster.kubeconfig))))
    return found


def table(changes: int, samples: list[tuple[float, float]]) -> Table:
    """Least and most memory in each fifth of the time."""
    parts = [[mib for at, mib in samples if n * SECONDS / 5 <= at < (n + 1) * SECONDS / 5] for n in range(5)]
    rows = [(f"{n + 1}. fifth", f"{min(part):.1f} MiB", f"{max(part):.1f} MiB") for n, part in enumerate(parts) if part]
    note = (
        f"{changes:,} changes of {OBJECTS} Guestbooks in {SECONDS:.0f} s, with the built-in controllers running. Each new object "
        f"takes a place among the {SERIES:,} that the event recorder remembers; when these are full they take about 2 MiB."
    )
    return Table("soak", "A manager's memory under constant change", ("", "least", "most"), tuple(rows), note)
