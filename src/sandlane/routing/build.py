"""From the world to the route table. Pure: what it needs of the past is in the resources' status."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from sandlane.api.keys import routing_key
from sandlane.api.labels import EDGE, ROUTING
from sandlane.kube.resource import Key
from sandlane.routing.groups import matched_sandboxes
from sandlane.routing.names import LISTENERS, SHADOW_OF, shadow_name
from sandlane.routing.overrides import NO_OVERRIDES, Overrides
from sandlane.routing.table import Door, FrontDoor, Override, RouteTable, ServiceBackend, TunnelBackend
from sandlane.routing.tunnels import Held
from sandlane.world.records import Deployment, LocalWorkload, Sandbox, Service, ServicePort
from sandlane.world.world import World

HTTP = ("http", "http2", "h2c", "grpc", "grpc-web", "ws", "kubernetes.io/h2c", "kubernetes.io/ws")
OPAQUE = (
    "tcp",
    "tls",
    "https",
    "mysql",
    "postgres",
    "redis",
    "mongo",
    "kafka",
    "amqp",
    "nats",
    "kubernetes.io/wss",
    "wss",
)
ON_DEMAND, ALWAYS, NEVER = "on-demand", "always", "never"
NONE = "none"

Routes = dict[Door, dict[str, Override]]


def build(world: World, held: Held | None = None) -> RouteTable:
    """The table of everything that is known; `held` says which laptops are connected."""
    routes = overrides(world, held)
    made = {door: Overrides.of(found) for door, found in routes.items()}
    return RouteTable.of(front for service in world.services for front in front_doors(world, service, made))


def overrides(world: World, held: Held | None = None) -> Routes:
    """For each door the destination of each key, whether or not the Service goes through a router yet."""
    routes: Routes = {}
    for sandbox in sorted(world.sandboxes, key=_age):
        key = routing_key(sandbox.metadata.uid, sandbox.spec.routing_key)
        if world.with_key(key)[0] is not sandbox:
            continue  # an older object has the key
        for door, override in routes_to(world, sandbox, f"Sandbox {sandbox.metadata.key}", held):
            routes.setdefault(door, {}).setdefault(key, override)
    for group in sorted(world.route_groups, key=_age):
        if group.metadata.deleting:
            continue
        key = routing_key(group.metadata.uid, group.spec.routing_key)
        if world.with_key(key)[0] is not group:
            continue
        for sandbox in matched_sandboxes(world, group):  # the oldest first: it wins
            for door, override in routes_to(world, sandbox, f"RouteGroup {group.metadata.key}", held):
                routes.setdefault(door, {}).setdefault(key, override)
    return routes


def routes_to(world: World, sandbox: Sandbox, via: str, held: Held | None = None) -> list[tuple[Door, Override]]:
    """The routes to a sandbox: to its forks, and to the laptops that stand in for workloads of it."""
    found = list(sandbox_routes(sandbox, via))
    if sandbox.metadata.deleting or sandbox.spec.suspended:
        return found
    for local in world.local_workloads_of(sandbox.metadata.key):
        found += local_routes(world, local, via, held)
    return found


def local_routes(world: World, local: LocalWorkload, via: str, held: Held | None = None) -> list[tuple[Door, Override]]:
    """The routes to one laptop: a door for each Service port that ends at a mapped container port."""
    namespace, identity = local.metadata.namespace, local.metadata.uid
    baseline = world.baseline(namespace, local.spec.from_)
    if local.metadata.deleting or baseline is None:
        return []
    mapped = {mapping.port: mapping for mapping in local.spec.mappings}
    connected = bool((held or {}).get(identity))
    found = []
    for service, port, number in service_ports(world, baseline):
        if number not in mapped or port.protocol != "TCP":
            continue
        backend = TunnelBackend(namespace, local.metadata.name, identity, number, connected)
        override = Override(
            backend,
            local.spec.sandbox,
            via,
            local.metadata.name,
            local.spec.on_disconnect,
            local.spec.hold_seconds,
            whole=mapped[number].all_connections and protocol(port) in ("tcp", "sniff"),
        )
        found.append((Door(namespace, service.metadata.name, port.port), override))
    return found


def service_ports(world: World, baseline: Deployment) -> Iterable[tuple[Service, ServicePort, int]]:
    """The ports of Services that end at a workload, each with the container port that it ends at."""
    declared = reversed(baseline.spec.template.spec.ports())  # of two with the same name the first one counts
    numbers = {port.name: port.container_port for port in declared if port.name}
    for service in world.services_selecting(baseline.metadata.namespace, baseline.pod_labels):
        for port in service.spec.ports:
            number = port.target if isinstance(port.target, int) else numbers.get(port.target)
            if number is not None:
                yield service, port, number


def sandbox_routes(sandbox: Sandbox, via: str) -> Iterable[tuple[Door, Override]]:
    """The routes of one sandbox: those of forks that were ever ready. None while it is going or suspended."""
    if sandbox.metadata.deleting or sandbox.spec.suspended:
        return
    namespace = sandbox.metadata.namespace
    wanted = {fork.fork_of.name for fork in sandbox.spec.forks}
    for fork in sandbox.status.forks:
        if not fork.ever_ready or fork.baseline.name not in wanted:
            continue
        for service in fork.services:
            for port in service.ports:
                backend = ServiceBackend(namespace, service.to, port.port)
                door = Door(namespace, service.from_, port.port)
                yield door, Override(backend, sandbox.metadata.name, via, fork.workload)


def listeners(world: World, service: Service) -> Mapping[int, int]:
    """The router's port for each port of a Service, as remembered on its shadow; empty when it has none."""
    shadow = world.services.get(Key(service.metadata.namespace, shadow_name(service.metadata.name)))
    if shadow is None or LISTENERS not in shadow.metadata.annotations:
        return {}
    owner = shadow.metadata.controller
    if owner is None or owner.uid != service.metadata.uid:
        return {}
    if shadow.metadata.annotations.get(SHADOW_OF) != service.metadata.name:
        return {}
    try:
        return msgspec.json.decode(shadow.metadata.annotations[LISTENERS], type=dict[int, int])
    except msgspec.MsgspecError:
        return {}


