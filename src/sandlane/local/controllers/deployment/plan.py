"""What to do for a Deployment, given its ReplicaSets: a pure function to the writes of one pass.

Each pass takes one step (create, scale, or tidy up) and always computes the status; the next observation of a
ReplicaSet triggers the next pass, so nothing is remembered between passes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sandlane.kube.resource import Object
from sandlane.local.controllers.deployment import rolling
from sandlane.local.controllers.deployment.revision import (
    DESIRED,
    MAX,
    REVISION,
    annotations_for,
    find_new,
    make_replica_set,
    oldest_first,
    revision_of,
)
from sandlane.local.controllers.deployment.status import deadline_left, is_complete, make_status
from sandlane.local.controllers.objects import annotations_of, condition, deleting


@dataclass(frozen=True)
class Plan:
    """The writes of one pass, in this order, and when to look again even if nothing happens (seconds)."""

    status: Object
    create: Object | None = None
    patches: Mapping[str, Object] = field(default_factory=dict)  # ReplicaSet name -> merge patch
    delete: tuple[str, ...] = ()
    revision: str | None = None  # the Deployment's revision annotation, if it must change
    again_after: float | None = None


def make_plan(
    deployment: Object, replica_sets: Sequence[Object], *, running_old_pods: bool, collisions: int, now: datetime
) -> Plan:
    """The next step. `replica_sets` are those it controls; `running_old_pods` matters to strategy Recreate alone."""
    spec = deployment["spec"]
    new = find_new(deployment, replica_sets)
    olds = [rs for rs in replica_sets if rs is not new]
    create: Object | None = None
    patches: dict[str, Object] = {}
    delete: tuple[str, ...] = ()

    if not deleting(deployment):
        if spec.get("paused") or rolling.was_scaled(deployment, replica_sets):
            patches = _resize(deployment, replica_sets, rolling.scale(deployment, new, olds))
        elif (spec.get("strategy") or {}).get("type") == "Recreate":
            create, patches = _recreate(deployment, new, olds, running_old_pods)
        else:
            create, patches = _roll(deployment, new, olds)
        if new is not None and not spec.get("paused"):
            _sync_annotations(deployment, new, olds, patches)
    made = create or new
    status = make_status(deployment, made, olds, created=create is not None, collisions=collisions, now=now)
    if not deleting(deployment) and not patches and create is None and is_complete(deployment, status):
        delete = _outdated(deployment, olds)
    revision = None
    if made is not None and not deleting(deployment):
        current = _patched_revision(made, patches)
        revision = current if annotations_of(deployment).get(REVISION) != current else None
    return Plan(status, create, patches, delete, revision, _again(deployment, status, now))


def _again(deployment: Object, status: Object, now: datetime) -> float | None:
    progressing = condition({"status": status}, "Progressing")
    left = deadline_left(deployment, progressing, now) if progressing else None
    return None if left is None else max(left, 0.0) + 1.0  # timestamps are whole seconds


def _most(deployment: Object) -> int:
    return int(deployment["spec"].get("replicas", 1)) + rolling.bounds(deployment)[0]


def _next_revision(olds: Sequence[Object]) -> int:
    return max(map(revision_of, olds), default=0) + 1


def _roll(deployment: Object, new: Object | None, olds: Sequence[Object]) -> tuple[Object | None, dict[str, Object]]:
    replicas, most = deployment["spec"].get("replicas", 1), _most(deployment)
    if new is None:
        room = max(min(most - sum(map(rolling.size, olds)), replicas), 0)
        return make_replica_set(deployment, _next_revision(olds), room, most), {}
    sizes = rolling.grow_new(deployment, new, olds) or rolling.shrink_old(deployment, new, olds)
    return None, _resize(deployment, [new, *olds], sizes)


def _recreate(
    deployment: Object, new: Object | None, olds: Sequence[Object], running_old_pods: bool
) -> tuple[Object | None, dict[str, Object]]:
    busy = {old["metadata"]["name"]: 0 for old in olds if rolling.size(old) > 0}
    if busy:
        return None, _resize(deployment, olds, busy)
    if running_old_pods:
        return None, {}
    replicas = deployment["spec"].get("replicas", 1)
    if new is None:
        return make_replica_set(deployment, _next_revision(olds), replicas, _most(deployment)), {}
    return None, _resize(deployment, [new], rolling.grow_new(deployment, new, []))


def _resize(deployment: Object, replica_sets: Sequence[Object], sizes: rolling.Sizes) -> dict[str, Object]:
    """Patches for new sizes; every active ReplicaSet also learns what it was sized for."""
    replicas, most = deployment["spec"].get("replicas", 1), _most(deployment)
    notes = {DESIRED: str(replicas), MAX: str(most)}
    patches: dict[str, Object] = {}
    for rs in replica_sets:
        name = rs["metadata"]["name"]
        patch: Object = {}
        wanted = sizes.get(name, rolling.size(rs))
        if wanted != rolling.size(rs):
            patch["spec"] = {"replicas": wanted}
        if (wanted > 0 or patch) and any(annotations_of(rs).get(key) != text for key, text in notes.items()):
            patch["metadata"] = {"annotations": notes}
        if patch:
            patches[name] = patch
    return patches


def _sync_annotations(deployment: Object, new: Object, olds: Sequence[Object], patches: dict[str, Object]) -> None:
    """The newest ReplicaSet has the highest revision, the Deployment's annotations and its minReadySeconds."""
    replicas = deployment["spec"].get("replicas", 1)
    wanted = annotations_for(deployment, new, _next_revision(olds), replicas, _most(deployment))
    have = annotations_of(new)
    changed = {key: text for key, text in wanted.items() if have.get(key) != text}
    patch = dict(patches.get(new["metadata"]["name"]) or {})
    if changed:
        patch["metadata"] = {"annotations": changed}
    pause = deployment["spec"].get("minReadySeconds", 0)
    if pause != new["spec"].get("minReadySeconds", 0):
        patch["spec"] = {**(patch.get("spec") or {}), "minReadySeconds": pause}
    if patch:
        patches[new["metadata"]["name"]] = patch


def _patched_revision(replica_set: Object, patches: Mapping[str, Object]) -> str:
    patch = patches.get(replica_set["metadata"]["name"]) or {}
    changed = (patch.get("metadata") or {}).get("annotations") or {}
    return str(changed.get(REVISION) or annotations_of(replica_set).get(REVISION, "1"))


def _outdated(deployment: Object, olds: Sequence[Object]) -> tuple[str, ...]:
    limit = deployment["spec"].get("revisionHistoryLimit", 10)
    surplus = len(olds) - (10 if limit is None else limit)
    if surplus <= 0:
        return ()
    ordered = sorted(oldest_first(olds), key=revision_of)
    idle = [
        rs["metadata"]["name"]
        for rs in ordered[:surplus]
        if rolling.size(rs) == 0 and not (rs.get("status") or {}).get("replicas") and not deleting(rs)
    ]
    return tuple(idle)
