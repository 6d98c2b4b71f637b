"""What a RouteGroup comes to: its sandboxes, its part of the route table, its conflicts. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from sandlane.api import reasons
from sandlane.api.keys import routing_key
from sandlane.api.types import CompiledRoute, MatchedSandbox, RouteConflict
from sandlane.api.validation import check_route_group
from sandlane.kube.resource import Key
from sandlane.preview.plan import problems
from sandlane.routing.build import routes_to
from sandlane.routing.groups import Conflict, conflicts, consents, matched_sandboxes
from sandlane.routing.table import Door, Override, TunnelBackend
from sandlane.runtime.conditions import is_true
from sandlane.world.records import RouteGroup, Sandbox
from sandlane.world.world import World

SHOWN = 100
"""The most routes, conflicts and sandboxes of one conflict in a status; and ten times as many matched sandboxes."""


class Compiled(msgspec.Struct, frozen=True):
    """A group as it is now. `refused` is a reason and a message; then there are no routes."""

    routing_key: str
    sandboxes: tuple[MatchedSandbox, ...] = ()
    """All that match, the oldest first."""
    routes: tuple[CompiledRoute, ...] = ()
    route_count: int = 0
    conflicts: tuple[RouteConflict, ...] = ()
    refused: tuple[str, str] | None = None
    not_consenting: tuple[str, ...] = ()
    unserved: Mapping[str, str] = {}
    """Why endpoints are not served, by name."""


def compile_group(world: World, group: RouteGroup) -> Compiled:
    """Compile a group that is not being deleted."""
    metadata, spec = group.metadata, group.spec
    key = routing_key(metadata.uid, spec.routing_key)
    found = matched_sandboxes(world, group)
    matched = tuple(_matched(each, metadata.namespace) for each in found)
    findings = check_route_group(metadata.namespace, spec)
    if findings.errors:
        return Compiled(key, matched, refused=(reasons.INVALID_SPEC, findings.message))
    holders = world.with_key(key)
    if holders and holders[0].metadata.uid != metadata.uid:
        problem = f"spec.routingKey: {type(holders[0]).__name__} {holders[0].metadata.key} has the key {key!r}"
        return Compiled(key, matched, refused=(reasons.ROUTING_KEY_TAKEN, problem))
    routes = _routes(world, found, f"RouteGroup {metadata.key}")
    shown = [_shown(door, routes[door], metadata.namespace) for door in sorted(routes)[:SHOWN]]
    return Compiled(
        key,
        sandboxes=matched,
        routes=tuple(shown),
        route_count=len(routes),
        conflicts=tuple(_conflict(each, metadata.namespace) for each in conflicts(found)),
        unserved=problems(world, metadata.namespace, spec.endpoints),
        not_consenting=tuple(name for name in spec.namespaces if not consents(world, group, name)),
    )


def _routes(world: World, sandboxes: list[Sandbox], via: str) -> dict[Door, Override]:
    """Where the group's key leads; of two sandboxes the older one counts."""
    found: dict[Door, Override] = {}
    for sandbox in sandboxes:
        for door, override in routes_to(world, sandbox, via):
            found.setdefault(door, override)
    return found


def _conflict(conflict: Conflict, namespace: str) -> RouteConflict:
    elsewhere = "" if conflict.namespace == namespace else conflict.namespace
    return RouteConflict(
        msgspec.structs.replace(conflict.baseline, namespace=elsewhere),
        tuple(_name(each, namespace) for each in conflict.sandboxes[:SHOWN]),
        _name(conflict.winner, namespace),
    )


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
