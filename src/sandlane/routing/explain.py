"""Which workload serves a request, why, and who would serve it with another key. Pure."""

from __future__ import annotations

import difflib
import ipaddress
from collections.abc import Callable
from urllib.parse import urlsplit

import msgspec

from sandlane.kube.resource import Key
from sandlane.routing.build import build, not_routable, protocol
from sandlane.routing.key import Found
from sandlane.routing.names import SHADOW_OF
from sandlane.routing.rules import BASELINE, Rule, listeners_of, ready_endpoints, rules
from sandlane.routing.table import Door
from sandlane.routing.tunnels import Held
from sandlane.routing.turning import is_right, is_turned
from sandlane.world.records import Service, ServicePort
from sandlane.world.world import World, ours

Served = Callable[[int], int]
"""The port at which a Service's port is really served at its cluster IP (another one on some laptops)."""


class UnknownTarget(LookupError):
    """There is no such Service or port; the message says what there is."""


class Target(msgspec.Struct, frozen=True):
    """What a request is sent to."""

    service: Service
    port: ServicePort
    path: str = "/"

    @property
    def door(self) -> Door:
        """The Service port."""
        return Door(*self.service.metadata.key, self.port.port)


class Answer(msgspec.Struct, frozen=True, rename="camel"):
    """Who serves a request. `why` is for people, one step after the other."""

    namespace: str
    service: str
    port: int
    key: str | None
    key_from: str
    served_by: str
    """`baseline`, `SANDBOX/WORKLOAD`, `SANDBOX/local`, or the workload of a fork's own Service."""
    backend: str
    """The Service whose endpoints take the request, or the LocalWorkload."""
    ready_endpoints: int
    rule: str
    """sandbox | routegroup | none | no-key | unknown-key | not-active | not-by-key"""
    why: tuple[str, ...]
    other_keys: tuple[Rule, ...]


class KeyAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """What a key does everywhere: whose it is, and every Service port where it wants something. `why` is for people."""

    key: str
    key_from: str
    owner: str
    """`Sandbox NAMESPACE/NAME` or `RouteGroup NAMESPACE/NAME`; empty: nobody's."""
    why: tuple[str, ...]
    rules: tuple[Rule, ...]


def explain_key(world: World, found: Found, held: Held | None = None) -> KeyAnswer:
    """What becomes of requests with a key, at whatever Service."""
    holders = world.with_key(found.key)
    carried = f"the key {found.key} comes from the {found.where}"
    if not holders:
        why = (carried, "no Sandbox or RouteGroup has it: the baseline serves every Service")
        return KeyAnswer(found.key, found.where, "", why, ())
    owner = f"{type(holders[0]).__name__} {holders[0].metadata.key}"
    mine = tuple(rule for rule in rules(world, held) if rule.key == found.key and rule.via == owner)
    active = sum(rule.active for rule in mine)
    steps = [carried, f"it is the key of {owner}"]
    steps += [f"{type(each).__name__} {each.metadata.key} has the same key, and is younger" for each in holders[1:]]
    steps.append(f"{active} of {len(mine)} Service ports that it wants lead elsewhere; the baseline serves all others")
    return KeyAnswer(found.key, found.where, owner, tuple(steps), mine)


def find_target(world: World, text: str, namespace: str, served: Served = lambda port: port) -> Target:
    """The Service port that `URL` or `SERVICE[.NAMESPACE][:PORT]` means. Raises `UnknownTarget`."""
    try:
        parts = urlsplit(text if "://" in text else f"//{text}")
        host, number = parts.hostname or "", parts.port
    except ValueError as error:
        raise UnknownTarget(f"{text}: {error}") from None
    if number is None:
        number = {"http": 80, "https": 443}.get(parts.scheme)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    service = _by_address(world, host) or _by_name(world, host, namespace)
    original = world.original(service)
    if number is None and len(original.spec.ports) == 1:
        return Target(service, original.spec.ports[0], path)
    for port in original.spec.ports:
        if number in (port.port, served(port.port)):
            return Target(service, port, path)
    known = ", ".join(f"{port.port}{f' ({port.name})' if port.name else ''}" for port in original.spec.ports) or "none"
    asked = f"has no port {number}" if number is not None else "has several ports: say which"
    raise UnknownTarget(f"Service {service.metadata.key} {asked}; it has: {known}")


def _by_address(world: World, host: str) -> Service | None:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return None
    for service in world.services:
        if host in (service.spec.cluster_ip, *service.spec.cluster_ips):
            return service
    raise UnknownTarget(f"no Service has the cluster IP {host}")


