"""The preview gateway as a part of the manager: every replica serves its configuration, the leader makes it when it is needed.

`Gateway.run` owns the only task.
"""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

from sandlane.kube.apply import Applier
from sandlane.kube.cache import Change
from sandlane.kube.errors import NotFound
from sandlane.kube.resource import (
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    NAMESPACES,
    POD_DISRUPTION_BUDGETS,
    PODS,
    ROUTE_GROUPS,
    SANDBOXES,
    SERVICES,
    Key,
)
from sandlane.preview.plan import by_backend, endpoints_of, previews
from sandlane.preview.resources import (
    GATEWAY,
    IDENTITY,
    LABELS,
    NAME,
    XDS_SECRET,
    PreviewOptions,
    gateway_budget,
    gateway_deployment,
    gateway_group,
    gateway_service,
)
from sandlane.preview.translate import filter_code, listeners, shared
from sandlane.routing.envoy.delta import LISTENER
from sandlane.routing.envoy.server import XdsServer
from sandlane.routing.identities import RENEWAL, Identities
from sandlane.routing.resources import RouterOptions
from sandlane.runtime.controller import Controller
from sandlane.runtime.manager import Manager
from sandlane.runtime.result import Request, Result
from sandlane.world.records import Deployment, EndpointSlice, Namespace, Pod, RouteGroup, Sandbox, Service
from sandlane.world.world import SELECTORS, World

log = structlog.get_logger(__name__)

SETTLE = 0.02
"""Seconds that changes are gathered before the configuration is made again."""


class Gateway:
    """Serves preview endpoints."""

    def __init__(
        self,
        manager: Manager,
        world: World,
        server: XdsServer,
        routers: RouterOptions,
        identities: Identities,
        options: PreviewOptions,
    ) -> None:
        self._manager = manager
        self._world = world
        self._server = server
        self._routers = routers
        self._identities = identities
        self._options = options
        self._code = filter_code(options.token, options.scheme)
        self._applier = Applier(manager.client, manager.cache)
        self._groups: set[str] = set()
        self._backends: set[Key] = set()
        self._dirty = asyncio.Event()
        self._dirty.set()
        if not options.domain:
            return
        cache = manager.cache
        for resource, record in ((SANDBOXES, Sandbox), (ROUTE_GROUPS, RouteGroup), (NAMESPACES, Namespace)):
            kind: Any = record
            cache.informer(resource, kind).add_handler(lambda change: self._dirty.set())
        cache.informer(SERVICES, Service).add_handler(lambda change: self._asked(change.key))
        cache.informer(ENDPOINT_SLICES, EndpointSlice).add_handler(self._endpoints_changed)
        cache.informer(PODS, Pod, label_selector=SELECTORS["pods"]).add_handler(self._pod_changed)
        manager.add_runnable(self.run)

    # -- on every replica -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Publish whenever something has changed, until cancelled."""
        await self._manager.ready.wait()
        while True:
            await self._dirty.wait()
            await self._manager.clock.sleep(SETTLE)
            self._dirty.clear()
            self._publish()

    def _publish(self) -> None:
        pods = [
            pod.status.pod_ip
            for pod in self._world.pods.list(self._manager.namespace)
            if GATEWAY in pod.metadata.labels and pod.status.pod_ip and not pod.metadata.deleting
        ]
        found = previews(self._world)
        self._backends = {Key(each.namespace, each.service) for each in by_backend(found).values()}
        common = shared(self._world, found, self._options.domain) if pods else {}
        groups = {gateway_group(address): address for address in pods}
        for group, address in groups.items():
            own = {LISTENER: listeners(address, self._options.also, self._code)}
            self._server.publish(group, {**common, **own})
        for gone in self._groups - groups.keys():
            self._server.withdraw(gone)
        self._groups = set(groups)

    def _asked(self, service: Key) -> None:
        if service in self._backends:
            self._dirty.set()

    def _endpoints_changed(self, change: Change[EndpointSlice]) -> None:
        for each in (change.old, change.new):
            if each is not None:
                self._asked(Key(each.metadata.namespace, each.service))

    def _pod_changed(self, change: Change[Pod]) -> None:
        pod = change.new or change.old
        if pod is not None and GATEWAY in pod.metadata.labels:
            self._dirty.set()

    # -- on the leader ----------------------------------------------------------------------------------

    def setup_with_manager(self, manager: Manager) -> Controller:
        """A controller that makes the gateway when the first endpoint comes, and removes it after the last."""
        key = Key(manager.namespace, NAME)
        return (
            Controller.managed_by(manager)
            .named("preview")
            .watches(SANDBOXES, Sandbox, to_requests=lambda each: [key] if endpoints_of(each) else [])
            .watches(ROUTE_GROUPS, RouteGroup, to_requests=lambda each: [key] if endpoints_of(each) else [])
            .watches(DEPLOYMENTS, Deployment, to_requests=lambda each: [key] if each.metadata.key == key else [])
            .complete(self)
        )

    async def reconcile(self, request: Request) -> Result:
        """Make the gateway while somebody wants an endpoint."""
        namespace = request.namespace
        if not self._wanted():
            return await self._remove(request)
        certificate = await self._identities.ensure(Key(namespace, XDS_SECRET), IDENTITY, LABELS)
        await self._applier.ensure(DEPLOYMENTS, gateway_deployment(namespace, self._routers, certificate))
        await self._applier.ensure(POD_DISRUPTION_BUDGETS, gateway_budget(namespace))
        await self._applier.ensure(SERVICES, gateway_service(namespace, self._options.service_type))
        return Result.requeue_after(RENEWAL)

    def _wanted(self) -> bool:
        owners: list[Sandbox | RouteGroup] = [*self._world.sandboxes, *self._world.route_groups]
        return bool(self._options.domain) and any(endpoints_of(each) for each in owners)

    async def _remove(self, key: Key) -> Result:
        """Nobody wants it any more: its Deployment goes last, as it tells that there is one."""
        deployment = self._world.deployments.get(key)
        if deployment is None or deployment.metadata.labels.get(GATEWAY) is None:
            return Result.done()
        await self._applier.remove(SERVICES, key)
        try:
            await self._manager.client.delete(POD_DISRUPTION_BUDGETS, key.name, key.namespace)
        except NotFound:
            pass
        await self._identities.remove(Key(key.namespace, XDS_SECRET))
        await self._applier.remove(DEPLOYMENTS, key)
        log.info("preview_gateway_removed")
        return Result.done()
