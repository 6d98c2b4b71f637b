"""The status of a Deployment, computed from its ReplicaSets: counts, `Available`, `Progressing`, `ReplicaFailure`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sandlane.kube.resource import Object
from sandlane.local.controllers.deployment.rolling import bounds, size
from sandlane.local.controllers.objects import condition, moment, timestamp, with_condition

NO_DEADLINE = 2**31 - 1
COMPLETE = "NewReplicaSetAvailable"
EXCEEDED = "ProgressDeadlineExceeded"


def make_status(
    deployment: Object, new: Object | None, olds: Sequence[Object], *, created: bool, collisions: int, now: datetime
) -> Object:
    """The whole `status`; `created` says that the new ReplicaSet is made in this very pass."""
    everyone = [*olds, *([new] if new else [])]
    status = _counts(deployment, new, everyone)
    if collisions:
        status["collisionCount"] = collisions
    old = deployment.get("status") or {}
    conditions: list[Object] = [dict(c) for c in old.get("conditions") or ()]
    conditions = with_condition(conditions, _available(deployment, status, now))
    progressing = _progressing(deployment, status, new, created, now)
    if progressing is None:
        conditions = [c for c in conditions if c["type"] != "Progressing" or has_deadline(deployment)]
    else:
        conditions = with_condition(conditions, progressing)
    failure = next((c for rs in reversed(everyone) if (c := condition(rs, "ReplicaFailure"))), None)
    conditions = [c for c in conditions if c["type"] != "ReplicaFailure"]
    if failure:
        conditions = with_condition(conditions, {**failure, "lastUpdateTime": failure.get("lastTransitionTime", "")})
    status["conditions"] = conditions
    return status


def _counts(deployment: Object, new: Object | None, everyone: Sequence[Object]) -> Object:
    def total(field: str, of: Sequence[Object] = everyone) -> int:
        return sum(int((rs.get("status") or {}).get(field) or 0) for rs in of)

    ready = total("availableReplicas")
    counts = {
        "replicas": total("replicas"),
        "updatedReplicas": total("replicas", [new]) if new else 0,
        "readyReplicas": total("readyReplicas"),
        "availableReplicas": ready,
        "unavailableReplicas": max(sum(map(size, everyone)) - ready, 0),
    }
    return {"observedGeneration": deployment["metadata"].get("generation", 0)} | {k: v for k, v in counts.items() if v}


def _condition(type_: str, status: str, reason: str, message: str, now: datetime) -> Object:
    at = timestamp(now)
    return {
        "type": type_,
        "status": status,
        "lastUpdateTime": at,
        "lastTransitionTime": at,
        "reason": reason,
        "message": message,
    }


def _kept(old: Object | None, new: Object) -> Object:
    """`lastUpdateTime` moves only when something else did."""
    if old and all(old.get(key) == new[key] for key in ("status", "reason", "message")):
        return {**new, "lastUpdateTime": old.get("lastUpdateTime", new["lastUpdateTime"])}
    return new


def _available(deployment: Object, status: Object, now: datetime) -> Object:
    least = deployment["spec"].get("replicas", 1) - bounds(deployment)[1]
    if status.get("availableReplicas", 0) >= least:
        made = _condition("Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.", now)
    else:
        text = "Deployment does not have minimum availability."
        made = _condition("Available", "False", "MinimumReplicasUnavailable", text, now)
    return _kept(condition(deployment, "Available"), made)


def has_deadline(deployment: Object) -> bool:
    """Whether the Deployment has a progress deadline."""
    return int(deployment["spec"].get("progressDeadlineSeconds") or NO_DEADLINE) != NO_DEADLINE


def is_complete(deployment: Object, status: Object) -> bool:
    """Whether every replica runs the newest template and is available."""
    replicas = deployment["spec"].get("replicas", 1)
    wanted = ("updatedReplicas", "replicas", "availableReplicas")
    return all(status.get(field, 0) == replicas for field in wanted)


def _progressing(deployment: Object, status: Object, new: Object | None, created: bool, now: datetime) -> Object | None:
    old = condition(deployment, "Progressing")
    if deployment["spec"].get("paused"):
        return _kept(old, _condition("Progressing", "Unknown", "DeploymentPaused", "Deployment is paused", now))
    if not has_deadline(deployment):
        return None
    if old and old["reason"] == "DeploymentPaused":
        return _condition("Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed", now)
    name = new["metadata"]["name"] if new else ""
    what = f'ReplicaSet "{name}"' if new else f'Deployment "{deployment["metadata"]["name"]}"'

    def say(state: str, reason: str, message: str) -> Object:
        return _kept(old, _condition("Progressing", state, reason, message, now))

    if created:
        return say("True", "NewReplicaSetCreated", f'Created new replica set "{name}"')
    if is_complete(deployment, status):
        return say("True", COMPLETE, f"{what} has successfully progressed.")
    if old and old["reason"] == COMPLETE and status.get("replicas", 0) == status.get("updatedReplicas", 0):
        return dict(old)  # scaled or a Pod was lost: no new rollout
    if old is None:
        return say("True", "FoundNewReplicaSet", f'Found new replica set "{name}"')
    if _moved(deployment.get("status") or {}, status):
        made = _condition("Progressing", "True", "ReplicaSetUpdated", f"{what} is progressing.", now)
        return made  # lastUpdateTime restarts the deadline
    if (left := deadline_left(deployment, old, now)) is not None and left <= 0:
        return say("False", EXCEEDED, f"{what} has timed out progressing.")
    return dict(old)


def _moved(old: Object, new: Object) -> bool:
    def gone(status: Object) -> int:
        return int(status.get("replicas", 0)) - int(status.get("updatedReplicas", 0))

    more: Any = ("updatedReplicas", "readyReplicas", "availableReplicas")
    return any(new.get(f, 0) > old.get(f, 0) for f in more) or gone(new) < gone(old)


def deadline_left(deployment: Object, progressing: Object, now: datetime) -> float | None:
    """Seconds until the rollout counts as stuck; None when it cannot."""
    if not has_deadline(deployment) or progressing["reason"] in (COMPLETE, EXCEEDED, "DeploymentPaused"):
        return None
    since = moment(progressing.get("lastUpdateTime") or progressing["lastTransitionTime"])
    until = since + timedelta(seconds=int(deployment["spec"]["progressDeadlineSeconds"]))
    return (until - now).total_seconds()
