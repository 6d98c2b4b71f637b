"""What every Sandbox and RouteGroup wants of the routers, and what has come of it, in words. Pure.

`sandlane routes`, `sandlane explain` and the routes API say it; it is the same computation as the table that the routers get.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from sandlane.api import reasons
from sandlane.api.keys import routing_key
from sandlane.api.types import ForkStatus, OnDisconnect, WorkloadReference
from sandlane.kube.resource import Key
from sandlane.routing.barriers import barrier
from sandlane.routing.build import Routes, build, not_routable, overrides, protocol, routes_to
from sandlane.routing.groups import matched_sandboxes
from sandlane.routing.table import Door, Override, RouteTable, ServiceBackend
from sandlane.routing.tunnels import Held
from sandlane.routing.turning import is_right, is_turned
from sandlane.world.records import RouteGroup, Sandbox, Service
from sandlane.world.world import World, ours

BASELINE = "baseline"


class Rule(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What becomes of the requests with one key at one Service port.

    `active`: the route table sends them elsewhere than to the baseline. Otherwise `reason` says why not.
    """

    namespace: str
    service: str
    port: int
    key: str
    via: str
    """Whose key it is: `Sandbox NAMESPACE/NAME` or `RouteGroup NAMESPACE/NAME`."""
    sandbox: str
    served_by: str
    """`baseline`, `SANDBOX/WORKLOAD`, or `SANDBOX/local`."""
    active: bool = False
    backend: str = ""
    """The Service whose endpoints take the requests, or the LocalWorkload."""
    reason: str = ""
    message: str = ""

    @property
    def door(self) -> Door:
        """The Service port."""
        return Door(self.namespace, self.service, self.port)


def connected(world: World) -> Held:
    """Which laptops are connected, as the statuses say: for those who cannot ask the tunnel servers themselves."""
    return {
        local.metadata.uid: frozenset({local.status.connection.client})
        for local in world.local_workloads
        if local.status.connection is not None and local.status.connection.tunnels
    }


def rules(world: World, held: Held | None = None) -> list[Rule]:
    """All rules, in order of namespace, Service, port and key."""
    table, routes = build(world, held), overrides(world, held)
    found: list[Rule] = []
    for owner in sorted([*world.sandboxes, *world.route_groups], key=lambda each: each.metadata.key):
        kind = "Sandbox" if isinstance(owner, Sandbox) else "RouteGroup"
        via = f"{kind} {owner.metadata.key}"
        for sandbox in [owner] if isinstance(owner, Sandbox) else matched_sandboxes(world, owner):
            found += _of_sandbox(world, table, routes, owner, sandbox, via, held)
    return sorted(found, key=lambda rule: (rule.door, rule.key, not rule.active, rule.via, rule.sandbox))


def _of_sandbox(
    world: World,
    table: RouteTable,
    routes: Routes,
    owner: Sandbox | RouteGroup,
    sandbox: Sandbox,
    via: str,
    held: Held | None,
) -> Iterable[Rule]:
    key = routing_key(owner.metadata.uid, owner.spec.routing_key)
    has_route = set()
    for door, override in routes_to(world, sandbox, via, held):
        has_route.add(door)
        service = world.services.get(Key(door.namespace, door.service))
        if service is not None:  # otherwise the sandbox's status will follow
            problem = _problem(world, table, routes, owner, key, door, override, service)
            yield _rule(world, door, key, via, override, problem)
    for door, reason, message in _without_route(world, sandbox):
        if door not in has_route:
            name = sandbox.metadata.name
            yield Rule(*door, key, via, name, BASELINE, False, "", reason, reasons.explained(reason, message))


def _rule(world: World, door: Door, key: str, via: str, override: Override, problem: tuple[str, str] | None) -> Rule:
    sandbox = override.sandbox
    if problem is not None:
        reason, message = problem
        return Rule(*door, key, via, sandbox, BASELINE, False, "", reason, reasons.explained(reason, message))
    backend = override.backend
    if isinstance(backend, ServiceBackend):
        name = Key(backend.namespace, backend.service)
        served_by, message = f"{sandbox}/{override.workload}", ""
        if not ready_endpoints(world, name):
            message = "no Pod of the fork is ready now: callers get a 503"
        reason = reasons.PODS_NOT_READY if message else reasons.PROGRAMMED
        return Rule(*door, key, via, sandbox, served_by, True, backend.service, reason, message)
    served_by, name = f"{sandbox}/local", Key(backend.namespace, backend.local_workload)
    if backend.connected:
        return Rule(*door, key, via, sandbox, served_by, True, name.name, reasons.CONNECTED)
    meanwhile = {
        OnDisconnect.FAIL: "callers get a 503",
        OnDisconnect.HOLD: f"callers wait up to {override.hold_seconds} s",
        OnDisconnect.BASELINE: "the baseline answers",
    }[override.on_disconnect]
    to_baseline = override.on_disconnect is OnDisconnect.BASELINE
    message = reasons.explained(reasons.NOT_CONNECTED, f"no laptop is connected: {meanwhile}")
    served_by = BASELINE if to_baseline else served_by
    return Rule(*door, key, via, sandbox, served_by, not to_baseline, name.name, reasons.NOT_CONNECTED, message)


