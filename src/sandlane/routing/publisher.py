"""Keeps the route table in step with the world and publishes it to the routers; and knows which routers serve it.

Runs on every replica of the manager. `Publisher.run` owns its only task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import structlog

from sandlane.api.labels import ROUTER, SANDBOX
from sandlane.kube.cache import Cache, Change
from sandlane.kube.clock import Clock
from sandlane.kube.resource import (
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    LOCAL_WORKLOADS,
    NAMESPACES,
    PODS,
    ROUTE_GROUPS,
    SANDBOXES,
    SERVICES,
    Key,
)
from sandlane.routing.envoy.delta import LISTENER, Refusal
from sandlane.routing.envoy.server import XdsServer
from sandlane.routing.envoy.translate import listeners, shared
from sandlane.routing.key import KeySources
from sandlane.routing.live import KINDS, Changed, LiveTable
from sandlane.routing.names import router_group
from sandlane.routing.served import Served
from sandlane.routing.table import Door, Override, RouteTable, RoutingKey
from sandlane.routing.tunnels import Held
from sandlane.world.records import (
    Deployment,
    EndpointSlice,
    LocalWorkload,
    Namespace,
    Pod,
    RouteGroup,
    Sandbox,
    Service,
)
from sandlane.world.world import SELECTORS, World

log = structlog.get_logger(__name__)

SETTLE = 0.01
"""Seconds that changes are gathered before the table is built again."""


class Publisher:
    """The live route table."""

    def __init__(self, cache: Cache, world: World, server: XdsServer, clock: Clock, sources: KeySources) -> None:
        self.table = RouteTable()
        self._world = world
        self._server = server
        self._clock = clock
        self._sources = sources
        self._live = LiveTable()
        self._changed = {Changed(kind, key) for kind in KINDS for key in list(getattr(world, kind).keys())}
        self._dirty = asyncio.Event()
        self.published = asyncio.Event()
        """Set once a table of the whole world is published: nobody may be served before."""
        self._groups: dict[str, str] = {}  # xDS group -> namespace
        self._listeners: list[Callable[[str], None]] = []
        self.held: Callable[[], Held] = dict
        """Which laptops are connected; set by whoever knows."""
        self.secrets: Mapping[str, Mapping[str, bytes]] = {}
        """Resources that every router gets beside its table."""
        kinds: Mapping[str, tuple[Any, type[Any]]] = {
            "sandboxes": (SANDBOXES, Sandbox),
            "route_groups": (ROUTE_GROUPS, RouteGroup),
            "services": (SERVICES, Service),
            "endpoint_slices": (ENDPOINT_SLICES, EndpointSlice),
            "namespaces": (NAMESPACES, Namespace),
            "local_workloads": (LOCAL_WORKLOADS, LocalWorkload),
            "deployments": (DEPLOYMENTS, Deployment),
        }
        for kind, (resource, record_type) in kinds.items():
            cache.informer(resource, record_type).add_handler(partial(self._object_changed, kind))
        pods = cache.informer(PODS, Pod, label_selector=SELECTORS["pods"])
        pods.add_handler(self._pod_changed)
        server.subscribe(self._client_changed)
        self.served = Served(clock, self._all_routers, self.digest, self._tell)
        """What the routers answer; to be run beside this."""

    def subscribe(self, listener: Callable[[str], None]) -> None:
        """Call `listener` with a namespace whenever its table, or what its routers serve of it, may have changed."""
        self._listeners.append(listener)

    def routers(self, namespace: str) -> list[Pod]:
        """The ready routers of a namespace."""
        return [
            pod
            for pod in self._world.pods.list(namespace)
            if ROUTER in pod.metadata.labels and SANDBOX not in pod.metadata.labels and pod.ready
        ]

    def behind(self, namespace: str) -> list[str]:
        """Why the routers of a namespace do not all serve the table as it is now; empty when they do.

        A router that refuses something and serves everything else is not behind: see `refusals`.
        """
        routers = self.routers(namespace)
        if not routers:
            return ["no router is ready"]
        late = [
            why
            for pod in routers
            if (why := self.served.late(pod))
            and not self._server.only_refuses(router_group(namespace, pod.status.pod_ip))
        ]
        self._catch_up()
        if self._live.table.fronts(namespace) is not self.table.fronts(namespace):
            late.append("the last change is not published yet")
        return late

    def refusals(self, namespace: str) -> list[tuple[str, Refusal]]:
        """What routers refuse to serve, with the router's name, as far as they are connected to this manager."""
        return [
            (pod.metadata.name, refusal)
            for pod in self.routers(namespace)
            for refusal in self._server.refusals(router_group(namespace, pod.status.pod_ip))
        ]

    def digest(self, namespace: str) -> str:
        """What the routers of a namespace answer when they serve its table."""
        return self.table.fronts(namespace).digest

    def _all_routers(self) -> list[Pod]:
        namespaces = {pod.metadata.namespace for pod in self._world.pods if ROUTER in pod.metadata.labels}
        return [pod for namespace in namespaces for pod in self.routers(namespace)]

    def routes(self, key: RoutingKey) -> Mapping[Door, Override]:
        """Where a key's requests shall go; doors of Services that do not go through a router (yet) included."""
        self._catch_up()
        return self._live.routes(key)

    def has_overrides(self, service: Key) -> bool:
        """Whether some key's requests to a Service shall go elsewhere than to its baseline."""
        self._catch_up()
        return self._live.has_overrides(service)

    def _catch_up(self) -> None:
        """The table that will be published, as the world is now."""
        changed, self._changed = self._changed, set()
        self._live.update(self._world, changed, self.held())

    def refresh(self) -> None:
        """Build and publish again, because something beside the world has changed."""
        self._dirty.set()

    async def run(self, known: asyncio.Event) -> None:
        """Build and publish once the world is known and whenever something has changed, until cancelled."""
        await known.wait()
        self._dirty.set()
        while True:
            await self._dirty.wait()
            since = self._clock.monotonic()
            await self._clock.sleep(SETTLE)
            self._dirty.clear()
            self._publish(since)
            self.published.set()

    def _publish(self, since: float) -> None:
        world = self._world
        held = self.held()
        self._catch_up()
        self.table = table = self._live.table
        groups: dict[str, str] = {}
        by_namespace: dict[str, Any] = {}
        for pod in world.pods:
            address = pod.status.pod_ip
            if ROUTER not in pod.metadata.labels or not address or pod.metadata.deleting:
                continue
            namespace = pod.metadata.namespace
            doors = table.of_namespace(namespace)
            if namespace not in by_namespace:
                by_namespace[namespace] = shared(world, doors, self.digest(namespace), self._sources, held)
            group = router_group(namespace, address)
            groups[group] = namespace
            own = {LISTENER: listeners(doors, address, self._sources)}
            self._server.publish(group, {**by_namespace[namespace], **own, **self.secrets}, since=since)
        gone = self._groups.keys() - groups.keys()
        for group in gone:
            self._server.withdraw(group)
        told = set(groups.values()) | set(self._groups.values()) | {door.namespace for door in table.doors}
        self._groups = groups
        self.served.look()
        for namespace in sorted(told):
            self._tell(namespace)

    def _object_changed(self, kind: str, change: Change[Any]) -> None:
        self._changed.add(Changed(kind, change.key))
        self._dirty.set()

    def _pod_changed(self, change: Change[Pod]) -> None:
        pod = change.new or change.old
        if pod is not None and ROUTER in pod.metadata.labels:
            self._dirty.set()
            self.served.look()

    def _client_changed(self, group: str) -> None:
        namespace = self._groups.get(group)
        if namespace is not None:
            self.served.look()
            self._tell(namespace)

    def _tell(self, namespace: str) -> None:
        for listener in self._listeners:
            listener(namespace)
