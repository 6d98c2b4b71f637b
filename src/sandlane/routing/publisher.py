"""Keeps the route table in step with the world and publishes it to the routers; and knows which routers serve it.

Runs on every replica of the manager. `Publisher.run` owns its only task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import structlog
from envoy.config.listener.v3 import listener_pb2

from sandlane.api.labels import ROUTER
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
from sandlane.routing.departures import Departures
from sandlane.routing.envoy.delta import LISTENER, Refusal
from sandlane.routing.envoy.digest import DIGEST, NOTHING, Refuses, digest_listener
from sandlane.routing.envoy.encode import encoded
from sandlane.routing.envoy.listeners import DoorOptions
from sandlane.routing.envoy.server import XdsServer
from sandlane.routing.envoy.translate import Changes, Translation
from sandlane.routing.live import KINDS, Changed, LiveTable
from sandlane.routing.names import router_group, routers_group
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

SETTLE = 0.005
"""Seconds from one publication to the next at least: changes that come meanwhile go together."""

GATHER = 0.005
"""Seconds for which confirmations of routers are gathered."""


class Publisher:
    """The live route table."""

    def __init__(
        self,
        cache: Cache,
        world: World,
        server: XdsServer,
        clock: Clock,
        options: DoorOptions | None = None,
        *,
        settle: float = 0.0,
    ) -> None:
        """`settle`: seconds from a router's deletion until nobody sends it new connections."""
        self.table = RouteTable()
        self._world = world
        self._server = server
        self._clock = clock
        self._live = LiveTable()
        self._translation = Translation(options)
        self._touched: set[Key] = set()  # Services that changed, or whose endpoints did
        self._renewed: set[str] = set()  # namespaces whose routers changed
        self._sent_secrets: object = None
        self._changed = {Changed(kind, key) for kind in KINDS for key in list(getattr(world, kind).keys())}
        self._dirty = asyncio.Event()
        self.published = asyncio.Event()
        """Set once a table of the whole world is published: nobody may be served before."""
        self._groups: dict[str, str] = {}  # xDS group -> namespace
        self._addresses: dict[str, dict[str, str]] = {}  # namespace -> address of a router -> xDS group
        self.departures = Departures(clock, settle, self._router_goes)
        """Routers that are going; to be run beside this."""
        self.obstacles: dict[str, str] = {}
        """By namespace: why its router cannot be made; known to the leader."""
        self.contested: dict[Key, str] = {}
        """Services that are left to a field manager for a while; known to the leader."""
        self.barred: dict[Key, str] = {}
        """Services that policies keep from being turned, and why; known to the leader."""
        self._own: dict[
            str, tuple[object, ...]
        ] = {}  # xDS group -> what decides about the listeners and secrets it has
        self._heard: set[str] = set()  # xDS groups that have said something
        self._refuses: dict[str, Refuses] = {}  # xDS group -> what it shall say that it refuses
        self.rerouted: frozenset[str] = frozenset()
        """While subscribers are called: whose routes (`Sandbox NAMESPACE/NAME`, ...) may be other ones than before."""
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
        return [pod for pod in self._world.routers(namespace) if pod.ready and not pod.metadata.deleting]

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
            if (why := self.served.late(pod) or self._unconfirmed(pod))
            and not self._server.only_refuses(router_group(namespace, pod.status.pod_ip))
        ]
        late += [
            why for pod in self._world.routers(namespace) if pod.metadata.deleting and (why := self._unconfirmed(pod))
        ]
        self._catch_up()
        if self._live.table.fronts(namespace) is not self.table.fronts(namespace):
            late.append("the last change is not published yet")
        return late

    def _unconfirmed(self, pod: Pod) -> str:
        """Why a router that answers what is wanted may be about to serve something else first: as far as it is connected here."""
        group = router_group(pod.metadata.namespace, pod.status.pod_ip)
        return (
            f"router {pod.metadata.name} has not confirmed the last change" if self._server.unconfirmed(group) else ""
        )

    def refusals(self, namespace: str) -> list[tuple[str, Refusal]]:
        """What routers refuse to serve, with the router's name: heard here, or from the router where it is connected to another manager."""
        return [(pod.metadata.name, refusal) for pod in self.routers(namespace) for refusal in self._refused(pod)]

    def _refused(self, pod: Pod) -> Sequence[Refusal]:
        group = router_group(pod.metadata.namespace, pod.status.pod_ip)
        return self._server.refusals(group) if self._server.clients(group) else self.served.refuses(pod).refusals

    def digest(self, namespace: str) -> str:
        """What the routers of a namespace answer when they serve its table."""
        return self.table.fronts(namespace).digest

    def _all_routers(self) -> list[Pod]:
        return [pod for namespace in self._addresses for pod in self.routers(namespace)]

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

    def obstruct(self, namespace: str, why: str) -> None:
        """Note why a namespace's router cannot be made; an empty text: it can."""
        if self.obstacles.get(namespace, "") != why:
            self.obstacles[namespace] = why
            self._tell(namespace)

    def bar(self, service: Key, why: str) -> None:
        """Note why a Service must not be turned; an empty text: it may."""
        if self.barred.get(service, "") == why:
            return
        self.barred[service] = why
        if not why:
            del self.barred[service]
        self._tell(service.namespace)

    def refresh(self) -> None:
        """Publish again, because something beside the world has changed."""
        self._dirty.set()

    async def run(self, known: asyncio.Event) -> None:
        """Build and publish once the world is known and whenever something has changed, until cancelled."""
        await known.wait()
        self._dirty.set()
        last = float("-inf")
        while True:
            await self._dirty.wait()
            since = self._clock.monotonic()
            await self._clock.sleep(max(0.0, last + SETTLE - since))
            self._dirty.clear()
            self._publish(since)
            self.published.set()
            last = self._clock.monotonic()

    def _publish(self, since: float) -> None:
        self._catch_up()
        before, self.table = self.table, self._live.table
        for namespace in before.namespaces.keys() | self.table.namespaces.keys():
            if before.fronts(namespace) is not self.table.fronts(namespace):
                self.served.changed(namespace)
        touched, self._touched = self._touched, set()
        renewed, self._renewed = self._renewed, set()
        changed = self._translation.update(self._world, self.table, self.held(), touched)
        if self._sent_secrets is not self.secrets:
            self._sent_secrets = self.secrets
            renewed |= self._addresses.keys()
        for namespace in sorted(changed.keys() | renewed):
            self._send(namespace, changed.get(namespace, {}), since)
        self.served.look()
        owners = self._live.take_rerouted() | self._owners_at(touched)
        told = changed.keys() | renewed | {key.namespace for key in touched}
        told |= {owner.partition(" ")[2].partition("/")[0] for owner in owners}
        self.rerouted = frozenset(owners)
        for namespace in sorted(told):
            self._tell(namespace)
        self.rerouted = frozenset()

    def _send(self, namespace: str, changes: Changes, since: float) -> None:
        """Give the routers of a namespace what they should have."""
        before, now = self._addresses.pop(namespace, {}), dict[str, str]()
        closed: set[str] = set()
        for pod in self._world.routers(namespace):
            if address := pod.status.pod_ip:
                now[address] = router_group(namespace, address)
                if self.departures.closed(pod):
                    closed.add(address)
        for address in before.keys() - now.keys():
            self._groups.pop(before[address], None)
            self._own.pop(before[address], None)
            self._refuses.pop(before[address], None)
            self._translation.forget(namespace, address)
            self._server.withdraw(before[address])
        layer = routers_group(namespace)
        if not now:
            self._server.withdraw(layer)
            return
        self._addresses[namespace] = now
        if before:
            self._server.change(layer, changes, since=since)
        else:
            self._server.publish(layer, self._translation.shared(namespace), since=since)
        for address, group in now.items():
            self._groups[group] = namespace
            doors = self._translation.listeners(namespace, address)
            refuses = self._refuses.get(group, NOTHING)
            given, own = self._own.get(group), (doors, address in closed, self.secrets, refuses)
            if given is not None and all(mine is before for mine, before in zip(own, given, strict=True)):
                continue
            self._own[group] = own
            listeners = {DIGEST: doors[DIGEST]} if address in closed else dict(doors)
            if refuses is not NOTHING:
                listeners[DIGEST] = encoded(digest_listener(address, refuses), listener_pb2.Listener())
            self._server.publish(group, {LISTENER: listeners, **self.secrets}, since=since)

    def _owners_at(self, services: set[Key]) -> set[str]:
        """Whose routes lead through these Services."""
        return {
            override.via
            for key in services
            for door in self._live.doors(key)
            for override in self.table.doors[door].overrides.values()
        }

    def _object_changed(self, kind: str, change: Change[Any]) -> None:
        self._changed.add(Changed(kind, change.key))
        if kind == "services":
            self._touched.add(change.key)
        elif kind == "endpoint_slices":
            for record in (change.old, change.new):
                if record is not None and record.service:
                    self._touched.add(Key(change.key.namespace, record.service))
        self._dirty.set()

    def _pod_changed(self, change: Change[Pod]) -> None:
        pod = change.new or change.old
        if change.new is None and change.old is not None:
            self.departures.forget({change.old.metadata.uid})
        if pod is not None and ROUTER in pod.metadata.labels:
            self._renewed.add(change.key.namespace)
            self._dirty.set()
            self.served.look()

    def _router_goes(self, namespace: str) -> None:
        self._renewed.add(namespace)
        self._dirty.set()

    def _client_changed(self, group: str) -> None:
        """Many routers confirm the same at about the same time: who wants to know is told once."""
        if not self._heard:
            asyncio.get_running_loop().call_later(GATHER, self._clients_changed)
        self._heard.add(group)

    def _clients_changed(self) -> None:
        heard, self._heard = self._heard, set()
        namespaces = set()
        for group in heard:
            if (namespace := self._groups.get(group)) is not None:
                self._hear(group, namespace)
                namespaces.add(namespace)
        self.served.look()
        for namespace in sorted(namespaces):
            self._tell(namespace)

    def _hear(self, group: str, namespace: str) -> None:
        """Have a router say to all managers what it refuses: only this one hears it, and another may be the one that reports."""
        refusals = tuple(dict.fromkeys(self._server.refusals(group)))
        if refusals and not self._server.only_refuses(group):
            return  # once nothing is under way
        refuses = Refuses(self.digest(namespace), refusals) if refusals else NOTHING
        if self._server.clients(group) and refuses != self._refuses.get(group, NOTHING):
            self._refuses[group] = refuses
            self._renewed.add(namespace)
            self._dirty.set()

    def _tell(self, namespace: str) -> None:
        for listener in self._listeners:
            listener(namespace)