def front_doors(world: World, service: Service, overrides: Mapping[Door, Overrides]) -> Iterable[FrontDoor]:
    """The doors of one Service that has a shadow."""
    remembered = listeners(world, service)
    if not remembered:
        return
    namespace, name = service.metadata.key
    original = world.original(service)
    for port in original.spec.ports:
        listener = remembered.get(port.port)
        if listener is None:
            continue
        door = Door(namespace, name, port.port)
        baseline = ServiceBackend(namespace, shadow_name(name), port.port)
        yield FrontDoor(
            door,
            listener,
            protocol(port),
            baseline,
            overrides.get(door, NO_OVERRIDES),
            sticky=original.spec.session_affinity == "ClientIP",
            edge=is_edge(service),
        )


def protocol(port: ServicePort) -> str:
    """http | tcp | udp | sniff: from appProtocol, then the port's name, then by looking at what arrives."""
    if port.protocol != "TCP":
        return port.protocol.lower()
    for hint in (port.app_protocol or "", port.name, port.name.partition("-")[0]):
        if hint.lower() in HTTP:
            return "http"
        if hint.lower() in OPAQUE:
            return "tcp"
    return "sniff"


def is_edge(service: Service) -> bool:
    """Whether the Service's requests come from outside, so that their routing keys do not count. A typing error counts as yes."""
    return service.metadata.annotations.get(EDGE, NONE) not in (NONE, "")


def mode(service: Service) -> str:
    """The Service's `sandlane.dev/routing`; the edge always goes through the router."""
    if is_edge(service):
        return ALWAYS
    wanted = service.metadata.annotations.get(ROUTING, ON_DEMAND)
    return wanted if wanted in (ALWAYS, NEVER) else ON_DEMAND


def not_routable(service: Service) -> str:
    """Why a Service (as its owner wrote it) cannot go through a router; empty when it can."""
    spec = service.spec
    if spec.type == "ExternalName":
        return "it is an ExternalName Service, which has no endpoints of its own"
    if service.headless:
        return "it is headless: clients reach its Pods without going through the Service"
    if not spec.selector:
        return "it has no selector, so its endpoints are managed by somebody else"
    if "Local" in (spec.internal_traffic_policy, spec.external_traffic_policy):
        return "its traffic policy is Local, which a router on another node would break"
    if mode(service) == NEVER:
        return f"its annotation {ROUTING} is never"
    return ""


def _age(record: object) -> tuple[str, Key]:
    metadata = record.metadata  # type: ignore[attr-defined]
    return metadata.creation_timestamp, metadata.key