def _by_name(world: World, host: str, namespace: str) -> Service:
    name, _, rest = host.partition(".")
    place = rest.partition(".")[0] or namespace
    found = world.services.get(Key(place, name))
    if found is not None:
        return found
    mine = [each.metadata.name for each in world.services.list(place) if not ours(each)]
    near = difflib.get_close_matches(name, mine, n=3, cutoff=0.5)
    near += [f"{name}.{each.metadata.namespace}" for each in world.services if each.metadata.name == name]
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(sorted(mine)) or 'none'}"
    raise UnknownTarget(f"no Service {name} in namespace {place}; {hint}")


def explain(world: World, target: Target, found: Found | None, held: Held | None = None) -> Answer:
    """Who serves a request to the target that carries this key (or none)."""
    door, service = target.door, target.service
    key = found.key if found else None
    carried = f"the key {key} comes from the {found.where}" if found else "the request carries no routing key"
    if (own := _own(world, target)) is not None:
        served_by, why = own
        others: tuple[Rule, ...] = ()
        backend, rule = door.service, "not-by-key"
        steps = [why]
    else:
        at_door = [rule for rule in rules(world, held) if rule.door == door]
        mine = [rule for rule in at_door if rule.key == key]
        others = tuple(rule for rule in at_door if rule.key != key)
        served_by, rule, steps = _decide(world, target, key, mine)
        backend = next((each.backend for each in mine if each.active), "") or door.service
        if (through := _passage(world, target, held)) is not None:
            steps.append(through)
    place = Key(door.namespace, backend)
    ready = ready_endpoints(world, _baseline_of(world, service, held) if backend == door.service else place)
    if backend == door.service and not ready:
        steps.append(f"no Pod behind Service {door.service} is ready: the request fails")
    source = found.where if found else ""
    return Answer(*door, key, source, served_by, backend, ready, rule, (carried, *steps), others)


def _decide(world: World, target: Target, key: str | None, mine: list[Rule]) -> tuple[str, str, list[str]]:
    """Who serves, by which rule, and why."""
    if key is None:
        return BASELINE, "no-key", ["without a key the baseline serves"]
    owners = world.with_key(key)
    if not owners:
        return BASELINE, "unknown-key", [f"no Sandbox or RouteGroup has the key {key}: the baseline serves"]
    for rule in mine:
        if rule.active:
            steps = [f"{rule.via} has this key, and its route for {rule.door} leads to {rule.served_by}"]
            return rule.served_by, rule.via.partition(" ")[0].lower(), steps + ([rule.message] if rule.message else [])
    if mine:
        steps = [f"{rule.via} wants these requests, but {rule.reason}: {rule.message}" for rule in mine]
        return BASELINE, "not-active", [*steps, "so the baseline serves"]
    owner = owners[0]
    kind = type(owner).__name__
    return (
        BASELINE,
        "none",
        [
            f"{kind} {owner.metadata.key} has this key, and no fork of what Service {target.door.service} selects: the baseline serves"
        ],
    )


def _own(world: World, target: Target) -> tuple[str, str] | None:
    """Who serves a Service of ours, to which no key applies."""
    service = target.service
    if not ours(service):
        return None
    name = service.metadata.name
    if SHADOW_OF in service.metadata.annotations:
        original = service.metadata.annotations[SHADOW_OF]
        return BASELINE, f"Service {name} is the shadow of {original}: the baseline serves, whatever the key"
    for sandbox in world.sandboxes.list(service.metadata.namespace):
        for fork in sandbox.status.forks:
            if any(each.to == name for each in fork.services):
                served_by = f"{sandbox.metadata.name}/{fork.workload}"
                return served_by, f"Service {name} is the fork's own: {served_by} serves, whatever the key"
    return BASELINE, f"Service {name} belongs to Sandlane: its own Pods serve, whatever the key"


def _passage(world: World, target: Target, held: Held | None) -> str | None:
    """How requests get there, where that is worth saying."""
    service, original = target.service, world.original(target.service)
    if why := not_routable(original):
        return f"Service {target.door.service} cannot be routed by key: {why}"
    if (spoken := protocol(target.port)) in ("tcp", "udp"):
        return f"port {target.port.port} is {spoken}: keys are not looked for"
    table = build(world, held)
    if not is_turned(service):
        return f"Service {target.door.service} does not go through a router (nothing needs it to)"
    if not is_right(service, listeners_of(table, service)):
        return f"Service {target.door.service} is turned to the router, but somebody has written it since"
    return f"the routers of namespace {target.door.namespace} decide, request by request"


def _baseline_of(world: World, service: Service, held: Held | None) -> Key:
    """The Service whose endpoints are the baseline's."""
    if not is_turned(service):
        return service.metadata.key
    table = build(world, held)
    for port in service.spec.ports:
        if front := table.doors.get(Door(*service.metadata.key, port.port)):
            return Key(front.baseline.namespace, front.baseline.service)
    return service.metadata.key
