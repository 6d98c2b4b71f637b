"""Which sandboxes a RouteGroup matches, and which of two that replace the same baseline has the route. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fnmatch import translate
from functools import lru_cache
from typing import Any

import msgspec

from sandlane.api.labels import ALLOW_ROUTE_GROUPS
from sandlane.api.types import Match, WorkloadReference
from sandlane.kube.resource import Key
from sandlane.world.records import RouteGroup, Sandbox
from sandlane.world.world import World


class Conflict(msgspec.Struct, frozen=True):
    """Matched sandboxes, oldest first, that replace the same baseline; the first has the route."""

    namespace: str
    baseline: WorkloadReference
    sandboxes: tuple[Key, ...]

    @property
    def winner(self) -> Key:
        """Whose route counts."""
        return self.sandboxes[0]


def matches(match: Match, labels: Mapping[str, str]) -> bool:
    """Whether labels satisfy a match: any, all, or a label whose value fits a glob (`*`, `?`, `[a-z]`)."""
    if match.any is not None:
        return any(matches(each, labels) for each in match.any)
    if match.all is not None:
        return all(matches(each, labels) for each in match.all)
    if match.label is None:
        return False
    value = labels.get(match.label.key)
    return value is not None and bool(_glob(match.label.value)(value))


@lru_cache(4096)
def _glob(pattern: str) -> Callable[[str], Any]:
    """A test of texts; most patterns are plain ones."""
    return re.compile(translate(pattern)).match if set("*?[") & set(pattern) else pattern.__eq__


def consents(world: World, group: RouteGroup, namespace: str) -> bool:
    """Whether a namespace lets a group match its sandboxes: the group's own does, others by annotation."""
    own = group.metadata.namespace
    if namespace == own:
        return True
    found = world.namespaces.get(Key("", namespace))
    allowed = found.metadata.annotations.get(ALLOW_ROUTE_GROUPS, "") if found else ""
    return bool({own, "*"} & {name.strip() for name in allowed.split(",")})


def belongs(world: World, group: RouteGroup, sandbox: Sandbox) -> bool:
    """Whether a group has a sandbox."""
    metadata = sandbox.metadata
    return (
        not metadata.deleting
        and metadata.namespace in (group.spec.namespaces or (group.metadata.namespace,))
        and matches(group.spec.match, metadata.labels)
        and consents(world, group, metadata.namespace)
    )


def matched_sandboxes(world: World, group: RouteGroup) -> list[Sandbox]:
    """The sandboxes of a group that are not going, the oldest first."""
    namespaces = group.spec.namespaces or (group.metadata.namespace,)
    found = [
        sandbox
        for namespace in dict.fromkeys(namespaces)
        if consents(world, group, namespace)
        for sandbox in world.sandboxes.namespace(namespace)
        if not sandbox.metadata.deleting and matches(group.spec.match, sandbox.metadata.labels)
    ]
    return sorted(found, key=age)


def age(sandbox: Sandbox) -> tuple[str, Key]:
    """The order of sandboxes: of two that replace the same baseline the first counts."""
    return sandbox.metadata.creation_timestamp, sandbox.metadata.key


def replaced(sandbox: Sandbox) -> list[tuple[str, WorkloadReference]]:
    """The baselines that a sandbox replaces, with their namespaces."""
    references = [fork.fork_of for fork in sandbox.spec.forks] + [local.from_ for local in sandbox.spec.local]
    return [
        (each.namespace or sandbox.metadata.namespace, msgspec.structs.replace(each, namespace=""))
        for each in references
    ]


def conflicts(sandboxes: list[Sandbox]) -> list[Conflict]:
    """Baselines that more than one of the sandboxes (oldest first) replaces."""
    by_baseline: dict[tuple[str, WorkloadReference], list[Key]] = {}
    for sandbox in sandboxes:
        for baseline in replaced(sandbox):
            by_baseline.setdefault(baseline, []).append(sandbox.metadata.key)
    return [
        Conflict(place, reference, tuple(keys)) for (place, reference), keys in by_baseline.items() if len(keys) > 1
    ]
