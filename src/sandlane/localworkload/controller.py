"""The LocalWorkload controller: who wakes it, and what it does."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Protocol

from sandlane.api import reasons
from sandlane.api.types import FINALIZER, ConnectionStatus, LocalWorkloadStatus
from sandlane.kube.clock import parse_timestamp
from sandlane.kube.errors import NotFound
from sandlane.kube.resource import DEPLOYMENTS, LOCAL_WORKLOADS, SANDBOXES, Key
from sandlane.localworkload.plan import Problem, check
from sandlane.localworkload.status import HEARTBEAT, Observed, observe
from sandlane.runtime.conditions import is_true
from sandlane.runtime.controller import Controller
from sandlane.runtime.finalizers import add_finalizer, remove_finalizer
from sandlane.runtime.manager import Manager
from sandlane.runtime.recorder import WARNING
from sandlane.runtime.result import Request, Result
from sandlane.runtime.status import write_status
from sandlane.world.records import Deployment, LocalWorkload, Sandbox
from sandlane.world.reports import RouteReport
from sandlane.world.world import World

PHASES = ("Pending", "Connected", "Disconnected", "Failed", "Terminating")
ROUTES_OUT = timedelta(seconds=2)
"""How long a deletion waits for routers to confirm that no request goes to the laptop any more; the tunnel servers refuse then."""
ROUTES_FIRST = 0.5
"""Seconds that a lost connection's condition waits at most for the routers to serve what is to be done without it."""
QUIETLY = timedelta(seconds=5)
"""How long a deletion may take before its condition says what it waits for."""


class Routes(Protocol):
    """Where route reports come from."""

    def sandbox(self, key: Key) -> RouteReport | None:
        """What the routers say about a sandbox."""

    def subscribe(self, callback: Callable[[str, Key], None]) -> None:
        """Call back with kind and key whenever a report changes."""


class Connections(Protocol):
    """What the data plane says of tunnels, by the uid of the LocalWorkload."""

    def observed(self, uid: str) -> Observed:
        """The holder's tunnels."""

    def close(self, uid: str) -> bool:
        """Let nobody in any more; whether all servers have confirmed it."""

    def subscribe(self, listener: Callable[[str], None]) -> None:
        """Call `listener` with a uid whenever its tunnels change."""


