"""What to do for a StatefulSet, given its Pods: a pure function.

Pods are numbered from `ordinals.start`; they come up in order and go down in reverse, each waiting for the others to be
ready, unless `podManagementPolicy` is Parallel. An update replaces them from the highest number down to `partition`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sandlane.kube.resource import Object, Resource
from sandlane.local.controllers.objects import controller_reference, deleting, is_ready, labels_of
from sandlane.local.controllers.revisions import HASH_LABEL, revision_hash

STATEFUL_SETS = Resource("apps", "v1", "statefulsets", "StatefulSet")
POD_NAME = "statefulset.kubernetes.io/pod-name"
POD_INDEX = "apps.kubernetes.io/pod-index"


@dataclass(frozen=True)
class Plan:
    """Numbers to make Pods for, Pods to delete, and the status."""

    status: Object
    create: tuple[int, ...] = ()
    delete: tuple[Object, ...] = ()


def make_plan(stateful_set: Object, pods: Sequence[Object]) -> Plan:
    """The next step. `pods` are those that it controls."""
    spec = stateful_set["spec"]
    update = f"{stateful_set['metadata']['name']}-{revision_hash(stateful_set)}"
    status = _status(stateful_set, pods, update)
    if deleting(stateful_set):
        return Plan(status)
    start, replicas = int((spec.get("ordinals") or {}).get("start", 0)), int(spec.get("replicas", 1))
    wanted = range(start, start + replicas)
    by_number = {ordinal(stateful_set, pod): pod for pod in pods}
    surplus = sorted((n for n in by_number if n is not None and n not in wanted), reverse=True)
    ended = [p for p in pods if not deleting(p) and (p.get("status") or {}).get("phase") in ("Failed", "Succeeded")]
    if ended:
        return Plan(status, (), tuple(ended))
    if spec.get("podManagementPolicy") == "Parallel":
        missing = tuple(n for n in wanted if n not in by_number)
        going = tuple(by_number[n] for n in surplus if not deleting(by_number[n]))
        if missing or going:
            return Plan(status, missing, going)
    else:
        for number in wanted:
            pod = by_number.get(number)
            if pod is None:
                return Plan(status, (number,))
            if deleting(pod) or not is_ready(pod):
                return Plan(status, (), _stuck(pod, update, spec, number))
        if surplus:
            last = by_number[surplus[0]]
            return Plan(status, (), () if deleting(last) else (last,))
    return Plan(status, (), _outdated(spec, by_number, wanted, update))


def _stuck(pod: Object, update: str, spec: Object, number: int) -> tuple[Object, ...]:
    """A Pod that is not ready and runs an old template may be replaced at once: waiting for it would be for ever."""
    old = labels_of(pod).get(HASH_LABEL) != update
    return (pod,) if old and not deleting(pod) and _may_update(spec, number) else ()


def _outdated(spec: Object, by_number: dict[int | None, Object], wanted: range, update: str) -> tuple[Object, ...]:
    for number in reversed(wanted):
        pod = by_number.get(number)
        if pod is None or deleting(pod):
            return ()
        if labels_of(pod).get(HASH_LABEL) != update and _may_update(spec, number):
            return (pod,)
        if not is_ready(pod):
            return ()
    return ()


def _may_update(spec: Object, number: int) -> bool:
    strategy = spec.get("updateStrategy") or {}
    if strategy.get("type", "RollingUpdate") != "RollingUpdate":
        return False
    return number >= int((strategy.get("rollingUpdate") or {}).get("partition") or 0)


def ordinal(stateful_set: Object, pod: Object) -> int | None:
    """The number of a Pod, from its name."""
    stem, _, number = pod["metadata"]["name"].rpartition("-")
    return int(number) if stem == stateful_set["metadata"]["name"] and number.isdigit() else None


def _status(stateful_set: Object, pods: Sequence[Object], update: str) -> Object:
    old = stateful_set.get("status") or {}
    living = [pod for pod in pods if not deleting(pod)]
    updated = [pod for pod in living if labels_of(pod).get(HASH_LABEL) == update]
    ready = [pod for pod in living if is_ready(pod)]
    replicas = int(stateful_set["spec"].get("replicas", 1))
    current = old.get("currentRevision") or update
    if len(updated) == len(pods) == replicas and all(map(is_ready, updated)):
        current = update
    counts = {
        "replicas": len(pods),
        "readyReplicas": len(ready),
        "availableReplicas": len(ready),
        "updatedReplicas": len(updated),
        "currentReplicas": sum(labels_of(pod).get(HASH_LABEL) == current for pod in living),
    }
    return {
        "observedGeneration": stateful_set["metadata"].get("generation", 0),
        "currentRevision": current,
        "updateRevision": update,
        "collisionCount": int(old.get("collisionCount") or 0),
        **{key: value for key, value in counts.items() if value or key in ("replicas", "availableReplicas")},
    }


def claims(stateful_set: Object, number: int) -> list[Object]:
    """The PersistentVolumeClaims of one Pod."""
    made = []
    for template in stateful_set["spec"].get("volumeClaimTemplates") or ():
        name = f"{template['metadata']['name']}-{stateful_set['metadata']['name']}-{number}"
        metadata = {
            "name": name,
            "namespace": stateful_set["metadata"]["namespace"],
            "labels": stateful_set["spec"]["selector"].get("matchLabels") or {},
        }
        made.append(
            {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": template["spec"]}
        )
    return made


def make_pod(stateful_set: Object, number: int) -> Object:
    """The Pod of one number."""
    spec, set_name = stateful_set["spec"], stateful_set["metadata"]["name"]
    template, name = spec["template"], f"{set_name}-{number}"
    metadata = template.get("metadata") or {}
    pod_spec = {**template["spec"], "hostname": name, "subdomain": spec.get("serviceName", "")}
    if templates := spec.get("volumeClaimTemplates"):
        own = {t["metadata"]["name"] for t in templates}
        volumes = [v for v in pod_spec.get("volumes") or () if v["name"] not in own]
        volumes += [
            {"name": volume, "persistentVolumeClaim": {"claimName": f"{volume}-{name}"}} for volume in sorted(own)
        ]
        pod_spec["volumes"] = volumes
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": stateful_set["metadata"]["namespace"],
            "labels": {
                **(metadata.get("labels") or {}),
                HASH_LABEL: f"{set_name}-{revision_hash(stateful_set)}",
                POD_NAME: name,
                POD_INDEX: str(number),
            },
            "annotations": metadata.get("annotations") or {},
            "ownerReferences": [controller_reference(stateful_set, STATEFUL_SETS)],
        },
        "spec": pod_spec,
    }
