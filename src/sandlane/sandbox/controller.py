"""The Sandbox controller: who wakes it, and what it does. Its tasks are the runtime's workers."""

from __future__ import annotations

from datetime import datetime

import structlog

from sandlane.api import reasons
from sandlane.api.limits import Settings
from sandlane.api.ttl import Expiry
from sandlane.api.types import FINALIZER, SandboxStatus
from sandlane.kube.apply import Applier
from sandlane.kube.clock import timestamp
from sandlane.kube.errors import NotFound
from sandlane.kube.resource import (
    DEPLOYMENTS,
    LOCAL_WORKLOADS,
    NAMESPACES,
    NETWORK_POLICIES,
    PODS,
    ROUTE_GROUPS,
    SANDBOXES,
    SERVICES,
    Key,
)
from sandlane.routing.patience import Patience
from sandlane.runtime.controller import Controller
from sandlane.runtime.finalizers import add_finalizer, remove_finalizer
from sandlane.runtime.lifetime import Lifetime
from sandlane.runtime.manager import Manager
from sandlane.runtime.result import Request, Result
from sandlane.runtime.status import write_status
from sandlane.sandbox import wake
from sandlane.sandbox.events import Announcer
from sandlane.sandbox.lastlines import LastLines
from sandlane.sandbox.plan import Plan, PlannedFork, make_plan
from sandlane.sandbox.pods import patience, unsettled
from sandlane.sandbox.status import Observation, expires, observe, terminating
from sandlane.sandbox.writes import Writes
from sandlane.world.records import Deployment, LocalWorkload, Namespace, Pod, RouteGroup, Sandbox, Service
from sandlane.world.reports import Routes
from sandlane.world.surroundings import NetworkPolicy
from sandlane.world.world import SELECTORS, World

log = structlog.get_logger(__name__)

RETRY_REFUSED = 30.0
"""Seconds until a refused write is tried again: what is in its way may go without a change that we watch."""
RETRY_DELETION = 10.0
AT_ONCE = 4
"""So many times `--concurrent-reconciles`: a sandbox mostly waits for one write after the other to be committed."""
PHASES = ("Pending", "Progressing", "Ready", "Failed", "Terminating")


