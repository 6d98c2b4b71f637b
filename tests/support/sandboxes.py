"""Sandboxes on a fake cluster: the CRDs, a baseline, routers that only pretend, Deployments that become ready by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from sandlane.api.crd import definitions
from sandlane.api.limits import Settings
from sandlane.kube.resource import DEPLOYMENTS, SANDBOXES, Key, Object, Resource
from sandlane.routegroup.controller import RouteGroupController
from sandlane.runtime.controller import Controller
from sandlane.runtime.manager import Manager
from sandlane.runtime.options import ManagerOptions
from sandlane.runtime.result import Request, Result
from sandlane.sandbox.controller import SandboxController
from sandlane.testing.cluster import FakeCluster
from sandlane.world.records import Deployment
from sandlane.world.world import World
from support.waiting import until, until_gone
from support.workloads import DEADLINE

NAMESPACE = "rides"


class Report(msgspec.Struct, frozen=True):
    """What a router says."""

    programmed: bool = True
    reason: str = ""
    message: str = ""
    served: bool = False


class PretendRoutes:
    """Routers that serve everything at once, until told otherwise by `say`."""

    def __init__(self) -> None:
        self._reports: dict[Key, Report] = {}
        self._callbacks: list[Callable[[str, Key], None]] = []

    def sandbox(self, key: Key) -> Report:
        return self._reports.get(key, Report())

    def route_group(self, key: Key) -> Report:
        return self._reports.get(key, Report())

    def subscribe(self, callback: Callable[[str, Key], None]) -> None:
        self._callbacks.append(callback)

    def say(self, kind: str, key: Key, report: Report) -> None:
        """Report something else from now on."""
        self._reports[key] = report
        for callback in self._callbacks:
            callback(kind, key)


class PretendDeployments:
    """Gives every Deployment the status of one whose Pods are all ready, but those in `held`."""

    def __init__(self, manager: Manager) -> None:
        self._client = manager.client
        self.held: set[str] = set()
        self._store = manager.cache.informer(DEPLOYMENTS, Deployment).store
        self.controller = (
            Controller.managed_by(manager).for_(DEPLOYMENTS, Deployment).named("deployments").complete(self)
        )

    async def reconcile(self, request: Request) -> Result:
        record = self._store.get(request)
        if record is None or record.metadata.deleting or request.name in self.held:
            return Result.done()
        wanted = record.spec.replicas
        status = {
            "observedGeneration": record.metadata.generation,
            "replicas": wanted,
            "updatedReplicas": wanted,
            "readyReplicas": wanted,
            "availableReplicas": wanted,
        }
        now = record.status
        have = {
            "observedGeneration": now.observed_generation,
            "replicas": now.replicas,
            "updatedReplicas": now.updated_replicas,
            "readyReplicas": now.ready_replicas,
            "availableReplicas": now.available_replicas,
        }
        if status != have:
            body = {"status": status}
            await self._client.patch(DEPLOYMENTS, request.name, body, namespace=request.namespace, subresource="status")
        return Result.done()


def build(manager: Manager, routes: PretendRoutes | None = None, settings: Settings | None = None) -> SandboxController:
    """Register the controllers under test."""
    routes = routes or PretendRoutes()
    world = World.from_cache(manager.cache)
    controller = SandboxController(manager, world, routes, settings)
    controller.setup_with_manager(manager)
    RouteGroupController(manager, world, routes, settings).setup_with_manager(manager)
    return controller


def deployment(name: str = "route", **spec: Any) -> Object:
    """A baseline."""
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": {
            "containers": [
                {"name": name, "image": f"rides/{name}:1", "ports": [{"name": "http", "containerPort": 8083}]}
            ]
        },
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": template} | spec,
    }


def service(name: str = "route", **spec: Any) -> Object:
    """Its Service."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]} | spec,
    }


def fork(name: str = "route", **customizations: Any) -> Object:
    """A fork in a spec."""
    made: Object = {"forkOf": {"kind": "Deployment", "name": name}}
    return made | ({"customizations": customizations} if customizations else {})


def sandbox(name: str = "new-eta", *forks: Object, labels: dict[str, str] | None = None, **spec: Any) -> Object:
    """A Sandbox."""
    metadata: Object = {"name": name, "namespace": NAMESPACE}
    if labels:
        metadata["labels"] = labels
    return {
        "apiVersion": "sandlane.dev/v1alpha1",
        "kind": "Sandbox",
        "metadata": metadata,
        "spec": {"forks": list(forks) or [fork()]} | spec,
    }


def group(name: str = "both", **spec: Any) -> Object:
    """A RouteGroup over `feature: x*`."""
    match = {"any": [{"label": {"key": "feature", "value": "x*"}}]}
    metadata = {"name": name, "namespace": NAMESPACE}
    return {
        "apiVersion": "sandlane.dev/v1alpha1",
        "kind": "RouteGroup",
        "metadata": metadata,
        "spec": {"match": match} | spec,
    }


class Running:
    """A fake cluster with the controllers running."""

    def __init__(self, cluster: FakeCluster, manager: Manager, routes: PretendRoutes, pods: PretendDeployments) -> None:
        self.cluster, self.client, self.manager = cluster, cluster.client, manager
        self.routes, self.deployments = routes, pods

    async def until(self, check: Callable[[], Awaitable[Any]], what: str) -> Any:
        """Wait until a check gives something true, and give that."""
        return await until(check, what, within=DEADLINE)

    async def condition(
        self, kind: str, status: str, reason: str = "", name: str = "new-eta", resource: Resource = SANDBOXES
    ) -> Object:
        """Wait for a condition of a Sandbox (at its newest generation); the object."""

        async def check() -> Object | None:
            obj = await self.client.get(resource, name, NAMESPACE)
            told = obj.get("status", {})
            if told.get("observedGeneration") != obj["metadata"]["generation"]:
                return None
            for each in told.get("conditions", ()):
                if each["type"] == kind and each["status"] == status and reason in ("", each["reason"]):
                    return obj
            return None

        return await self.until(check, f"{kind}={status} {reason}")

    async def ready(self, name: str = "new-eta") -> Object:
        """Wait until a Sandbox is ready."""
        return await self.condition("Ready", "True", name=name)

    async def gone(self, resource: Resource, name: str) -> None:
        """Wait until an object does not exist."""
        await until_gone(self.client, resource, name, NAMESPACE)

    async def patch(self, resource: Resource, name: str, body: Object, **more: Any) -> Object:
        """Merge something into an object."""
        return await self.client.patch(resource, name, body, namespace=NAMESPACE, **more)

    async def rest(self) -> None:
        """Wait until nothing is to be done."""

        async def check() -> bool:
            before = len(self.cluster.writes)
            await asyncio.sleep(0.05)
            return self.manager.idle and len(self.cluster.writes) == before

        await self.until(check, "rest")


@asynccontextmanager
async def running(*objects: Object, settings: Settings | None = None, clock: Any = None) -> AsyncIterator[Running]:
    """A fake cluster with these objects and the controllers running."""
    async with FakeCluster.with_objects(*definitions(), *objects, clock=clock) as cluster:
        manager = Manager(cluster.client, clock=cluster.clock, rng=cluster.rng, options=ManagerOptions())
        routes = PretendRoutes()
        build(manager, routes, settings)
        pods = PretendDeployments(manager)
        async with asyncio.TaskGroup() as tasks:
            job = tasks.create_task(manager.run())
            await asyncio.wait_for(manager.ready.wait(), DEADLINE)
            try:
                yield Running(cluster, manager, routes, pods)
            finally:
                manager.stop()
                await job
