"""Two managers as processes of their own, ended and stopped at random; the record of their writes tells who led when."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import structlog

from sandlane.kube.client import Client
from sandlane.kube.clock import SystemClock
from sandlane.kube.config import load_config
from sandlane.kube.errors import KubeError
from sandlane.kube.http import HttpTransport
from sandlane.kube.resource import CONFIG_MAPS, LEASES
from sandlane.runtime.manager import Manager
from sandlane.runtime.options import ManagerOptions

NAMESPACE, LEASE, RECORD = "default", "contended", "record"
OPTIONS = ManagerOptions(
    leader_elect=True,
    leader_election_id=LEASE,
    leader_election_namespace=NAMESPACE,
    lease_duration_seconds=2.0,
    renew_deadline_seconds=1.3,
    retry_period_seconds=0.25,
)
SECONDS = 30.0


class Outcome(msgspec.Struct):
    """What happened: turns of leadership, stale writes that were accepted (per turn), seconds of each failover."""

    writes: int
    turns: int
    late: list[int]
    failovers: dict[str, list[float]]


async def candidate(kubeconfig: Path, identity: str) -> None:
    """One process: writes its name as fast as it can for as long as it leads."""
    client = Client(HttpTransport(load_config(kubeconfig)), clock=SystemClock(), rng=random.Random(identity))
    manager = Manager(client, clock=SystemClock(), rng=random.Random(identity), options=OPTIONS, identity=identity)

    async def write() -> None:
        for n in range(10**9):
            try:
                body = {"data": {"by": identity, "n": str(n)}}
                await client.patch(CONFIG_MAPS, RECORD, body, namespace=NAMESPACE)
            except KubeError:
                pass  # the next one, if we still lead
            await asyncio.sleep(0.01)

    async def tell() -> None:
        await manager.ready.wait()
        print("ready", flush=True)

    manager.add_runnable(write, needs_leader=True)
    manager.add_runnable(tell)
    try:
        await manager.run(handle_signals=True)
    finally:
        await client.close()


class Contest:
    """Runs candidates and watches what they write."""

    def __init__(self, kubeconfig: Path, seed: int) -> None:
        self._kubeconfig = kubeconfig
        self._rng = random.Random(seed)
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._born = 0
        self._client = Client(HttpTransport(load_config(kubeconfig)), clock=SystemClock(), rng=self._rng)
        self.writes: list[str] = []
        self._news = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Two candidates and the record."""
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": RECORD, "namespace": NAMESPACE}}
        version = (await self._client.create(CONFIG_MAPS, body))["metadata"]["resourceVersion"]
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(self._watch(version))
            for _ in range(2):
                await self._start()
            await self._until_written_by_another("")
            try:
                yield
            finally:
                for process in self._running.values():
                    process.kill()
                    await process.wait()
                watching.cancel()
        await self._client.close()

    async def disturb(self, how: str) -> float:
        """End or stop the leader; the seconds until another one writes."""
        lease = await self._client.get(LEASES, LEASE, NAMESPACE)
        leader = lease["spec"]["holderIdentity"]
        process, started = self._running[leader], time.monotonic()
        if how == "stop":
            process.send_signal(signal.SIGSTOP)
            await self._until_written_by_another(leader)
            failover = time.monotonic() - started
            process.send_signal(signal.SIGCONT)
        else:
            process.send_signal(signal.SIGKILL if how == "kill" else signal.SIGTERM)
            await self._until_written_by_another(leader)
            failover = time.monotonic() - started
        async with asyncio.timeout(SECONDS):
            await process.wait()  # a stopped one ends by itself: it has lost the Lease
        del self._running[leader]
        await self._start()
        await asyncio.sleep(self._rng.random())
        return failover

    def outcome(self, failovers: dict[str, list[float]]) -> Outcome:
        """Turns of leadership, and writes of a former leader in the next one's turn."""
        late = late_writes(self.writes)
        return Outcome(len(self.writes), len(late), late, failovers)

    async def _start(self) -> None:
        """A candidate, ready to lead."""
        self._born += 1
        name = f"candidate-{self._born}"
        process = self._running[name] = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "support.leaders",
            str(self._kubeconfig),
            name,
            cwd=Path(__file__).parent.parent,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert process.stdout is not None
        async with asyncio.timeout(SECONDS):
            if await process.stdout.readline() != b"ready\n":  # from now on a warm standby
                raise RuntimeError(f"{name} ended with {await process.wait()} before it was ready")

    async def _watch(self, version: str) -> None:
        async with self._client.watch(CONFIG_MAPS, NAMESPACE, resource_version=version) as lines:
            async for line in lines:
                event: Any = msgspec.json.decode(line)
                if event["type"] == "MODIFIED" and event["object"]["metadata"]["name"] == RECORD:
                    self.writes.append(event["object"]["data"]["by"])
                    self._news.set()

    async def _until_written_by_another(self, leader: str) -> None:
        async with asyncio.timeout(SECONDS):
            while not self.writes or self.writes[-1] == leader:
                self._news.clear()
                await self._news.wait()


def late_writes(writers: Iterable[str]) -> list[int]:
    """Per turn of leadership, the writes that were accepted from a former leader; nobody leads twice."""
    turns: list[str] = []
    late: list[int] = []
    for by in writers:
        if not turns or by != turns[-1]:
            if by in turns:
                late[-1] += 1  # written by one whose turn is over
                continue
            turns.append(by)
            late.append(0)
    return late


async def contest(kubeconfig: Path, rounds: int, seed: int = 0) -> Outcome:
    """So many ends and stops of the leader."""
    rng, failovers = random.Random(seed), dict[str, list[float]]()
    contest = Contest(kubeconfig, seed)
    async with contest.running():
        for n in range(rounds):
            how = ("kill", "stop", "term")[n % 3] if n < 3 else rng.choice(("kill", "stop", "term"))
            failovers.setdefault(how, []).append(await contest.disturb(how))
    return contest.outcome(failovers)


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # stdout says when it is ready
    asyncio.run(candidate(Path(sys.argv[1]), sys.argv[2]))
