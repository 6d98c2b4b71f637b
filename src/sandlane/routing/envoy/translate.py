"""From the route table to Envoy's resources for the routers of each namespace, kept in step at the cost of what changed.

Per namespace: a fixed number of shards with the routes of all doors, a cluster for each door's baseline and each fork with
several endpoints, and the digest. Per router: a listener for each door. Pure: it remembers, and does no I/O; the same table and
endpoints give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2

from sandlane.api.types import OnDisconnect
from sandlane.kube.resource import Key
from sandlane.routing.envoy.baseline_fallback import instead_cluster, instead_listener
from sandlane.routing.envoy.clusters import addresses, assignment, cluster, fork_clusters, is_sticky
from sandlane.routing.envoy.delta import CLUSTER, ENDPOINTS, ROUTES, SCOPED_ROUTES
from sandlane.routing.envoy.digest import DIGEST, digest_listener, digest_routes
from sandlane.routing.envoy.encode import Config, Resources, encoded
from sandlane.routing.envoy.listeners import DoorOptions, listener
from sandlane.routing.envoy.routes import entry, entry_name, fixed_routes, scopes, shard_name, shard_routes
from sandlane.routing.envoy.tunnel_clusters import (
    INSTEAD,
    or_baseline,
    or_baseline_name,
    tunnel_assignment,
    tunnel_cluster,
)
from sandlane.routing.overrides import NO_OVERRIDES, SHARDS, Overrides, shard_of
from sandlane.routing.table import (
    NO_FRONTS,
    Backend,
    Door,
    FrontDoor,
    Fronts,
    RouteTable,
    RoutingKey,
    ServiceBackend,
    TunnelBackend,
)
from sandlane.routing.tunnels import Held
from sandlane.world.world import World

Changes = dict[str, dict[str, bytes | None]]
"""Type URL -> name -> encoded message, or None for what is gone."""
_ALWAYS = {config["name"]: encoded(config, cluster_pb2.Cluster()) for config in (*fork_clusters(), instead_cluster())}
_INSTEAD = encoded(instead_listener(), listener_pb2.Listener())


class Translation:
    """The resources of all namespaces."""

    def __init__(self, options: DoorOptions | None = None) -> None:
        self._options = options or DoorOptions()
        self._namespaces: dict[str, _Namespace] = {}
        self._listeners: dict[tuple[str, str], _Listeners] = {}

    def update(self, world: World, table: RouteTable, held: Held, touched: set[Key]) -> dict[str, Changes]:
        """Follow a table and a world in which these Services (or their endpoints) were touched; gives the changes by namespace."""
        by_namespace: dict[str, list[Key]] = {}
        for key in touched:
            by_namespace.setdefault(key.namespace, []).append(key)
        places = table.namespaces.keys() | self._namespaces.keys()
        return {
            name: changes
            for name in places
            if (changes := self._namespace(name).update(world, table.fronts(name), held, by_namespace.get(name, ())))
        }

    def shared(self, namespace: str) -> Resources:
        """What is the same for all routers of a namespace, type URL -> name -> encoded message."""
        return self._namespace(namespace).resources

    def listeners(self, namespace: str, address: str) -> dict[str, bytes]:
        """The listeners of one router, which all listen on its own address: the same object as long as they stay the same."""
        known = self._listeners.get((namespace, address)) or _Listeners(address)
        self._listeners[namespace, address] = known
        return known.of(self._namespace(namespace).listeners(self._options))

    def forget(self, namespace: str, address: str) -> None:
        """A router is gone."""
        self._listeners.pop((namespace, address), None)

    def _namespace(self, name: str) -> _Namespace:
        found = self._namespaces.get(name)
        if found is None:
            found = self._namespaces[name] = _Namespace(name)
        return found


class _Listeners:
    """The listeners of one router: those of its namespace's doors, on its address."""

    def __init__(self, address: str) -> None:
        place = listener_pb2.Listener()
        place.address.socket_address.address = address
        self._place: bytes = place.SerializeToString()  # protobuf merges what is there twice
        self._doors: dict[Door, bytes] = {}
        self._always = {DIGEST: encoded(digest_listener(address), listener_pb2.Listener()), INSTEAD: _INSTEAD}
        self._made = self._always

    def of(self, doors: dict[Door, bytes]) -> dict[str, bytes]:
        if doors is not self._doors:
            self._doors = doors
            self._made = self._always | {str(door): data + self._place for door, data in doors.items()}
        return self._made


