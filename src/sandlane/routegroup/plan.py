"""What a RouteGroup comes to: its sandboxes, its part of the route table, its conflicts. Pure."""

from __future__ import annotations

import msgspec

from sandlane.api import reasons
from sandlane.api.keys import routing_key
from sandlane.api.types import CompiledRoute, MatchedSandbox, RouteConflict
from sandlane.api.validation import check_route_group
from sandlane.kube.resource import Key
from sandlane.routing.build import sandbox_routes
from sandlane.routing.groups import conflicts, consents, matched_sandboxes
from sandlane.routing.table import Door, Override, TunnelBackend
from sandlane.runtime.conditions import is_true
from sandlane.world.records import RouteGroup, Sandbox
from sandlane.world.world import World

SHOWN_ROUTES = 100


class Compiled(msgspec.Struct, frozen=True):
    """A group as it is now. `refused` is a reason and a message; then there are no routes."""

    routing_key: str
    sandboxes: tuple[MatchedSandbox, ...] = ()
    routes: tuple[CompiledRoute, ...] = ()
    route_count: int = 0
    conflicts: tuple[RouteConflict, ...] = ()
    refused: tuple[str, str] | None = None
    not_consenting: tuple[str, ...] = ()


def compile_group(world: World, group: RouteGroup) -> Compiled:
    """Compile a group that is not being deleted."""
    metadata, spec = group.metadata, group.spec
    key = routing_key(metadata.uid, spec.routing_key)
    findings = check_route_group(metadata.namespace, spec)
    if findings.errors:
        return Compiled(key, refused=(reasons.INVALID_SPEC, findings.message))
    holders = world.with_key(key)
    if holders and holders[0].metadata.uid != metadata.uid:
        problem = f"spec.routingKey: {type(holders[0]).__name__} {holders[0].metadata.key} has the key {key!r}"
        return Compiled(key, refused=(reasons.ROUTING_KEY_TAKEN, problem))
    found = matched_sandboxes(world, group)
    routes = _routes(found, f"RouteGroup {metadata.key}")
    shown = [_shown(door, routes[door], metadata.namespace) for door in sorted(routes)[:SHOWN_ROUTES]]
    return Compiled(
        key,
        sandboxes=tuple(_matched(each, metadata.namespace) for each in found),
        routes=tuple(shown),
        route_count=len(routes),
        conflicts=tuple(
            RouteConflict(
                each.baseline,
                tuple(_name(one, metadata.namespace) for one in each.sandboxes),
                _name(each.winner, metadata.namespace),
            )
            for each in conflicts(found)
        ),
        not_consenting=tuple(name for name in spec.namespaces if not consents(world, group, name)),
    )


def _routes(sandboxes: list[Sandbox], via: str) -> dict[Door, Override]:
    """Where the group's key leads; of two sandboxes the older one counts."""
    found: dict[Door, Override] = {}
    for sandbox in sandboxes:
        for door, override in sandbox_routes(sandbox, via):
            found.setdefault(door, override)
    return found


def _matched(sandbox: Sandbox, namespace: str) -> MatchedSandbox:
    own = sandbox.metadata.namespace
    ready = is_true(sandbox.status.conditions, "Ready")
    return MatchedSandbox(sandbox.metadata.name, ready, "" if own == namespace else own)


def _shown(door: Door, override: Override, namespace: str) -> CompiledRoute:
    backend = override.backend
    to = backend.local_workload if isinstance(backend, TunnelBackend) else backend.service
    elsewhere = "" if door.namespace == namespace else door.namespace
    return CompiledRoute(door.service, door.port, override.sandbox, to, elsewhere)


def _name(key: Key, namespace: str) -> str:
    return key.name if key.namespace == namespace else str(key)