class LocalWorkloadController:
    """Drives LocalWorkloads: checks them, and reports the connection and the routes."""

    def __init__(self, manager: Manager, world: World, routes: Routes, connections: Connections) -> None:
        self._world = world
        self._routes = routes
        self._connections = connections
        self._client = manager.client
        self._cache = manager.cache
        self._clock = manager.clock
        self._recorder = manager.recorder
        self._lost: dict[str, float] = {}
        """Uid -> since when it waits for the routes."""

    def setup_with_manager(self, manager: Manager) -> Controller:
        """Say who wakes it."""
        world = self._world
        controller = (
            Controller.managed_by(manager)
            .for_(LOCAL_WORKLOADS, LocalWorkload)
            .watches(SANDBOXES, Sandbox, to_requests=lambda sandbox: locals_of(world, sandbox))
            .watches(DEPLOYMENTS, Deployment, to_requests=lambda deployment: instead_of(world, deployment))
            .complete(self)
        )

        def connection_changed(uid: str) -> None:
            for local in world.local_workloads:
                if local.metadata.uid == uid:
                    controller.enqueue(local.metadata.key)

        def report_changed(kind: str, key: Key) -> None:
            for local in world.local_workloads.list(key.namespace) if kind == "Sandbox" else ():
                if local.spec.sandbox == key.name:
                    controller.enqueue(local.metadata.key)

        self._connections.subscribe(connection_changed)
        self._routes.subscribe(report_changed)
        manager.metrics.census(
            "tunnels",
            "LocalWorkloads by state.",
            "state",
            PHASES,
            lambda: [w.status.phase for w in world.local_workloads],
        )
        return controller

    async def reconcile(self, request: Request) -> Result:
        """Drive one LocalWorkload. Level-triggered: reads everything, assumes nothing."""
        local = self._world.local_workloads.get(request)
        if local is None:
            return Result.done()
        if local.metadata.deleting:
            return await self._finalize(local)
        answer = await add_finalizer(self._client, LOCAL_WORKLOADS, local.metadata, FINALIZER)
        if answer is not None:
            self._cache.observe(LOCAL_WORKLOADS, answer)
            local = self._world.local_workloads.get(request) or local
        if self._routes_are_behind(local):
            return Result.requeue_after(0.05)
        connected = await self._report(local, check(self._world, local))
        return Result.requeue_after(HEARTBEAT.total_seconds()) if connected else Result.done()

    def _routes_are_behind(self, local: LocalWorkload) -> bool:
        """Whether a connection has just been lost and its routes have still to follow: they go first."""
        uid, since = local.metadata.uid, self._clock.monotonic()
        if is_true(local.status.conditions, "Connected") and not self._connections.observed(uid).servers:
            since = self._lost.setdefault(uid, since)
            report = self._routes.sandbox(Key(local.metadata.namespace, local.spec.sandbox))
            if report is not None and not report.programmed and self._clock.monotonic() - since < ROUTES_FIRST:
                return True
        self._lost.pop(uid, None)
        return False

    async def _report(self, local: LocalWorkload, problem: Problem | None) -> bool:
        """Write the status, if it is another one; whether the laptop is connected."""
        seen = self._connections.observed(local.metadata.uid)
        report = self._routes.sandbox(Key(local.metadata.namespace, local.spec.sandbox))
        status = observe(local, problem, seen, report, self._clock.now())
        if status != local.status:
            written = await write_status(self._client, LOCAL_WORKLOADS, local.metadata, status)
            self._cache.observe(LOCAL_WORKLOADS, written)
            self._announce(local, status)
        return bool(seen.servers)

    def _announce(self, local: LocalWorkload, new: LocalWorkloadStatus) -> None:
        before, after = is_true(local.status.conditions, "Connected"), is_true(new.conditions, "Connected")
        if after and not before:
            connection = new.connection or ConnectionStatus()
            message = f"connected by {connection.client or 'a laptop'} from {connection.remote_address}"
            self._recorder.event(LOCAL_WORKLOADS, local.metadata, "Connected", message)
        elif before and not after:
            message = f"the laptop is gone; meanwhile: {local.spec.on_disconnect}"
            self._recorder.event(LOCAL_WORKLOADS, local.metadata, "Disconnected", message, kind=WARNING)

    async def _finalize(self, local: LocalWorkload) -> Result:
        """Routes out first, then the tunnels; the finalizer goes once routers and tunnel servers confirm it."""
        waited = self._clock.now() - parse_timestamp(local.metadata.deletion_timestamp or "")
        report = self._routes.sandbox(Key(local.metadata.namespace, local.spec.sandbox))
        if report is not None and not report.programmed and waited < ROUTES_OUT:
            return Result.requeue_after(0.1)
        if not self._connections.close(local.metadata.uid):
            if waited > QUIETLY:
                message = "tunnel servers have not confirmed yet that they let its laptop in no more"
                await self._report(local, Problem(reasons.TERMINATING, message))
            return Result.requeue_after(0.1 if waited < QUIETLY else 1.0)
        try:
            answer = await remove_finalizer(self._client, LOCAL_WORKLOADS, local.metadata, FINALIZER)
        except NotFound:
            return Result.done()
        if answer is not None:
            self._cache.observe(LOCAL_WORKLOADS, answer)
            self._cache.observe_deleted(LOCAL_WORKLOADS, local.metadata.key)
        return Result.done()


def locals_of(world: World, sandbox: Sandbox) -> list[Key]:
    """The LocalWorkloads of a sandbox."""
    found = world.local_workloads.list(sandbox.metadata.namespace)
    return [local.metadata.key for local in found if local.spec.sandbox == sandbox.metadata.name]


def instead_of(world: World, deployment: Deployment) -> list[Key]:
    """The LocalWorkloads that stand in for a Deployment."""
    found = world.local_workloads.list(deployment.metadata.namespace)
    return [local.metadata.key for local in found if local.spec.from_.name == deployment.metadata.name]
