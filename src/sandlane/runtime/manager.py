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
from functools import partial

import structlog

from sandlane.kube.cache import Cache
from sandlane.kube.client import Client, Random
from sandlane.kube.clock import Clock, within
from sandlane.kube.transport import Request
from sandlane.runtime.controller import Controller
from sandlane.runtime.health import Check, PathAuth, health_app, metrics_app, serve
from sandlane.runtime.leader import LeaderElector, LeaseOptions
from sandlane.runtime.metrics import Metrics
from sandlane.runtime.options import ManagerOptions
from sandlane.runtime.recorder import EventRecorder
from sandlane.runtime.tracing import Tracer, open_telemetry

log = structlog.get_logger(__name__)

Runnable = Callable[[], Awaitable[None]]
SYNC_PATIENCE = 60.0
"""Seconds of waiting for the first lists after which it is said which ones are late."""
LAST_EVENTS = 1.0
"""Seconds for the events that wait when a manager ends: the next leader waits for the Lease."""
NO_ATTEMPT = 600.0
"""Seconds without an attempt of a watch after which its task counts as stuck."""


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
        tracer: Tracer | None = None,
        identity: str = "",
    ) -> None:
        self.client = client
        self.clock = clock
        self.rng = rng
        self.options = options or ManagerOptions()
        self.name = name
        self.namespace = self.options.leader_election_namespace or namespace
        self.identity = identity or f"{socket.gethostname()}_{os.getpid()}_{int(rng.random() * 2**48):012x}"
        self.tracer = tracer or (open_telemetry(name) if self.options.tracing else None)
        self.cache = cache or Cache(client, clock=clock, rng=rng, namespaces=self.options.watch_namespaces)
        self.metrics = Metrics()
        self.recorder = EventRecorder(client, clock, name, self.identity, dropped=self.metrics.events_dropped.add)
        self.addresses: dict[str, tuple[str, int]] = {}
        self.leading = asyncio.Event()
        self.ready = asyncio.Event()
        self._controllers: list[Controller] = []
        self._runnables: list[tuple[Runnable, bool]] = []
        self._ready_checks: list[Check] = []
        self._stop = asyncio.Event()
        self._observe_requests()
        self._gauges()

    def add_controller(self, controller: Controller) -> None:
        """Run a controller once this manager leads."""
        self._controllers.append(controller)

    def add_runnable(self, runnable: Runnable, *, needs_leader: bool = False) -> None:
        """Run something for as long as the manager runs (once it leads, if asked)."""
        self._runnables.append((runnable, needs_leader))

    def add_ready_check(self, check: Check) -> None:
        """Not ready for as long as this gives anything."""
        self._ready_checks.append(check)

    def stop(self) -> None:
        """End in good order."""
        self._stop.set()

    def problems(self) -> list[str]:
        """What of our own is dead or stuck, for `/healthz`. An API server that is away is no problem of ours."""
        found = [problem for controller in self._controllers for problem in controller.stuck()]
        now = self.clock.monotonic()
        for informer in self.cache.informers():
            idle = now - informer.last_attempt
            if idle > NO_ATTEMPT:
                found.append(f"watch of {informer.resource.plural}: no attempt for {idle:.0f} s")
        return found

    def not_ready(self) -> list[str]:
        """What `/readyz` waits for."""
        late = [
            f"no list of {informer.resource.plural} yet"
            for informer in self.cache.informers()
            if not informer.synced.is_set()
        ]
        return late + [problem for check in self._ready_checks for problem in check()]

    @property
    def idle(self) -> bool:
        """Whether no controller has anything queued or in work (delayed keys may wait)."""
        return all(controller.queue.quiet for controller in self._controllers)

    async def run(self, *, handle_signals: bool = False) -> None:
        """Run until stopped. Raises `LeadershipLost`, or what made a task die (in an `ExceptionGroup`).

        `handle_signals`: the process is the manager's: SIGTERM and SIGINT end it, its garbage collector is tuned.
        """
        async with AsyncExitStack() as stack:
            if handle_signals:
                self._handle_signals(stack)
                self.cache.tune_collector = True
            await self._serve(stack)
            elector = self._elector() if self.options.leader_elect else None
            try:
                async with asyncio.TaskGroup() as tasks:
                    main = tasks.create_task(self._main(elector), name="manager")
                    await self._stop.wait()
                    await self._wind_down(main)
            except Exception:
                if elector is not None:
                    await elector.release()  # whatever it was that died: another one need not wait
                raise
            if elector is not None:
                await elector.release()
            log.info("stopped")

    async def _serve(self, stack: AsyncExitStack) -> None:
        if self.options.health_probe_bind_address:
            app = health_app(self.problems, self.not_ready)
            self.addresses["health"] = await serve(stack, app, self.options.health_probe_bind_address)
        if self.options.metrics_bind_address:
            auth = PathAuth(self.client, self.clock, "/metrics") if self.options.metrics_auth else None
            app = metrics_app(self.metrics, auth)
            self.addresses["metrics"] = await serve(stack, app, self.options.metrics_bind_address)

    def _elector(self) -> LeaderElector:
        options = self.options
        lease = LeaseOptions(
            options.leader_election_id,
            self.namespace,
            self.identity,
            options.lease_duration_seconds,
            options.renew_deadline_seconds,
            options.retry_period_seconds,
        )
        elector = LeaderElector(self.client, lease, self.clock, self.rng)
        self.client.guard = elector.guard
        return elector

    async def _main(self, elector: LeaderElector | None) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.cache.run(), name="cache")
            for runnable, needs_leader in self._runnables:
                if not needs_leader:
                    tasks.create_task(_awaited(runnable), name=getattr(runnable, "__qualname__", "runnable"))
            await self._synced()
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

    async def _synced(self) -> None:
        """Wait for the first lists, however long the API server is away; say which ones are late."""
        while True:
            try:
                await self.cache.wait_synced(SYNC_PATIENCE)
            except TimeoutError as error:
                log.warning("still_waiting", error=str(error))
            else:
                return

    async def _elect(self, elector: LeaderElector) -> None:
        await elector.run(self._lead)
        self.metrics.leader.labels(self.options.leader_election_id).set(0)
        raise LeadershipLost("the Lease could not be renewed in time")

    def _lead(self) -> None:
        self.metrics.leader.labels(self.options.leader_election_id).set(1)
        self.leading.set()

    async def _wind_down(self, main: asyncio.Task[None]) -> None:
        """Take no more work, let running reconciles end, then cancel the rest."""
        log.info("stopping")
        for controller in self._controllers:
            controller.queue.close()
        try:
            await within(self.clock, self.options.graceful_shutdown_seconds, self._drained())
        except TimeoutError:
            log.warning("reconciles_cut_short", seconds=self.options.graceful_shutdown_seconds)
        if self.leading.is_set():
            try:
                await within(self.clock, LAST_EVENTS, self.recorder.flush())
            except TimeoutError:
                log.warning("events_not_written", seconds=LAST_EVENTS)
        main.cancel()

    async def _drained(self) -> None:
        for controller in self._controllers:
            await controller.queue.drained()

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

    def _observe_requests(self) -> None:
        """Count the client's requests, for whoever watched them before as well."""
        before = self.client.observe

        def observe(request: Request, status: int, seconds: float) -> None:
            before(request, status, seconds)
            self.metrics.requested(request, status, seconds)

        self.client.observe = observe

    def _gauges(self) -> None:
        def per_controller(name: str, help_text: str, read: Callable[[Controller], float]) -> None:
            label = "name" if name.startswith("workqueue_") else "controller"
            self.metrics.gauge(
                name, help_text, label, lambda: {controller.name: read(controller) for controller in self._controllers}
            )

        def busy(controller: Controller) -> list[float]:
            now = self.clock.monotonic()
            return [now - since for since in controller.queue.active.values()]

        per_controller("work_queue_depth", "Keys waiting.", lambda c: len(c.queue))
        per_controller("workqueue_depth", "Keys waiting.", lambda c: len(c.queue))
        per_controller("workqueue_adds_total", "Keys queued so far.", lambda c: c.queue.adds)
        per_controller("workqueue_retries_total", "Keys queued after a failure.", lambda c: c.queue.retries)
        per_controller("workqueue_unfinished_work_seconds", "Seconds of work under way.", lambda c: sum(busy(c)))
        per_controller(
            "workqueue_longest_running_processor_seconds", "The longest of it.", lambda c: max(busy(c), default=0)
        )
        per_controller("controller_runtime_active_workers", "Keys in work.", lambda c: len(c.queue.active))
        per_controller("controller_runtime_max_concurrent_reconciles", "Workers.", lambda c: c.workers)
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
        for count in ("lists", "watches", "silent", "undecodable"):
            name = f"cache_{count}_total"
            self.metrics.gauge(name, f"Of the cache: {count}, so far.", "resource", partial(self._cache_count, count))

    def _cache_count(self, count: str) -> dict[str, float]:
        return {informer.resource.plural: informer.counts[count] for informer in self.cache.informers()}


async def _awaited(runnable: Runnable) -> None:
    await runnable()
