"""What to do for a ReplicaSet, given the Pods in its namespace that it controls or might adopt: a pure function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sandlane.kube.resource import REPLICA_SETS, Object
from sandlane.local.controllers.objects import (
    annotations_of,
    condition,
    controller_reference,
    controller_uid,
    deleting,
    is_active,
    is_ready,
    labels_of,
    moment,
    selects,
    timestamp,
    with_condition,
)

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"


@dataclass(frozen=True)
class Plan:
    """Pods to adopt, release, create (a number) and delete, in this order."""

    owned: tuple[Object, ...]
    adopt: tuple[Object, ...] = ()
    release: tuple[Object, ...] = ()
    create: int = 0
    delete: tuple[Object, ...] = ()


def make_plan(replica_set: Object, pods: Sequence[Object]) -> Plan:
    """Bring the number of active Pods to `spec.replicas`."""
    uid, spec = replica_set["metadata"]["uid"], replica_set["spec"]
    adopt, release, owned = [], [], []
    for pod in pods:
        owner, matches = controller_uid(pod), selects(spec["selector"], labels_of(pod))
        if owner == uid and not matches and not deleting(replica_set):
            release.append(pod)
        elif owner == uid:
            owned.append(pod)
        elif owner is None and matches and is_active(pod) and not deleting(replica_set):
            adopt.append(pod)
    owned += adopt
    if deleting(replica_set):
        return Plan(tuple(owned))
    active = [pod for pod in owned if is_active(pod)]
    missing = int(spec.get("replicas", 1)) - len(active)
    surplus = sorted(active, key=_worth)[: max(-missing, 0)]
    return Plan(tuple(owned), tuple(adopt), tuple(release), max(missing, 0), tuple(surplus))


def _worth(pod: Object) -> tuple[object, ...]:
    """Pods that are deleted first sort first: unassigned, pending, not ready, cheap, restarted often, young."""
    status = pod.get("status") or {}
    cost = annotations_of(pod).get(DELETION_COST, "0")
    restarts = sum(int(c.get("restartCount", 0)) for c in status.get("containerStatuses") or ())
    created = pod["metadata"].get("creationTimestamp")
    return (
        bool(pod["spec"].get("nodeName")),
        {"Pending": 0, "Unknown": 1}.get(status.get("phase", "Pending"), 2),
        is_ready(pod),
        int(cost) if cost.lstrip("-").isdigit() else 0,
        -restarts,
        -moment(created).timestamp() if created else 0.0,
        pod["metadata"]["name"],
    )


def make_pod(replica_set: Object) -> Object:
    """One Pod of the template."""
    template = replica_set["spec"]["template"]
    metadata = {key: value for key, value in (template.get("metadata") or {}).items() if key in _COPIED}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            **metadata,
            "generateName": f"{replica_set['metadata']['name']}-",
            "namespace": replica_set["metadata"]["namespace"],
            "ownerReferences": [controller_reference(replica_set, REPLICA_SETS)],
        },
        "spec": template["spec"],
    }


_COPIED = frozenset({"labels", "annotations", "finalizers"})


def make_status(
    replica_set: Object, owned: Sequence[Object], failure: tuple[str, str] | None, now: datetime
) -> tuple[Object, float | None]:
    """The status, and in how many seconds a ready Pod becomes available. `failure` is (reason, message)."""
    active = [pod for pod in owned if is_active(pod)]
    pause = timedelta(seconds=int(replica_set["spec"].get("minReadySeconds") or 0))
    ready = [pod for pod in active if is_ready(pod)]
    waits = [w for pod in ready if (w := _until_available(pod, pause, now)) > 0]
    wanted = ((replica_set["spec"].get("template") or {}).get("metadata") or {}).get("labels") or {}
    counts = {
        "fullyLabeledReplicas": sum(wanted.items() <= labels_of(pod).items() for pod in active),
        "readyReplicas": len(ready),
        "availableReplicas": len(ready) - len(waits),
    }
    old = replica_set.get("status") or {}
    conditions: list[Object] = [c for c in old.get("conditions") or () if c["type"] != "ReplicaFailure" or failure]
    if failure:
        new = {
            "type": "ReplicaFailure",
            "status": "True",
            "lastTransitionTime": timestamp(now),
            "reason": failure[0],
            "message": failure[1],
        }
        conditions = with_condition(conditions, new)
    status: Object = {
        "replicas": len(active),
        "observedGeneration": replica_set["metadata"].get("generation", 0),
        **{key: value for key, value in counts.items() if value},
    }
    if conditions:
        status["conditions"] = conditions
    return status, min(waits, default=None)


def _until_available(pod: Object, pause: timedelta, now: datetime) -> float:
    ready = condition(pod, "Ready")
    if not pause or ready is None or not ready.get("lastTransitionTime"):
        return 0.0
    return max((moment(ready["lastTransitionTime"]) + pause - now).total_seconds(), 0.0)
