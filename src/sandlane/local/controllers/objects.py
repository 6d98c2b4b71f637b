"""Small questions about Kubernetes objects as plain values, shared by the built-in controllers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from sandlane.kube.resource import Object, Resource


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a `metav1.LabelSelector` matches; an empty one matches everything."""
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_expression(expression, labels) for expression in selector.get("matchExpressions") or ())


def _expression(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, values = expression["key"], expression.get("values") or ()
    match expression["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case operator:
            raise ValueError(f"unknown selector operator {operator!r}")


def labels_of(obj: Object) -> dict[str, str]:
    """The labels of an object."""
    return obj["metadata"].get("labels") or {}


def annotations_of(obj: Object) -> dict[str, str]:
    """The annotations of an object."""
    return obj["metadata"].get("annotations") or {}


def deleting(obj: Object) -> bool:
    """Whether deletion of the object has been asked for."""
    return "deletionTimestamp" in obj["metadata"]


def controller_uid(obj: Object) -> str | None:
    """The uid of the object's controlling owner, if it has one."""
    for owner in obj["metadata"].get("ownerReferences") or ():
        if owner.get("controller"):
            return str(owner["uid"])
    return None


def controller_reference(owner: Object, resource: Resource) -> Object:
    """The owner reference by which `owner` controls what it makes."""
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def without_owner(obj: Object, uid: str) -> list[Object]:
    """The owner references of an object but those to `uid`."""
    return [owner for owner in obj["metadata"].get("ownerReferences") or () if owner["uid"] != uid]


def timestamp(moment: datetime) -> str:
    """A moment as Kubernetes writes it: RFC 3339, UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(text: str) -> datetime:
    """A Kubernetes timestamp as a moment."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def condition(obj: Object, type_: str) -> Object | None:
    """A condition of `status.conditions` by its type."""
    return next((c for c in (obj.get("status") or {}).get("conditions") or () if c["type"] == type_), None)


def is_ready(pod: Object) -> bool:
    """Whether a Pod's `Ready` condition is true."""
    ready = condition(pod, "Ready")
    return ready is not None and ready["status"] == "True"


def is_active(pod: Object) -> bool:
    """Whether a Pod counts for its owner: neither ended nor being deleted."""
    return not deleting(pod) and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")


def with_condition(conditions: Iterable[Object], new: Object) -> list[Object]:
    """The conditions with `new` in the place of its type; its `lastTransitionTime` stays while the status does."""
    out, placed = [], False
    for old in conditions:
        if old["type"] != new["type"]:
            out.append(old)
            continue
        placed = True
        if old["status"] == new["status"]:
            new = new | {"lastTransitionTime": old.get("lastTransitionTime", new["lastTransitionTime"])}
        out.append(new)
    return out if placed else [*out, new]