class _Namespace:
    """The shared resources of one namespace."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.fronts = NO_FRONTS
        self._held: Held = {}
        self._entries: list[dict[str, bytes]] = [{} for _ in range(SHARDS)]
        self._backends: dict[str, Backend] = {}
        self._of_service: dict[Key, set[str]] = {}  # Service -> backends
        self._users: dict[str, set[tuple[Door, RoutingKey]]] = {}  # backend -> routes that lead to it
        self._doors: dict[str, set[Door]] = {}  # backend -> doors whose baseline it is
        scoped, routes = _empty(name)
        mark = {DIGEST: _digest(self.fronts)}
        self.resources: Resources = {
            CLUSTER: dict(_ALWAYS),
            ENDPOINTS: {},
            SCOPED_ROUTES: scoped,
            ROUTES: routes | mark,
        }
        self._changes: Changes = {}
        self._looks: dict[Door, object] = {}
        self._looked_at = NO_FRONTS
        self._listeners: dict[Door, bytes] = {}

    def listeners(self, options: DoorOptions) -> dict[Door, bytes]:
        """The doors' listeners without an address: the same object as long as they stay the same."""
        fronts = self.fronts
        if fronts is self._looked_at:
            return self._listeners
        self._looked_at = fronts
        looks: dict[Door, object] = {
            door: (front.listener, front.protocol, front.baseline, front.sticky, front.edge, front.overrides.whole)
            for door, front in fronts.items()
        }
        if looks != self._looks:
            self._listeners = {
                door: self._listeners[door]
                if looks[door] == self._looks.get(door)
                else encoded(listener(front, options), listener_pb2.Listener())
                for door, front in fronts.items()
            }
            self._looks = looks
        return self._listeners

    def update(self, world: World, fronts: Fronts, held: Held, touched: Iterable[Key]) -> Changes:
        """Follow; gives what is other than before."""
        backends = {name for key in touched for name in self._of_service.get(key, ())}
        if held != self._held:
            backends |= {name for name, backend in self._backends.items() if isinstance(backend, TunnelBackend)}
            self._held = dict(held)
        if fronts is self.fronts and not backends:
            return {}
        work = {user for name in backends for user in self._users.get(name, ())}
        before, self.fronts = self.fronts, fronts
        for door in before.keys() | fronts.keys():
            if before.get(door) is not fronts.get(door):
                work |= self._door_changed(door, before.get(door), fronts.get(door), backends)
        self._changes = {}
        for name in backends:
            self._place(world, name)
        for shard in {self._enter(world, door, key) for door, key in work}:
            self._put(ROUTES, shard_name(self.name, shard), shard_routes(self.name, shard, self._entries[shard]))
        self._put(ROUTES, DIGEST, _digest(fronts))
        return self._changes

    def _door_changed(
        self, door: Door, before: FrontDoor | None, after: FrontDoor | None, backends: set[str]
    ) -> set[tuple[Door, RoutingKey]]:
        """Keep account of which backends are used for what; gives the routes that have to be made anew."""
        look = [front and (front.baseline, front.sticky) for front in (before, after)]
        if look[0] != look[1]:
            if before is not None:
                self._doors[before.baseline.name].discard(door)
                backends.add(before.baseline.name)
            if after is not None:
                self._use(after.baseline)
                self._doors.setdefault(after.baseline.name, set()).add(door)
                backends.add(after.baseline.name)
        work = set()
        old = _by_key(before)
        for key, override in _by_key(after).differences(old):
            user = (door, key)
            if (gone := old.get(key)) is not None:
                self._users[gone.backend.name].discard(user)
                backends.add(gone.backend.name)
            if override is not None:
                self._use(override.backend)
                self._users.setdefault(override.backend.name, set()).add(user)
                backends.add(override.backend.name)
            work.add(user)
        return work

    def _use(self, backend: Backend) -> None:
        self._backends[backend.name] = backend
        if isinstance(backend, ServiceBackend):
            self._of_service.setdefault(backend.key, set()).add(backend.name)

    def _place(self, world: World, name: str) -> None:
        """Give a backend the cluster that it needs, or none."""
        backend, doors, users = self._backends[name], self._doors.get(name), self._users.get(name)
        config: Config | None = None
        if isinstance(backend, TunnelBackend):
            config, hosts = tunnel_cluster(backend), tunnel_assignment(backend, self._held)
            reachable = any(self._stands_in(*user) for user in users or ())
            both = encoded(or_baseline(backend), cluster_pb2.Cluster()) if reachable else None
            self._put(CLUSTER, or_baseline_name(backend), both)
        elif doors or len(addresses(world, backend)) > 1:
            sticky = any(self.fronts[door].sticky for door in doors or ()) or is_sticky(world, backend)
            config, hosts = cluster(backend, sticky=sticky), assignment(world, backend)
        if config is None or not (doors or users):
            self._put(CLUSTER, name, None)
            self._put(ENDPOINTS, name, None)
        else:
            self._put(CLUSTER, name, encoded(config, cluster_pb2.Cluster()))
            self._put(ENDPOINTS, name, encoded(hosts, endpoint_pb2.ClusterLoadAssignment()))
        if not doors and not users:
            del self._backends[name]
            self._doors.pop(name, None)
            self._users.pop(name, None)
            if isinstance(backend, ServiceBackend):
                self._of_service[backend.key].discard(name)
                if not self._of_service[backend.key]:
                    del self._of_service[backend.key]

    def _stands_in(self, door: Door, key: RoutingKey) -> bool:
        """Whether the baseline does, for a laptop."""
        return _by_key(self.fronts[door])[key].on_disconnect is OnDisconnect.BASELINE

    def _enter(self, world: World, door: Door, key: RoutingKey) -> int:
        """Make one route anew, or take it out; gives its shard."""
        shard, name, front = shard_of(key), entry_name(door, key), self.fronts.get(door)
        override = _by_key(front).get(key)
        if front is None or override is None:
            self._entries[shard].pop(name, None)
        else:
            backend = override.backend
            found = addresses(world, backend) if isinstance(backend, ServiceBackend) else []
            sticky = isinstance(backend, ServiceBackend) and is_sticky(world, backend)
            self._entries[shard][name] = entry(front, key, override, found, sticky=sticky)
        return shard

    def _put(self, type_url: str, name: str, data: bytes | None) -> None:
        named = self.resources[type_url]
        if named.get(name) == data:
            return
        self._changes.setdefault(type_url, {})[name] = data
        if data is None:
            del named[name]
        else:
            named[name] = data


@lru_cache(maxsize=64)
def _empty(namespace: str) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The scopes of a namespace, its shards without any entry, and the routes beside them."""
    names = ((shard_name(namespace, shard), shard) for shard in range(SHARDS))
    return scopes(namespace), {name: shard_routes(namespace, shard, {}) for name, shard in names} | fixed_routes(
        namespace
    )


def _by_key(front: FrontDoor | None) -> Overrides:
    """The overrides that count: where keys are looked for at all."""
    if front is None:
        return NO_OVERRIDES
    return front.overrides if front.protocol in ("http", "sniff") else front.overrides.only_whole


_DIGEST = route_pb2.RouteConfiguration.FromString(encoded(digest_routes(""), route_pb2.RouteConfiguration()))


def _digest(fronts: Fronts) -> bytes:
    _DIGEST.virtual_hosts[0].routes[0].direct_response.body.inline_string = fronts.digest
    return bytes(_DIGEST.SerializeToString(deterministic=True))
