"""How many replicas each ReplicaSet of a Deployment should have next: pure arithmetic.

The rules are those of the Deployment API (`spec.strategy`): never more than replicas + maxSurge Pods, never fewer than
replicas - maxUnavailable available ones, and a scaled Deployment keeps the proportions of a rollout under way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from sandlane.kube.resource import Object
from sandlane.local.controllers.deployment.revision import DESIRED, MAX, oldest_first
from sandlane.local.controllers.objects import annotations_of

Sizes = dict[str, int]
"""ReplicaSet name -> replicas it should have; only those that change."""


def share(value: int | str, of: int, *, up: bool) -> int:
    """An IntOrString such as `25%` as a number of replicas."""
    if isinstance(value, str):
        exact = int(value.removesuffix("%")) * of / 100
        return math.ceil(exact) if up else math.floor(exact)
    return value


def bounds(deployment: Object) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) in replicas. Both zero would never move: then one may be unavailable."""
    spec = deployment["spec"]
    strategy = spec.get("strategy") or {}
    if strategy.get("type", "RollingUpdate") != "RollingUpdate":
        return 0, 0
    rolling, replicas = strategy.get("rollingUpdate") or {}, spec.get("replicas", 1)
    surge = share(rolling.get("maxSurge", "25%"), replicas, up=True)
    unavailable = share(rolling.get("maxUnavailable", "25%"), replicas, up=False)
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return surge, min(unavailable, replicas)


def size(replica_set: Object) -> int:
    """`spec.replicas`."""
    return int(replica_set["spec"].get("replicas", 1))


def available(replica_set: Object) -> int:
    """`status.availableReplicas`."""
    return int((replica_set.get("status") or {}).get("availableReplicas") or 0)


def grow_new(deployment: Object, new: Object, olds: Sequence[Object]) -> Sizes:
    """Make the new ReplicaSet as large as maxSurge lets it be."""
    replicas, now = deployment["spec"].get("replicas", 1), size(new)
    if now == replicas:
        return {}
    if now > replicas:
        return {new["metadata"]["name"]: replicas}
    surge, _ = bounds(deployment)
    room = replicas + surge - now - sum(map(size, olds))
    return {new["metadata"]["name"]: now + min(room, replicas - now)} if room > 0 else {}


def shrink_old(deployment: Object, new: Object, olds: Sequence[Object]) -> Sizes:
    """Take from old ReplicaSets what is not needed: first replicas that are not available anyway, oldest first."""
    _, unavailable = bounds(deployment)
    least = deployment["spec"].get("replicas", 1) - unavailable
    spare = size(new) + sum(map(size, olds)) - least - (size(new) - available(new))
    if spare <= 0:
        return {}
    sizes = {old["metadata"]["name"]: size(old) for old in olds}
    ordered = [old for old in oldest_first(olds) if size(old) > 0]
    for old in ordered:  # those that serve nobody
        broken = min(spare, size(old) - available(old))
        if broken > 0:
            sizes[old["metadata"]["name"]] -= broken
            spare -= broken
    spare = sum(map(available, [new, *olds])) - least
    for old in ordered:
        name = old["metadata"]["name"]
        fewer = min(sizes[name], max(spare, 0))
        sizes[name] -= fewer
        spare -= fewer
    return {
        old["metadata"]["name"]: sizes[old["metadata"]["name"]]
        for old in olds
        if sizes[old["metadata"]["name"]] != size(old)
    }


def was_scaled(deployment: Object, replica_sets: Sequence[Object]) -> bool:
    """Whether `spec.replicas` changed since the ReplicaSets were last sized."""
    wanted = str(deployment["spec"].get("replicas", 1))
    return any(annotations_of(rs).get(DESIRED, wanted) != wanted for rs in replica_sets if size(rs) > 0)


def scale(deployment: Object, new: Object | None, olds: Sequence[Object]) -> Sizes:
    """Follow a changed `spec.replicas` (also while paused), in proportion when several ReplicaSets are active."""
    replicas = deployment["spec"].get("replicas", 1)
    everyone = [*olds, *([new] if new else [])]
    active = [rs for rs in everyone if size(rs) > 0]
    if len(active) <= 1:
        only = active[0] if active else new or (oldest_first(olds)[-1] if olds else None)
        return {only["metadata"]["name"]: replicas} if only and size(only) != replicas else {}
    if new is not None and size(new) == replicas == available(new):
        return {old["metadata"]["name"]: 0 for old in olds if size(old) > 0}
    if (deployment["spec"].get("strategy") or {}).get("type", "RollingUpdate") != "RollingUpdate":
        return {}
    return _in_proportion(deployment, active)


def _in_proportion(deployment: Object, active: Sequence[Object]) -> Sizes:
    replicas = deployment["spec"].get("replicas", 1)
    most = replicas + bounds(deployment)[0] if replicas > 0 else 0
    change = most - sum(map(size, active))
    ordered = oldest_first(active)
    if change > 0:
        ordered.reverse()
    ordered.sort(key=size, reverse=True)
    sizes, left = {rs["metadata"]["name"]: size(rs) for rs in ordered}, change
    for rs in ordered if change else ():
        name = rs["metadata"]["name"]
        part = _fraction(rs, most, replicas)
        part = max(min(part, left), 0) if change > 0 else min(max(part, left), 0)
        sizes[name] += part
        left -= part
    if ordered and left:
        name = ordered[0]["metadata"]["name"]
        sizes[name] = max(sizes[name] + left, 0)
    return {
        rs["metadata"]["name"]: sizes[rs["metadata"]["name"]]
        for rs in ordered
        if sizes[rs["metadata"]["name"]] != size(rs)
    }


def _fraction(replica_set: Object, most: int, replicas: int) -> int:
    if replicas == 0:
        return -size(replica_set)
    text = annotations_of(replica_set).get(MAX, "")
    before = int(text) if text.isdigit() and int(text) > 0 else most
    return math.floor(size(replica_set) * most / before + 0.5) - size(replica_set)
