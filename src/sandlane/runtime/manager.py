"""The manager: shared client, cache, recorder and metrics; starts controllers when it leads, and ends in good order.

`Manager.run` owns all tasks. It returns when it is asked to stop (`stop`, or SIGTERM/SIGINT when `handle_signals`),
and raises when a task dies or leadership is lost: a manager that cannot write has to be started afresh.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import structlog

from sandlane.kube.cache import SILENCE, Cache
from sandlane.kube.client import Client, Random
from sandlane.kube.clock import Clock
from sandlane.runtime.controller import Controller
from sandlane.runtime.health import health_app, metrics_app, serve
from sandlane.runtime.leader import LeaderElector, LeaseOptions
from sandlane.runtime.metrics import Metrics
from sandlane.runtime.options import ManagerOptions
from sandlane.runtime.recorder import EventRecorder

log = structlog.get_logger(__name__)

Runnable = Callable[[], Awaitable[None]]
SYNC_TIMEOUT = 120.0


class LeadershipLost(RuntimeError):
    """The Lease could not be renewed in time."""


class Manager:
    """Everything that controllers share. Build controllers on it, then `run` it once."""

    def __init__(
        self,
        client: Client,
        *,
        clock: Clock,
        rng: Random,
        options: ManagerOptions | None = None,
        name: str = "sandlane",
        namespace: str = "default",
        cache: Cache | None = None,
    ) -> None:
        self.client = client
        self.clock = clock
        self.rng = rng
        self.options = options or ManagerOptions()
        self.name = name
        self.namespace = self.options.leader_election_namespace or namespace
        self.identity = f"{socket.gethostname()}_{os.getpid()}"
        self.cache = cache or Cache(client, clock=clock, rng=rng, namespaces=self.options.watch_namespaces)
        self.recorder = EventRecorder(client, clock, name, self.identity)
        self.metrics = Metrics()
        self.leading = asyncio.Event()
        self.ready = asyncio.Event()
        self._controllers: list[Controller] = []
        self._runnables: list[tuple[Runnable, bool]] = []
        self._stop = asyncio.Event()
        self._gauges()

    def add_controller(self, controller: Controller) -> None:
        """Run a controller once this manager leads."""
        self._controllers.append(controller)

    def add_runnable(self, runnable: Runnable, *, needs_leader: bool = False) -> None:
        """Run something for as long as the manager runs (once it leads, if asked)."""
        self._runnables.append((runnable, needs_leader))

    def stop(self) -> None:
        """End in good order."""
        self._stop.set()

    def problems(self) -> list[str]:
        """What of our own is dead or stuck, for `/healthz`. An API server that is away is no problem of ours."""
        found = [problem for controller in self._controllers for problem in controller.stuck()]
        now = self.clock.monotonic()
        for informer in self.cache.informers():
            silent = now - informer.last_heard
            if informer.synced.is_set() and silent > 10 * SILENCE:
                found.append(f"watch of {informer.resource.plural}: nothing for {silent:.0f} s")
        return found

    def not_ready(self) -> list[str]:
        """What `/readyz` waits for."""
        return [
            f"no list of {informer.resource.plural} yet"
            for informer in self.cache.informers()
            if not informer.synced.is_set()
        ]

    async def run(self, *, handle_signals: bool = False) -> None:
        """Run until stopped. Raises `LeadershipLost`, or what made a task die."""
        async with AsyncExitStack() as stack:
            if handle_signals:
                self._handle_signals(stack)
            if self.options.health_probe_bind_address:
                app = health_app(self.problems, self.not_ready)
                await serve(stack, app, self.options.health_probe_bind_address)
            if self.options.metrics_bind_address:
                await serve(stack, metrics_app(self.metrics), self.options.metrics_bind_address)
            elector = self._elector() if self.options.leader_elect else None
            async with asyncio.TaskGroup() as tasks:
                main = tasks.create_task(self._main(elector), name="manager")
                await self._stop.wait()
                await self._wind_down(main)
            if elector is not None:
                await elector.release()
            log.info("stopped")

    def _elector(self) -> LeaderElector:
        lease = LeaseOptions(self.options.leader_election_id, self.namespace, self.identity)
        elector = LeaderElector(self.client, lease, self.clock, self.rng)
        self.client.guard = elector.guard
        return elector

    async def _main(self, elector: LeaderElector | None) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.cache.run(), name="cache")
            for runnable, needs_leader in self._runnables:
                if not needs_leader:
                    tasks.create_task(_awaited(runnable), name=getattr(runnable, "__qualname__", "runnable"))
            await self.cache.wait_synced(SYNC_TIMEOUT)
            self.ready.set()
            log.info("ready", kinds=len(self.cache.informers()))
            if elector is not None:
                tasks.create_task(self._elect(elector), name="leader election")
            else:
                self._lead()
            await self.leading.wait()
            tasks.create_task(self.recorder.run(), name="events")
            for runnable, needs_leader in self._runnables:
                if needs_leader:
                    tasks.create_task(_awaited(runnable), name=getattr(runnable, "__qualname__", "runnable"))
            for controller in self._controllers:
                tasks.create_task(controller.run(), name=controller.name)

    async def _elect(self, elector: LeaderElector) -> None:
        await elector.run(self._lead)
        raise LeadershipLost("the Lease could not be renewed in time")

    def _lead(self) -> None:
        self.metrics.leader.labels(self.options.leader_election_id).set(1)
        self.leading.set()

    async def _wind_down(self, main: asyncio.Task[None]) -> None:
        """Take no more work, let running reconciles end, then cancel the rest."""
        log.info("stopping")
        for controller in self._controllers:
            controller.queue.close()
        deadline = self.clock.monotonic() + self.options.graceful_shutdown_seconds
        while any(controller.started for controller in self._controllers) and self.clock.monotonic() < deadline:
            await self.clock.sleep(0.02)
        if self.leading.is_set():
            await self.recorder.flush()
        main.cancel()

    def _handle_signals(self, stack: AsyncExitStack) -> None:
        loop = asyncio.get_running_loop()

        def on_signal() -> None:
            if self._stop.is_set():
                log.warning("second_signal")
                os._exit(1)
            self.stop()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal)
            stack.callback(loop.remove_signal_handler, number)

    def _gauges(self) -> None:
        def depth() -> dict[str, float]:
            return {controller.name: len(controller.queue) for controller in self._controllers}

        for name in ("work_queue_depth", "workqueue_depth"):
            label = "controller" if name == "work_queue_depth" else "name"
            self.metrics.gauge(name, "Keys waiting.", label, depth)
        self.metrics.gauge(
            "controller_runtime_active_workers",
            "Keys in work.",
            "controller",
            lambda: {controller.name: controller.queue.active for controller in self._controllers},
        )
        self.metrics.gauge(
            "cache_objects",
            "Objects in the cache.",
            "resource",
            lambda: {informer.resource.plural: len(informer.store) for informer in self.cache.informers()},
        )
        self.metrics.gauge(
            "watch_age_seconds",
            "Seconds since a watch was last heard from.",
            "resource",
            lambda: {
                informer.resource.plural: self.clock.monotonic() - informer.last_heard
                for informer in self.cache.informers()
            },
        )


async def _awaited(runnable: Runnable) -> None:
    await runnable()
