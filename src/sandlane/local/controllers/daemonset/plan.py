"""What to do for a DaemonSet, given its Pods and the nodes: a pure function.

A node that fits the template's `nodeSelector` has one Pod. An update replaces Pods one node after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sandlane.kube.resource import Object, Resource
from sandlane.local.controllers.objects import controller_reference, deleting, is_active, is_ready, labels_of
from sandlane.local.controllers.revisions import HASH_LABEL, revision_hash

DAEMON_SETS = Resource("apps", "v1", "daemonsets", "DaemonSet")


@dataclass(frozen=True)
class Plan:
    """Nodes to make Pods for, Pods to delete, and the status."""

    status: Object
    create: tuple[str, ...] = ()
    delete: tuple[Object, ...] = ()


def make_plan(daemon_set: Object, pods: Sequence[Object], nodes: Sequence[Object]) -> Plan:
    """The next step. `pods` are those that it controls."""
    spec = daemon_set["spec"]
    selector = spec["template"]["spec"].get("nodeSelector") or {}
    wanted = {node["metadata"]["name"] for node in nodes if selector.items() <= labels_of(node).items()}
    placed: dict[str, list[Object]] = {}
    for pod in pods:
        placed.setdefault(_node(pod), []).append(pod)
    update = revision_hash(daemon_set)
    create = tuple(sorted(node for node in wanted if not placed.get(node)))
    surplus = [pod for node, there in placed.items() for pod in there[1 if node in wanted else 0 :]]
    ended = [pod for pod in pods if not is_active(pod)]
    delete = [pod for pod in {id(p): p for p in (*surplus, *ended)}.values() if not deleting(pod)]
    rolling = (spec.get("updateStrategy") or {}).get("type", "RollingUpdate") == "RollingUpdate"
    if not create and not delete and rolling and all(is_ready(p) or _old(p, update) for p in pods):
        delete = [pod for pod in pods if _old(pod, update)][:1]
    if deleting(daemon_set):
        create, delete = (), []
    return Plan(_status(daemon_set, wanted, pods, update), create, tuple(delete))


def _old(pod: Object, update: str) -> bool:
    return labels_of(pod).get(HASH_LABEL) != update


def _node(pod: Object) -> str:
    """The node that a Pod runs on or was made for."""
    if name := pod["spec"].get("nodeName"):
        return str(name)
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    for term in (affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms") or ():
        for field in term.get("matchFields") or ():
            if field["key"] == "metadata.name":
                return str(field["values"][0])
    return ""


def _status(daemon_set: Object, wanted: set[str], pods: Sequence[Object], update: str) -> Object:
    there = [pod for pod in pods if is_active(pod) and _node(pod) in wanted]
    ready = [pod for pod in there if is_ready(pod)]
    updated = sum(not _old(pod, update) for pod in there)
    status = {
        "observedGeneration": daemon_set["metadata"].get("generation", 0),
        "desiredNumberScheduled": len(wanted),
        "currentNumberScheduled": len(there),
        "numberMisscheduled": sum(is_active(pod) and _node(pod) not in wanted for pod in pods),
        "numberReady": len(ready),
    }
    optional = {
        "numberAvailable": len(ready),
        "numberUnavailable": len(wanted) - len(ready),
        "updatedNumberScheduled": updated,
    }
    return status | {key: value for key, value in optional.items() if value}


def make_pod(daemon_set: Object, node: str) -> Object:
    """The Pod of one node."""
    template = daemon_set["spec"]["template"]
    metadata = template.get("metadata") or {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": f"{daemon_set['metadata']['name']}-",
            "namespace": daemon_set["metadata"]["namespace"],
            "labels": {**(metadata.get("labels") or {}), HASH_LABEL: revision_hash(daemon_set)},
            "annotations": metadata.get("annotations") or {},
            "ownerReferences": [controller_reference(daemon_set, DAEMON_SETS)],
        },
        "spec": {**template["spec"], "nodeName": node},
    }
