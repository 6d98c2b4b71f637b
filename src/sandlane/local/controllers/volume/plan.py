"""Which PersistentVolume a claim gets, and what a new one is: pure functions.

Rules: https://kubernetes.io/docs/concepts/storage/persistent-volumes/#binding
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from sandlane.kube.quantity import parse_quantity
from sandlane.kube.resource import Object

PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
PROVISIONER = "sandlane.dev/folder"


def choose(claim: Object, volumes: Iterable[Object]) -> Object | None:
    """The volume that a claim has, or names, or the smallest free one that suits it."""
    volumes = list(volumes)
    uid, named = claim["metadata"]["uid"], claim["spec"].get("volumeName")
    for volume in volumes:
        if (volume["spec"].get("claimRef") or {}).get("uid") == uid:
            return volume
    if named:
        return next((v for v in volumes if v["metadata"]["name"] == named and _free_for(claim, v)), None)
    suiting = [volume for volume in volumes if _suits(claim, volume)]
    return min(
        suiting, key=lambda volume: (_size(volume["spec"].get("capacity")), volume["metadata"]["name"]), default=None
    )


def may_be_made(claim: Object) -> bool:
    """Whether a claim may get a new volume: not one that names a volume or, by an empty class, wants a given one."""
    return not claim["spec"].get("volumeName") and claim["spec"].get("storageClassName") != ""


def new_volume(claim: Object, folder: str) -> Object:
    """A volume in `folder`, bound to the claim and gone with it."""
    spec, metadata = claim["spec"], claim["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"pvc-{metadata['uid']}", "annotations": {PROVISIONED_BY: PROVISIONER}},
        "spec": {
            "accessModes": spec["accessModes"],
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "claimRef": reference(claim),
            "hostPath": {"path": f"{folder}/pvc-{metadata['uid']}", "type": "DirectoryOrCreate"},
            "persistentVolumeReclaimPolicy": "Delete",
            **({"storageClassName": spec["storageClassName"]} if spec.get("storageClassName") else {}),
        },
    }


def reference(claim: Object) -> Object:
    """The `claimRef` of a claim's volume."""
    metadata = claim["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
    }


def bound(volume: Object) -> Object:
    """The status of the claim that has a volume."""
    spec = volume["spec"]
    return {"phase": "Bound", "accessModes": spec["accessModes"], "capacity": spec["capacity"]}


def _suits(claim: Object, volume: Object) -> bool:
    wanted, spec = claim["spec"], volume["spec"]
    return (
        _free_for(claim, volume)
        and (spec.get("storageClassName") or "") == (wanted.get("storageClassName") or "")
        and set(wanted["accessModes"]) <= set(spec.get("accessModes") or ())
        and _size(spec.get("capacity")) >= _size(wanted["resources"]["requests"])
    )


def _free_for(claim: Object, volume: Object) -> bool:
    """Whether a volume has no other claim; its owner may have reserved it by name for this one."""
    ref = volume["spec"].get("claimRef")
    if "deletionTimestamp" in volume["metadata"] or (volume.get("status") or {}).get("phase") == "Released":
        return False
    mine = (claim["metadata"]["namespace"], claim["metadata"]["name"])
    return not ref or ((ref.get("namespace"), ref.get("name")) == mine and not ref.get("uid"))


def _size(amounts: Object | None) -> Fraction:
    return parse_quantity((amounts or {}).get("storage", "0"))