def _problem(
    world: World,
    table: RouteTable,
    routes: Routes,
    owner: Sandbox | RouteGroup,
    key: str,
    door: Door,
    override: Override,
    service: Service,
) -> tuple[str, str] | None:
    """Why a wanted route is not one."""
    if owner.metadata.deleting:
        return reasons.TERMINATING, f"{override.via} is being deleted"
    holder = world.with_key(key)[0]
    if holder is not owner:
        return reasons.ROUTING_KEY_TAKEN, f"{holder.metadata.key} is older and has the same key"
    original = world.original(service)
    if why := not_routable(original):
        return reasons.SERVICE_NOT_ROUTABLE, f"Service {door.service} cannot be routed by key: {why}"
    port = next((each for each in original.spec.ports if each.port == door.port), None)
    if port is None:
        return reasons.SERVICE_NOT_ROUTABLE, f"Service {door.service} has no port {door.port} any more"
    if (spoken := protocol(port)) in ("tcp", "udp") and not override.whole:
        return reasons.SERVICE_NOT_ROUTABLE, f"port {door.port} of Service {door.service} is {spoken}, which has no key"
    winner = routes.get(door, {}).get(key)
    if winner is None or winner.backend != override.backend:
        other = f"sandbox {winner.sandbox} has the route" if winner else "another one has the route"
        return reasons.CONFLICTING_SANDBOXES, other
    front = table.doors.get(door)
    if front is None or not is_turned(service) or not is_right(service, listeners_of(table, service)):
        if why := barrier(world, original):
            return reasons.POLICY_BLOCKS_TRAFFIC, why
        return reasons.PROGRESSING, f"Service {door.service} is being turned to the router"
    return None


def listeners_of(table: RouteTable, service: Service) -> dict[int, int]:
    """The router's ports of a Service, by the Service's ports."""
    doors = (Door(*service.metadata.key, port.port) for port in service.spec.ports)
    return {door.port: table.doors[door].listener for door in doors if door in table.doors}


def _without_route(world: World, sandbox: Sandbox) -> Iterable[tuple[Door, str, str]]:
    """The doors that a sandbox wants and has no route for, with reason and message."""
    namespace = sandbox.metadata.namespace
    by_name = {fork.baseline.name: fork for fork in sandbox.status.forks}
    wanted = [(fork.fork_of, by_name.get(fork.fork_of.name)) for fork in sandbox.spec.forks]
    wanted += [(local.from_, None) for local in sandbox.spec.local]
    for reference, fork in wanted:
        reason, message = _why_without(sandbox, fork)
        for door in _doors(world, namespace, reference, fork):
            yield door, reason, message


def _why_without(sandbox: Sandbox, fork: ForkStatus | None) -> tuple[str, str]:
    name = sandbox.metadata.name
    if sandbox.metadata.deleting:
        return reasons.TERMINATING, f"sandbox {name} is being deleted"
    if sandbox.spec.suspended:
        return reasons.SUSPENDED, f"sandbox {name} is suspended"
    if fork is None:
        return reasons.PENDING, f"sandbox {name} has no such fork yet"
    if fork.ever_ready:
        return reasons.PROGRESSING, f"fork {fork.workload} does not serve this port"
    return fork.reason or reasons.PODS_NOT_READY, fork.message or f"fork {fork.workload} was never ready yet"


def _doors(world: World, namespace: str, reference: WorkloadReference, fork: ForkStatus | None) -> Iterable[Door]:
    if fork is not None and fork.services:
        for service in fork.services:
            numbers = {port.port for port in service.ports} | set(service.missing_ports)
            yield from (Door(namespace, service.from_, number) for number in sorted(numbers))
        return
    baseline = world.baseline(namespace, reference)
    if baseline is None:
        return
    for selecting in world.services_selecting(namespace, baseline.pod_labels):
        if not ours(selecting):
            yield from (Door(namespace, selecting.metadata.name, port.port) for port in selecting.spec.ports)


def ready_endpoints(world: World, service: Key) -> int:
    """How many ready endpoints a Service has."""
    return len(
        {
            address
            for each in world.slices_of(service)
            for endpoint in each.endpoints or ()
            if endpoint.conditions.ready is not False
            for address in endpoint.addresses
        }
    )
