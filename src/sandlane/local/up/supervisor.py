"""Starts the processes of a local cluster, keeps them alive and ends them together.

`supervise` owns one task per process. A signal ends them one after the other: first who writes, the API server last.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import structlog

import sandlane
from sandlane.kube.clock import Clock, timestamp
from sandlane.local.settings import DataDir, DataDirError, Settings, write_whole
from sandlane.local.up.claim import Lock, claim_block
from sandlane.local.up.commands import commands
from sandlane.local.up.guard import SIGNALS
from sandlane.local.up.process import Command, Supervised, children, rotate
from sandlane.local.up.state import ClusterState
from sandlane.routing.envoy.binary import EnvoyMissing

log = structlog.get_logger(__name__)

GIVE_UP_AFTER = 3
"""Deaths of one process, before the cluster was ever ready, after which the start has failed."""
HOUSEKEEPING_SECONDS = 20.0


class Cluster:
    """The running processes and what is said of them."""

    def __init__(
        self,
        data: DataDir,
        settings: Settings,
        to_run: Sequence[Command],
        clock: Clock,
        report: Callable[[ClusterState], None] = lambda state: None,
    ) -> None:
        self._data = data
        self._clock = clock
        self._report = report
        self._processes = [Supervised(command, data.log(command.name), clock, self._changed) for command in to_run]
        self._tasks: list[asyncio.Task[None]] = []
        self._over = asyncio.Event()
        self._ever_ready = False
        self.state = ClusterState(
            pid=os.getpid(),
            version=sandlane.__version__,
            server=settings.server,
            data_dir=str(data.root),
            kubeconfig=str(data.kubeconfig),
            block=f"127.{settings.block}.0.0/16",
            started_at=timestamp(clock.now()),
            processes=[process.state for process in self._processes],
        )

    def _changed(self) -> None:
        self.state.ready = all(process.state.fine for process in self._processes)
        self._ever_ready |= self.state.ready
        for process in self._processes:
            if not self._ever_ready and process.deaths_before_ready >= GIVE_UP_AFTER:
                self.state.failed = f"{process.command.name} {process.state.message} {GIVE_UP_AFTER} times"
                self._over.set()
        self.say()

    def say(self) -> None:
        """Write the state down and tell whoever started us."""
        try:
            write_whole(self._data.status, msgspec.json.encode(self.state))
        except OSError as error:  # a full disk must not end the cluster
            log.warning("status_not_written", error=str(error))
        self._report(self.state)

    async def run(self) -> None:
        """Run until a signal comes or the start has failed."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._over.set)
        try:
            await self._run()
        finally:
            for number in SIGNALS:
                loop.remove_signal_handler(number)

    async def _run(self) -> None:
        self.say()
        async with asyncio.TaskGroup() as tasks:
            self._tasks = [tasks.create_task(p.run(), name=p.command.name) for p in self._processes]
            keeping = tasks.create_task(self._keep_house())
            await self._over.wait()
            keeping.cancel()
            await self._stop()

    async def _stop(self) -> None:
        for task in reversed(self._tasks):
            task.cancel()
            await asyncio.wait([task])
        for process in self._processes:
            process.state.state = "stopped"
        self.state.ready = False
        self.say()

    async def _keep_house(self) -> None:
        while True:
            await self._clock.sleep(HOUSEKEEPING_SECONDS)
            for process in self._processes:
                rotate(self._data.log(process.command.name))
            rotate(self._data.log("supervisor"))


def supervise(
    data: DataDir,
    lock: Lock,
    clock: Clock,
    *,
    images: Path | None = None,
    port: int | None = None,
    report: Callable[[ClusterState], None] = lambda state: None,
) -> ClusterState:
    """Run a cluster until a signal ends it; its last state. Raises `DataDirError`."""
    children.adopt()
    lock.sign()
    with suppress(FileNotFoundError):
        data.status.unlink()
    settings, claimed = claim_block(data, port)
    try:
        cluster = _make(data, settings, images, clock, report)
        asyncio.run(cluster.run())
        return cluster.state
    finally:
        claimed.close()


def _make(
    data: DataDir, settings: Settings, images: Path | None, clock: Clock, report: Callable[[ClusterState], None]
) -> Cluster:
    try:
        return Cluster(data, settings, commands(data, settings, images, clock), clock, report)
    except EnvoyMissing as error:
        raise DataDirError(str(error)) from error
