"""What the server says about a CustomResourceDefinition: conditions, accepted names, versions in which objects lie."""

from __future__ import annotations

from sandlane.kube.resource import Object

CLEANUP = "customresourcecleanup.apiextensions.k8s.io"


def accepted_status(obj: Object, now: str, taken: tuple[str, str] | None = None) -> Object:
    """The status of a definition: accepted and established, or not, with the reason and the name that is taken."""
    names = {key: value for key, value in obj["spec"]["names"].items() if value}
    stored = [version["name"] for version in obj["spec"].get("versions") or () if version.get("storage")]
    if taken is not None:
        conditions = [
            _condition("NamesAccepted", "False", *taken, now),
            _condition("Established", "False", "NotAccepted", "not all names are accepted", now),
        ]
        return {"conditions": conditions, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": stored}
    conditions = [
        _condition("NamesAccepted", "True", "NoConflicts", "no conflicts found", now),
        _condition("Established", "True", "InitialNamesAccepted", "the initial names have been accepted", now),
    ]
    return {"conditions": conditions, "acceptedNames": names, "storedVersions": stored}


def mark_terminating(obj: Object, now: str) -> None:
    """A definition that is deleted waits for its objects to go."""
    finalizers = obj["metadata"].setdefault("finalizers", [])
    if CLEANUP not in finalizers:
        finalizers.append(CLEANUP)
    conditions = obj.setdefault("status", {}).setdefault("conditions", [])
    message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon"
    if not any(condition["type"] == "Terminating" for condition in conditions):
        conditions.append(_condition("Terminating", "True", "InstanceDeletionPending", message, now))


def _condition(kind: str, status: str, reason: str, message: str, now: str) -> Object:
    return {"type": kind, "status": status, "lastTransitionTime": now, "reason": reason, "message": message}
