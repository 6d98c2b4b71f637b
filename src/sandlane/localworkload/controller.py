"""The LocalWorkload controller: who wakes it, and what it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from sandlane.api.types import FINALIZER, LocalWorkloadStatus
from sandlane.kube.errors import NotFound
from sandlane.kube.resource import DEPLOYMENTS, LOCAL_WORKLOADS, SANDBOXES, Key
from sandlane.localworkload.plan import check
from sandlane.localworkload.status import observe
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


class Routes(Protocol):
    """Where route reports come from."""

    def sandbox(self, key: Key) -> RouteReport | None:
        """What the routers say about a sandbox."""

    def subscribe(self, callback: Callable[[str, Key], None]) -> None:
        """Call back with kind and key whenever a report changes."""


class Connections(Protocol):
    """Who is connected, as the data plane says, and by whose certificate."""

    def tunnels(self, identity: str) -> int:
        """How many servers hold a tunnel."""

    def client(self, identity: str) -> str:
        """The user whose certificate was last signed."""

    def subscribe(self, listener: Callable[[str], None]) -> None:
        """Call `listener` with an identity whenever its connection changes."""


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

        def connection_changed(identity: str) -> None:
            for local in world.local_workloads:
                if local.metadata.uid == identity:
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
        identity = local.metadata.uid
        status = observe(
            local,
            check(self._world, local),
            self._connections.tunnels(identity),
            self._routes.sandbox(Key(request.namespace, local.spec.sandbox)),
            self._connections.client(identity),
            self._clock.now(),
        )
        if status != local.status:
            written = await write_status(self._client, LOCAL_WORKLOADS, local.metadata, status)
            self._cache.observe(LOCAL_WORKLOADS, written)
            self._announce(local, status)
        return Result.done()

    def _announce(self, local: LocalWorkload, new: LocalWorkloadStatus) -> None:
        before, after = is_true(local.status.conditions, "Connected"), is_true(new.conditions, "Connected")
        if after and not before:
            client = new.connection.client if new.connection else ""
            self._recorder.event(LOCAL_WORKLOADS, local.metadata, "Connected", f"connected by {client or 'a laptop'}")
        elif before and not after:
            message = "the laptop is gone"
            self._recorder.event(LOCAL_WORKLOADS, local.metadata, "Disconnected", message, kind=WARNING)

    async def _finalize(self, local: LocalWorkload) -> Result:
        """Its routes and its identity went with the deletion timestamp; the finalizer goes once routers confirm it."""
        report = self._routes.sandbox(Key(local.metadata.namespace, local.spec.sandbox))
        if report is not None and not report.programmed:
            return Result.requeue_after(1.0)
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
