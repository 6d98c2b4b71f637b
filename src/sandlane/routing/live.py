"""The route table kept in step with a world that changes a little at a time: the same value as `build`, at the cost of the change.

Everything hangs on routing keys: a key has one owner, so what a change touches is a set of keys, and each is computed anew
and compared with what it was. Pure: `LiveTable` remembers, and does no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from sandlane.api.keys import routing_key
from sandlane.kube.resource import Key
from sandlane.routing.build import front_doors, routes_to
from sandlane.routing.groups import consents, matches
from sandlane.routing.names import SHADOW_OF
from sandlane.routing.overrides import NO_OVERRIDES, Override, Overrides, RoutingKey
from sandlane.routing.table import Door, FrontDoor, RouteTable
from sandlane.routing.tunnels import Held
from sandlane.world.records import LocalWorkload, RouteGroup, Sandbox
from sandlane.world.world import World, ours

KINDS = ("sandboxes", "route_groups", "services", "namespaces", "local_workloads", "deployments")
"""The kinds (attributes of `World`) that the table depends on."""
_Age = tuple[str, Key]
_Targets = list[tuple[Door, Override]]


class Changed(NamedTuple):
    """One object that came, changed or went. `kind` is one of `KINDS`; others are ignored."""

    kind: str
    key: Key


class LiveTable:
    """The table of a world, and what is needed to change it."""

    def __init__(self) -> None:
        self.table = RouteTable()
        self._held: Held = {}
        self._rerouted: set[str] = set()
        self._wanted: dict[Door, Overrides] = {}  # also of doors that are not there (yet)
        self._ports: dict[Key, set[int]] = {}  # Service -> ports with overrides
        self._fronted: dict[Key, list[Door]] = {}  # Service -> its doors in the table
        self._routes: dict[RoutingKey, dict[Door, Override]] = {}
        self._keys: dict[tuple[str, Key], RoutingKey] = {}  # what each Sandbox and RouteGroup claimed
        self._targets: dict[Key, _Targets] = {}  # sandbox -> its routes
        self._members: dict[Key, dict[Key, _Age]] = {}  # group -> matched sandboxes
        self._spans: dict[Key, tuple[str, ...]] = {}  # group -> namespaces that it looks at
        self._groups_at: dict[str, set[Key]] = {}  # namespace -> groups
        self._memberships: dict[Key, set[Key]] = {}  # sandbox -> groups that match it
        self._locals: dict[Key, tuple[str, Key]] = {}  # LocalWorkload -> identity, sandbox
        self._identities: dict[str, Key] = {}  # identity -> LocalWorkload
        self._shadows: dict[Key, Key] = {}  # shadow -> the Service whose shadow it is
        self._selecting: dict[Key, object] = {}  # Service of somebody else -> what decides which Pods it selects

    def routes(self, key: RoutingKey) -> Mapping[Door, Override]:
        """Where a key's requests shall go, whether or not the Services go through a router yet."""
        return self._routes.get(key, {})

    def has_overrides(self, service: Key) -> bool:
        """Whether some key's requests to a Service shall go elsewhere than to its baseline."""
        return bool(self._ports.get(service))

    def doors(self, service: Key) -> list[Door]:
        """The doors of a Service in the table."""
        return self._fronted.get(service, [])

    def take_rerouted(self) -> set[str]:
        """Whose (`Sandbox NAMESPACE/NAME`, ...) routes have changed since this was last asked."""
        found, self._rerouted = self._rerouted, set()
        return found

    def update(self, world: World, changed: Iterable[Changed], held: Held | None = None) -> RouteTable:
        """The table after these changes. `world` is as it is now; nothing else in it may have changed."""
        keys: set[RoutingKey] = set()
        services: set[Key] = set()
        sandboxes: set[Key] = set()
        for change in changed:
            if change.kind == "sandboxes":
                sandboxes.add(change.key)
            elif change.kind == "route_groups":
                self._group_changed(world, change.key, keys)
            elif change.kind == "namespaces":
                for group in list(self._groups_at.get(change.key.name, ())):
                    self._group_changed(world, group, keys)
            elif change.kind == "local_workloads":
                sandboxes |= self._local_changed(world, change.key)
            elif change.kind == "deployments":
                sandboxes |= {_sandbox_of(local) for local in world.local_workloads_from(change.key)}
            elif change.kind == "services":
                sandboxes |= self._service_changed(world, change.key)
                services |= self._doors_of(world, change.key)
        sandboxes |= self._held_changed(held or {})
        for sandbox in sandboxes:
            self._sandbox_changed(world, sandbox, keys)
        services |= self._reroute(world, keys)
        self._open(world, services)
        return self.table

    # -- what a change touches --------------------------------------------------------------------------

    def _sandbox_changed(self, world: World, key: Key, keys: set[RoutingKey]) -> None:
        sandbox = world.sandboxes.get(key)
        self._claim("sandboxes", key, sandbox, keys)
        if sandbox is None:
            self._targets.pop(key, None)
        else:
            self._targets[key] = routes_to(world, sandbox, f"Sandbox {key}", self._held)
        before = self._memberships.get(key, set())
        after = set() if sandbox is None else self._matching(world, sandbox)
        for group in before - after:
            self._members[group].pop(key, None)
        for group in after:
            assert sandbox is not None
            self._members[group][key] = (sandbox.metadata.creation_timestamp, key)
        if after:
            self._memberships[key] = after
        else:
            self._memberships.pop(key, None)
        keys.update(self._keys["route_groups", group] for group in before | after)

    def _matching(self, world: World, sandbox: Sandbox) -> set[Key]:
        return {
            key
            for key in self._groups_at.get(sandbox.metadata.namespace, ())
            if (group := world.route_groups.get(key)) is not None and _matches(world, group, sandbox)
        }

    def _group_changed(self, world: World, key: Key, keys: set[RoutingKey]) -> None:
        group = world.route_groups.get(key)
        self._claim("route_groups", key, group, keys)
        for sandbox in self._members.pop(key, {}):
            self._memberships[sandbox].discard(key)
            if not self._memberships[sandbox]:
                del self._memberships[sandbox]
        for namespace in self._spans.pop(key, ()):
            self._groups_at[namespace].discard(key)
        if group is None:
            return
        span = tuple(dict.fromkeys(group.spec.namespaces or (key.namespace,)))
        self._spans[key] = span
        members = self._members[key] = {}
        for namespace in span:
            self._groups_at.setdefault(namespace, set()).add(key)
            for each in world.sandboxes.namespace(namespace):
                if _matches(world, group, each):
                    name = each.metadata.key
                    members[name] = (each.metadata.creation_timestamp, name)
                    self._memberships.setdefault(name, set()).add(key)

    def _claim(self, kind: str, key: Key, owner: Sandbox | RouteGroup | None, keys: set[RoutingKey]) -> None:
        """Both the key that the owner had and the one that it has now may have another owner."""
        if (before := self._keys.pop((kind, key), None)) is not None:
            keys.add(before)
        if owner is not None:
            now = self._keys[kind, key] = routing_key(owner.metadata.uid, owner.spec.routing_key)
            keys.add(now)

    def _local_changed(self, world: World, key: Key) -> set[Key]:
        local = world.local_workloads.get(key)
        touched = set()
        if (before := self._locals.pop(key, None)) is not None:
            self._identities.pop(before[0], None)
            touched.add(before[1])
        if local is not None:
            self._locals[key] = (local.metadata.uid, _sandbox_of(local))
            self._identities[local.metadata.uid] = key
            touched.add(_sandbox_of(local))
        return touched

    def _held_changed(self, held: Held) -> set[Key]:
        """The sandboxes whose laptops came or went."""
        before, self._held = self._held, dict(held)
        changed = {
            identity
            for identity in before.keys() | held.keys()
            if bool(before.get(identity)) != bool(held.get(identity))
        }
        return {self._locals[self._identities[identity]][1] for identity in changed if identity in self._identities}

    def _service_changed(self, world: World, key: Key) -> set[Key]:
        """The sandboxes with laptops that stand in for what a Service selects or selected."""
        service = world.services.get(key)
        before = self._selecting.pop(key, None)
        now = None
        if service is not None and not ours(service):
            spec = world.original(service).spec
            now = self._selecting[key] = (spec.type, spec.selector, spec.ports)
        if before == now:
            return set()
        return {_sandbox_of(local) for local in world.local_workloads.namespace(key.namespace)}

    def _doors_of(self, world: World, key: Key) -> set[Key]:
        """The Services whose doors depend on one: itself, and those whose shadow it is or was."""
        found = {key}
        if (before := self._shadows.pop(key, None)) is not None:
            found.add(before)
        service = world.services.get(key)
        if service is not None and SHADOW_OF in service.metadata.annotations:
            now = self._shadows[key] = Key(key.namespace, service.metadata.annotations[SHADOW_OF])
            found.add(now)
        return found

    # -- what it comes to -------------------------------------------------------------------------------

    def _reroute(self, world: World, keys: set[RoutingKey]) -> set[Key]:
        """Compute the routes of some keys anew; gives the Services whose overrides changed."""
        changes: dict[Door, dict[RoutingKey, Override | None]] = {}
        for key in keys:
            before, after = self._routes.pop(key, {}), self._routes_of(world, key)
            if after:
                self._routes[key] = after
            for door in before.keys() | after.keys():
                old, new = before.get(door), after.get(door)
                if old != new:
                    changes.setdefault(door, {})[key] = new
                    self._rerouted |= {override.via for override in (old, new) if override is not None}
        for door, some in changes.items():
            wanted = self._wanted.get(door, NO_OVERRIDES).changed(some)
            service = Key(door.namespace, door.service)
            if wanted:
                self._wanted[door] = wanted
                self._ports.setdefault(service, set()).add(door.port)
            else:
                self._wanted.pop(door, None)
                self._ports.get(service, set()).discard(door.port)
                if not self._ports.get(service):
                    self._ports.pop(service, None)
        return {Key(door.namespace, door.service) for door in changes}

    def _routes_of(self, world: World, key: RoutingKey) -> dict[Door, Override]:
        owners = world.with_key(key)
        if not owners:
            return {}
        owner, found = owners[0], dict[Door, Override]()
        name = owner.metadata.key
        if isinstance(owner, Sandbox):
            for door, override in self._targets.get(name, ()):
                found.setdefault(door, override)
        elif not owner.metadata.deleting:
            via = f"RouteGroup {name}"
            for _, sandbox in sorted(self._members.get(name, {}).values()):
                for door, override in self._targets.get(sandbox, ()):
                    if door not in found:
                        found[door] = msgspec.structs.replace(override, via=via)
        return found

    def _open(self, world: World, services: set[Key]) -> None:
        """Make the doors of some Services anew."""
        changes: dict[Door, FrontDoor | None] = {}
        for key in services:
            service = world.services.get(key)
            fronts = {} if service is None else {f.door: f for f in front_doors(world, service, self._wanted)}
            changes |= {door: None for door in self._fronted.pop(key, ()) if door not in fronts}
            changes |= fronts
            if fronts:
                self._fronted[key] = list(fronts)
        if any(self.table.doors.get(door) != front for door, front in changes.items()):
            self.table = self.table.changed(changes)


def _matches(world: World, group: RouteGroup, sandbox: Sandbox) -> bool:
    return (
        not sandbox.metadata.deleting
        and consents(world, group, sandbox.metadata.namespace)
        and matches(group.spec.match, sandbox.metadata.labels)
    )


def _sandbox_of(local: LocalWorkload) -> Key:
    return Key(local.metadata.namespace, local.spec.sandbox)
