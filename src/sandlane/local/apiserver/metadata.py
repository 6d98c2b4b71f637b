"""The metadata that the server decides: names, uids, times, and what a client may not change. Pure but for its arguments."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Protocol

from sandlane.kube.clock import timestamp
from sandlane.kube.resource import Object
from sandlane.local.apiserver.kinds.field_errors import FieldError
from sandlane.local.apiserver.resource_type import ResourceType
from sandlane.local.apiserver.status import StatusError, bad_request, conflict

_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_SUFFIX = 5
_MAX_GENERATED = 63 - _SUFFIX


class Randomness(Protocol):
    """Randomness for uids and generated names."""

    def getrandbits(self, bits: int, /) -> int:
        """A number below 2**bits."""


def new_uid(rng: Randomness) -> str:
    """A random UUID, version 4."""
    bits = rng.getrandbits(128)
    bits = (bits & ~(0xF << 76) | 0x4 << 76) & ~(0x3 << 62) | 0x2 << 62
    text = f"{bits:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def generated_name(base: str, rng: Randomness) -> str:
    """A name from `generateName`: the base cut to fit, and five random characters."""
    suffix = "".join(_LETTERS[rng.getrandbits(24) % len(_LETTERS)] for _ in range(_SUFFIX))
    return base[:_MAX_GENERATED] + suffix


def check_namespace(type_: ResourceType, obj: Object, namespace: str) -> None:
    """The namespace of the URL goes into the object. Raises `StatusError` 400 when it names another."""
    metadata = obj["metadata"]
    given = metadata.get("namespace") or ""
    if not type_.resource.namespaced:
        metadata.pop("namespace", None)
        return
    if given and given != namespace:
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
    metadata["namespace"] = namespace


def prepare_create(obj: Object, now: datetime, rng: Randomness) -> None:
    """Set what the server sets on a new object. Raises `StatusError` 500 for a resourceVersion, as kube-apiserver does."""
    metadata = obj["metadata"]
    if metadata.get("resourceVersion"):
        raise StatusError(500, "", "resourceVersion should not be set on objects to be created")
    for field in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion"):
        metadata.pop(field, None)
    if not metadata.get("name") and metadata.get("generateName"):
        metadata["name"] = generated_name(metadata["generateName"], rng)
    metadata["uid"] = new_uid(rng)
    metadata["creationTimestamp"] = timestamp(now)


def prepare_update(type_: ResourceType, new: Object, old: Object) -> None:
    """Put back what a client cannot change. Raises `StatusError` 409 for another uid."""
    metadata, before = new["metadata"], old["metadata"]
    uid = metadata.get("uid")
    if uid and uid != before["uid"]:
        at = "/".join(part for part in (before.get("namespace", ""), before["name"]) if part)
        why = (
            f"StorageError: invalid object, Code: 4, Key: /registry/{type_.resource.plural}/{at}, ResourceVersion: 0, "
            f"AdditionalErrorMsg: Precondition failed: UID in precondition: {uid}, UID in object meta: {before['uid']}"
        )
        raise conflict(type_.resource.group, type_.resource.plural, before["name"], why)
    for field in ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "namespace", "name"):
        if field in before:
            if field in ("namespace", "name") and metadata.get(field):
                continue
            metadata[field] = before[field]
        else:
            metadata.pop(field, None)
    if "generateName" in before:
        metadata.setdefault("generateName", before["generateName"])
    metadata.pop("selfLink", None)


def without_repeated_owners(obj: Object) -> list[str]:
    """Leave out owners that are named twice. A warning when there are any."""
    owners = obj["metadata"].get("ownerReferences") or []
    kept = [owner for index, owner in enumerate(owners) if owner not in owners[:index]]
    if len(kept) == len(owners):
        return []
    obj["metadata"]["ownerReferences"] = kept
    uids = [owner.get("uid", "") for owner in owners]
    shown = ", ".join(sorted({uid for uid in uids if uids.count(uid) > 1}))
    return [
        ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may reject "
        f"such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {shown}"
    ]


def check_update(new: Object, old: Object) -> list[FieldError]:
    """Faults of changed metadata: finalizers may only be taken off an object that is going."""
    before, after = old["metadata"], new["metadata"]
    if not before.get("deletionTimestamp"):
        return []
    added = [each for each in after.get("finalizers") or () if each not in (before.get("finalizers") or ())]
    if not added:
        return []
    detail = "no new finalizers can be added if the object is being deleted, found new finalizers "
    shown = "[]string{" + ", ".join(f'"{each}"' for each in added) + "}"
    return [
        FieldError("FieldValueForbidden", "metadata.finalizers", None, detail + shown)
    ] * 2  # checked twice upstream


def with_status(type_: ResourceType, old: Object, new: Object) -> Object:
    """An object as a write of its status leaves it: the status of `new` counts, and of its metadata managedFields alone.

    The status of built-in kinds may be written with other metadata too (the revision of a Deployment), but for owners,
    and labels of workloads.
    """
    made: Object = {key: value for key, value in old.items() if key != "status"}
    if type_.custom:
        made["metadata"] = dict(old["metadata"])
        fixed: tuple[str, ...] = ()
        if "managedFields" in new["metadata"]:
            made["metadata"]["managedFields"] = new["metadata"]["managedFields"]
    else:
        made["metadata"] = dict(new["metadata"])
        fixed = ("labels", "ownerReferences") if type_.resource.group == "apps" else ("ownerReferences",)
    for field in fixed:
        if field in old["metadata"]:
            made["metadata"][field] = old["metadata"][field]
        else:
            made["metadata"].pop(field, None)
    if "status" in new:
        made["status"] = new["status"]
    if type_.storage_key == ("", "pods") and "qosClass" in old.get("status", {}):
        made["status"] = {"qosClass": old["status"]["qosClass"]} | made.get("status", {})
    return made


def is_gone(type_: ResourceType, obj: Object) -> bool:
    """Whether nothing holds a deleted object any more."""
    metadata = obj["metadata"]
    if not metadata.get("deletionTimestamp") or metadata.get("finalizers"):
        return False
    if type_.storage_key == ("", "namespaces"):
        return not (obj.get("spec") or {}).get("finalizers")
    grace: Any = metadata.get("deletionGracePeriodSeconds")
    return not grace
