"""Revisions of a Deployment: which ReplicaSet runs which template, in the annotations that `kubectl rollout` reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from sandlane.kube.resource import DEPLOYMENTS, Object
from sandlane.local.controllers.objects import annotations_of, controller_reference, labels_of

HASH = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MAX = "deployment.kubernetes.io/max-replicas"
_NOT_COPIED = frozenset(
    {"kubectl.kubernetes.io/last-applied-configuration", REVISION, HISTORY, DESIRED, MAX}
    | {"deprecated.deployment.rollback.to"}
)
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"  # no vowels, no look-alikes: never a word


def _normal(value: Any) -> Any:
    """A value without what means the same as absence (null, empty map, empty list)."""
    if isinstance(value, dict):
        pairs = ((key, _normal(item)) for key, item in value.items())
        return {key: item for key, item in pairs if item is not None and item != {} and item != []}
    if isinstance(value, list):
        return [_normal(item) for item in value]
    return value


def bare_template(template: Object) -> Object:
    """A pod template without the hash label, in normal form: equal when the Pods would be."""
    metadata = dict(template.get("metadata") or {})
    metadata["labels"] = {key: value for key, value in (metadata.get("labels") or {}).items() if key != HASH}
    normal: Object = _normal({**template, "metadata": metadata})
    return normal


def template_hash(template: Object, collisions: int) -> str:
    """Ten characters that name a template; `collisions` gives another name to the same one."""
    text = json.dumps([bare_template(template), collisions], sort_keys=True)
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    out = ""
    for _ in range(10):
        number, digit = divmod(number, len(_ALPHABET))
        out += _ALPHABET[digit]
    return out


def find_new(deployment: Object, replica_sets: Iterable[Object]) -> Object | None:
    """The ReplicaSet that runs the Deployment's template; the oldest if there are several."""
    wanted = bare_template(deployment["spec"]["template"])
    same = [rs for rs in replica_sets if bare_template(rs["spec"]["template"]) == wanted]
    return min(same, key=_age, default=None)


def _age(replica_set: Object) -> tuple[str, str]:
    metadata = replica_set["metadata"]
    return metadata.get("creationTimestamp", ""), metadata["name"]


def oldest_first(replica_sets: Iterable[Object]) -> list[Object]:
    """ReplicaSets by age."""
    return sorted(replica_sets, key=_age)


def revision_of(obj: Object) -> int:
    """The revision in an object's annotations, 0 if it has none."""
    text = annotations_of(obj).get(REVISION, "0")
    return int(text) if text.isdigit() else 0


def annotations_for(deployment: Object, replica_set: Object | None, revision: int, desired: int, most: int) -> Object:
    """The annotations that a ReplicaSet should have when it is (again) the newest."""
    old = annotations_of(replica_set) if replica_set else {}
    new = {**old, **{key: value for key, value in annotations_of(deployment).items() if key not in _NOT_COPIED}}
    before = int(old[REVISION]) if old.get(REVISION, "").isdigit() else 0
    if revision > before:
        new[REVISION] = str(revision)
        if before:
            history = [text for text in old.get(HISTORY, "").split(",") if text]
            new[HISTORY] = ",".join([*history, str(before)])
    return {**new, DESIRED: str(desired), MAX: str(most)}


def make_replica_set(deployment: Object, revision: int, replicas: int, most: int) -> Object:
    """The ReplicaSet for the Deployment's template."""
    spec = deployment["spec"]
    collisions = (deployment.get("status") or {}).get("collisionCount") or 0
    name = template_hash(spec["template"], collisions)
    metadata = dict(spec["template"].get("metadata") or {})
    metadata["labels"] = {**(metadata.get("labels") or {}), HASH: name}
    selector = spec["selector"]
    made: Object = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{deployment['metadata']['name']}-{name}",
            "namespace": deployment["metadata"]["namespace"],
            "labels": metadata["labels"],
            "annotations": annotations_for(deployment, None, revision, spec.get("replicas", 1), most),
            "ownerReferences": [controller_reference(deployment, DEPLOYMENTS)],
        },
        "spec": {
            "replicas": replicas,
            "selector": {**selector, "matchLabels": {**(selector.get("matchLabels") or {}), HASH: name}},
            "template": {**spec["template"], "metadata": metadata},
        },
    }
    if spec.get("minReadySeconds"):
        made["spec"]["minReadySeconds"] = spec["minReadySeconds"]
    return made


def hash_label(replica_set: Object) -> str:
    """The template hash that a ReplicaSet carries."""
    return labels_of(replica_set).get(HASH, "")
