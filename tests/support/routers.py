"""Routers without Envoy: their Pods come and go with their Deployment, and they serve whatever is published at once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from sandlane.kube.clock import Clock
from sandlane.kube.errors import AlreadyExists, NotFound
from sandlane.kube.resource import DEPLOYMENTS, PODS, Key, Object
from sandlane.routing.controller import RoutingController
from sandlane.routing.envoy.identity import SERVER
from sandlane.routing.envoy.server import XdsServer
from sandlane.routing.identities import Identities
from sandlane.routing.names import ROUTER
from sandlane.routing.publisher import Publisher
from sandlane.routing.resources import RouterOptions
from sandlane.runtime.certificates import renewed
from sandlane.runtime.controller import Controller
from sandlane.runtime.manager import Manager
from sandlane.runtime.result import Request, Result
from sandlane.testing.clock import START
from sandlane.world.records import Deployment
from sandlane.world.world import World

NAMESPACE = "rides"
AUTHORITY: Any = SimpleNamespace(held=renewed(None, "xds CA", [SERVER], START))


class PretendRouters:
    """Gives the router's Deployment its ready Pods, and takes them away with it; `down`: they are not ready."""

    def __init__(self, manager: Manager) -> None:
        self._client = manager.client
        self._store = manager.cache.informer(DEPLOYMENTS, Deployment).store
        self.down = False
        Controller.managed_by(manager).for_(DEPLOYMENTS, Deployment).named("routers").complete(self)

    async def reconcile(self, request: Request) -> Result:
        if request.name != ROUTER:
            return Result.done()
        record = self._store.get(request)
        if record is None or record.metadata.deleting:
            for n in range(2):
                await self._gone(f"{ROUTER}-{n}", request.namespace)
            return Result.done()
        for n in range(record.spec.replicas):
            await self._there(f"{ROUTER}-{n}", request.namespace, f"10.0.0.{n + 1}", record)
        return Result.done()

    async def _there(self, name: str, namespace: str, address: str, record: Deployment) -> None:
        labels = dict(record.pod_labels)
        spec = {"containers": [{"name": "envoy", "image": "envoy"}]}
        pod: Object = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace},
            "spec": spec,
        }
        pod["metadata"]["labels"] = labels
        try:
            await self._client.create(PODS, pod)
        except AlreadyExists:
            pass
        ready = [{"type": "Ready", "status": "False" if self.down else "True"}]
        status = {"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": ready}}
        await self._client.patch(PODS, name, status, namespace=namespace, subresource="status")

    async def _gone(self, name: str, namespace: str) -> None:
        try:
            await self._client.delete(PODS, name, namespace, grace_seconds=0)
        except NotFound:
            pass


def build(manager: Manager) -> RoutingController:
    """Register the routing controller, with routers that serve at once."""
    clock: Clock = manager.clock
    world = World.from_cache(manager.cache)
    publisher = Publisher(manager.cache, world, XdsServer(), clock)

    async def ask(address: str) -> str:
        return publisher.digest(NAMESPACE)

    publisher.served._ask = ask
    manager.add_runnable(lambda: publisher.run(manager.ready))
    manager.add_runnable(publisher.served.run)
    manager.add_runnable(publisher.departures.run)
    identities = Identities(manager.client, clock, AUTHORITY)
    controller = RoutingController(manager, world, publisher, RouterOptions("xds", 1), identities)
    controller.setup_with_manager(manager)
    return controller


def service(name: str = "eta", *, routing: str = "always", ports: list[Object] | None = None) -> Object:
    """A Service as its owner writes it."""
    plain = [
        {"name": "http", "port": 80, "protocol": "TCP", "targetPort": "http"},
        {"name": "grpc", "port": 9090, "protocol": "TCP", "targetPort": 9090, "appProtocol": "grpc"},
        {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 5353},
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE, "annotations": {"sandlane.dev/routing": routing}},
        "spec": {
            "selector": {"app": name},
            "ports": ports or plain,
            "sessionAffinity": "ClientIP",
            "type": "NodePort",
        },
    }


def key(name: str = "eta") -> Key:
    """Its key."""
    return Key(NAMESPACE, name)