class SandboxController:
    """Drives sandboxes towards their specs."""

    def __init__(self, manager: Manager, world: World, routes: Routes, settings: Settings | None = None) -> None:
        self.world = world
        self.settings = settings or Settings()
        self._clock = manager.clock
        self._client = manager.client
        self._cache = manager.cache
        self._routes = routes
        self._writes = Writes(Applier(manager.client, manager.cache), world)
        self._announcer = Announcer(manager.recorder)
        self._lifetime = Lifetime(SANDBOXES, manager.client, manager.clock, manager.recorder)
        self._patience = Patience(manager.clock)
        self._last_lines = LastLines(manager.client)

    def setup_with_manager(self, manager: Manager) -> Controller:
        """Say who wakes it."""
        world = self.world
        controller = (
            Controller.managed_by(manager)
            .for_(SANDBOXES, Sandbox)
            .owns(DEPLOYMENTS, Deployment)
            .owns(SERVICES, Service)
            .owns(LOCAL_WORKLOADS, LocalWorkload)
            .watches(SANDBOXES, Sandbox, to_requests=lambda s: wake.same_key(world, s), when=wake.came_or_went)
            .watches(DEPLOYMENTS, Deployment, to_requests=lambda d: wake.of_baseline(world, d), when=wake.spec_changed)
            .watches(SERVICES, Service, to_requests=lambda s: wake.of_service(world, s), when=wake.service_changed)
            .watches(PODS, Pod, to_requests=wake.of_pod, label_selector=SELECTORS["pods"])
            .watches(NETWORK_POLICIES, NetworkPolicy, to_requests=lambda p: wake.of_policy(world, p), when=wake.later)
            .watches(NAMESPACES, Namespace, to_requests=lambda n: wake.of_consent(world, n), when=wake.later)
            .watches(ROUTE_GROUPS, RouteGroup, to_requests=wake.of_route_group, when=wake.matches_changed)
            .with_workers(AT_ONCE * manager.options.concurrent_reconciles)
            .complete(self)
        )
        self._routes.subscribe(lambda kind, key: controller.enqueue(key) if kind == "Sandbox" else None)
        manager.metrics.census(
            "sandboxes", "Sandboxes by phase.", "phase", PHASES, lambda: [s.status.phase for s in world.sandboxes]
        )
        return controller

    async def reconcile(self, request: Request) -> Result:
        """Drive one sandbox towards its spec. Level-triggered: reads everything, assumes nothing."""
        sandbox = self.world.sandboxes.get(request)
        if sandbox is None:
            self._patience.forget(request)
            return Result.done()
        if sandbox.metadata.deleting:
            return await self._finalize(sandbox)
        if await self._lifetime.end(sandbox.metadata, self._ends(sandbox)):
            return Result.done()
        sandbox = await self._claim(sandbox)
        plan = make_plan(self.world, sandbox, self.settings.limits)
        failures = await self._writes.apply(sandbox, plan, self._announcer)
        report = self._routes.sandbox(request)
        calm, look_again = self._patience.calm(sandbox, report)
        pods = self._pods(sandbox, plan)
        seen = Observation(calm, failures, await self._last_lines.read(pods))
        status = observe(self.world, sandbox, plan, seen, now=self._clock.now(), settings=self.settings)
        sandbox = await self._report(sandbox, status)
        await self._writes.remove_superfluous(sandbox, plan, report, self._announcer)
        refused = bool(failures) or plan.exceeded is not None
        now = self._clock.now()
        waits = [patience(pods, now), *(self._settling(sandbox, fork, now) for fork in plan.forks)]
        return self._next(sandbox, look_again, RETRY_REFUSED if refused else None, *waits)

    async def _claim(self, sandbox: Sandbox) -> Sandbox:
        """The sandbox with our finalizer on it, before anything is made for it."""
        answer = await add_finalizer(self._client, SANDBOXES, sandbox.metadata, FINALIZER)
        if answer is None:
            return sandbox
        self._cache.observe(SANDBOXES, answer)
        return self.world.sandboxes.get(sandbox.metadata.key) or sandbox

    async def _report(self, sandbox: Sandbox, status: SandboxStatus) -> Sandbox:
        """Write the status if it changed, and announce what changed in it."""
        if status == sandbox.status:
            return sandbox
        answer = await write_status(self._client, SANDBOXES, sandbox.metadata, status)
        self._cache.observe(SANDBOXES, answer)
        self._announcer.transitions(sandbox, status)
        return self.world.sandboxes.get(sandbox.metadata.key) or sandbox

    def _settling(self, sandbox: Sandbox, fork: PlannedFork, now: datetime) -> float | None:
        """Seconds until a fork's Pods count as ready, though they have no probes."""
        live = self.world.deployments.get(Key(sandbox.metadata.namespace, fork.workload))
        return (unsettled(live, self.world.pods_of_fork(live.metadata.key), now) if live is not None else 0.0) or None

    def _pods(self, sandbox: Sandbox, plan: Plan) -> list[Pod]:
        """The Pods of all its forks."""
        workloads = [Key(sandbox.metadata.namespace, fork.workload) for fork in plan.forks]
        return [pod for key in workloads for pod in self.world.pods_of_fork(key)]

    # -- time -------------------------------------------------------------------------------------------

    def _ends(self, sandbox: Sandbox) -> Expiry | None:
        return expires(sandbox, self.settings, self._updated(sandbox))

    def _updated(self, sandbox: Sandbox) -> str:
        """When the spec last changed; a change that is not yet in the status is from now."""
        status = sandbox.status
        if not status.observed_generation:
            return sandbox.metadata.creation_timestamp
        unseen = status.observed_generation != sandbox.metadata.generation
        return timestamp(self._clock.now()) if unseen else status.last_update_time

    def _next(self, sandbox: Sandbox, *others: float | None) -> Result:
        """When to look again without being woken."""
        due = self._lifetime.wait(sandbox.metadata, self._ends(sandbox))
        waits = [seconds for seconds in (due, *others) if seconds is not None]
        return Result.requeue_after(min(waits)) if waits else Result.done()

    # -- the end ----------------------------------------------------------------------------------------

    async def _finalize(self, sandbox: Sandbox) -> Result:
        """Routes out, drained, objects gone, finalizer off: each step waits for the one before."""
        if FINALIZER not in sandbox.metadata.finalizers:
            return Result.done()
        report = self._routes.sandbox(sandbox.metadata.key)
        if report is not None and report.served:
            text = report.message or "routers still serve its routes"
            await self._report(sandbox, terminating(sandbox, reasons.ROUTES_DRAINING, text, self._clock.now()))
            return Result.requeue_after(RETRY_DELETION)
        left = await self._writes.remove_all(sandbox)
        if left:
            text = f"waiting for {', '.join(left)} to be gone"
            await self._report(sandbox, terminating(sandbox, reasons.TERMINATING, text, self._clock.now()))
            return Result.requeue_after(RETRY_DELETION)
        try:
            answer = await remove_finalizer(self._client, SANDBOXES, sandbox.metadata, FINALIZER)
        except NotFound:
            return Result.done()
        self._announcer.removed(sandbox)
        if answer is not None:
            self._cache.observe(SANDBOXES, answer)
            self._cache.observe_deleted(SANDBOXES, sandbox.metadata.key)
        return Result.done()
