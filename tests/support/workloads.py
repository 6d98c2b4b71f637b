"""The built-in controllers on a fake cluster, with a kubelet that only pretends to run Pods."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sandlane.kube.cache import Change
from sandlane.kube.errors import NotFound
from sandlane.kube.resource import PODS, Key, Resource
from sandlane.kube.unstructured import Unstructured
from sandlane.local.agent import set_up_controllers
from sandlane.local.controllers.inventory import Inventory
from sandlane.runtime.controller import Controller
from sandlane.runtime.manager import Manager
from sandlane.runtime.options import ManagerOptions
from sandlane.runtime.result import Request, Result
from sandlane.testing.cluster import FakeCluster
from support.waiting import until, until_gone

DEADLINE = 20.0
NODE = "laptop"
NOWHERE = Path("/nowhere")


class PretendKubelet:
    """Makes Pods Running and ready (but those of images named `broken`), and lets deleted ones go."""

    def __init__(self, cluster: FakeCluster) -> None:
        self._client = cluster.client
        self._addresses = 0
        self.held: set[str] = set()
        """Names of Pods that do not end when they are deleted."""

    def setup_with_manager(self, manager: Manager) -> None:
        self._store = manager.cache.informer(PODS).store
        self.controller = Controller.managed_by(manager).for_(PODS, Unstructured).named("kubelet").complete(self)

    async def reconcile(self, request: Request) -> Result:
        record = self._store.get(request)
        if record is None:
            return Result.done()
        pod = record.object()
        if record.metadata.deleting:
            if request.name not in self.held:
                try:
                    await self._client.delete(PODS, request.name, request.namespace, grace_seconds=0)
                except NotFound:
                    pass
            return Result.done()
        if (pod.get("status") or {}).get("phase") not in (None, "Pending"):
            return Result.done()
        broken = any("broken" in c["image"] for c in pod["spec"]["containers"])
        self._addresses += 1
        conditions = [{"type": "Ready", "status": str(not broken), "lastTransitionTime": "2026-01-01T00:00:00Z"}]
        body = {
            "status": {"phase": "Running", "podIP": f"10.1.0.{self._addresses}", "conditions": conditions},
        }
        await self._client.patch(PODS, request.name, body, namespace=request.namespace, subresource="status")
        return Result.done()


class Workloads:
    """A running fake cluster with its controllers."""

    def __init__(self, cluster: FakeCluster, manager: Manager, kubelet: PretendKubelet, inventory: Inventory) -> None:
        self.cluster = cluster
        self.client = cluster.client
        self.manager = manager
        self.kubelet = kubelet
        self.inventory = inventory

    async def until(self, check: Callable[[], Any], what: str) -> Any:
        """Wait until an awaitable check gives something true, and give that."""
        return await until(check, what, within=DEADLINE)

    async def gone(self, resource: Resource, name: str, namespace: str | None = None) -> None:
        """Wait until an object does not exist."""
        await until_gone(self.client, resource, name, namespace)

    async def quiet(self) -> None:
        """Wait until nothing is written any more for a moment."""
        count = -1
        while count != len(self.cluster.writes):
            count = len(self.cluster.writes)
            await asyncio.sleep(0.15)


@asynccontextmanager
async def workloads(*objects: dict[str, Any], volumes: Path = NOWHERE) -> AsyncIterator[Workloads]:
    """A fake cluster with the built-in controllers running; `volumes` is where claims have their folders."""
    async with FakeCluster.with_objects(*objects) as cluster:
        manager = Manager(cluster.client, clock=cluster.clock, rng=cluster.rng, options=ManagerOptions())
        inventory = Inventory(cluster.client, manager.cache, cluster.clock, cluster.rng)
        kubelet = PretendKubelet(cluster)
        kubelet.setup_with_manager(manager)
        set_up_controllers(manager, inventory, "the authority", volumes)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(manager.run())
            await asyncio.wait_for(manager.ready.wait(), DEADLINE)
            await asyncio.wait_for(inventory.complete.wait(), DEADLINE)
            try:
                yield Workloads(cluster, manager, kubelet, inventory)
            finally:
                manager.stop()
                await running


def labels(app: str) -> dict[str, str]:
    """The labels of an app."""
    return {"app": app}


def deployment(name: str = "app", replicas: int = 2, image: str = "app:1", **spec: Any) -> dict[str, Any]:
    """A Deployment in namespace `rides`."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "rides"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels(name)},
            "template": {
                "metadata": {"labels": labels(name)},
                "spec": {"containers": [{"name": "main", "image": image, "ports": [{"containerPort": 8080}]}]},
            },
            **spec,
        },
    }


def service(name: str = "app") -> dict[str, Any]:
    """A Service of that Deployment."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "rides"},
        "spec": {"selector": labels(name), "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    }


__all__ = ["Change", "Key", "Workloads", "deployment", "service", "workloads"]
