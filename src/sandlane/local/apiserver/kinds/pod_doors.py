"""What the subresources of a Pod may change: `resize` its resources, `ephemeralcontainers` those, `status` what a node reports."""

from __future__ import annotations

from typing import Any

from sandlane.kube.patch.values import copy_json, equal_json
from sandlane.kube.resource import Object
from sandlane.local.apiserver.kinds.field_errors import Faults, FieldError
from sandlane.local.apiserver.kinds.names import BAD_ADDRESS, check_metadata, is_address, subdomain
from sandlane.local.apiserver.kinds.pod_rules import check_pod
from sandlane.local.apiserver.kinds.pods import qos_class

DOORS = ("resize", "ephemeralcontainers")


def through_door(door: str, new: Object, old: Object) -> Object:
    """The Pod with the changes that a door lets through, and with what is kept about who manages its fields."""
    made: Object = copy_json(old)
    managed = new["metadata"].get("managedFields")
    made["metadata"].pop("managedFields", None)
    if managed is not None:
        made["metadata"]["managedFields"] = managed
    if door == "ephemeralcontainers":
        made["spec"].pop(key := "ephemeralContainers", None)
        if new["spec"].get(key):
            made["spec"][key] = new["spec"][key]
    else:
        for place in ("containers", "initContainers"):
            given = {each.get("name"): each for each in new["spec"].get(place) or []}
            for container in made["spec"].get(place) or []:
                for key in ("resources", "resizePolicy"):
                    container.pop(key, None)
                    if key in given.get(container["name"], {}):
                        container[key] = given[container["name"]][key]
    if not equal_json(made["spec"], old["spec"]):
        made["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1
    return made


def door_faults(door: str, new: Object, old: Object) -> list[FieldError]:
    """The faults of a Pod that is changed through a door."""
    faults = Faults()
    check_metadata(faults, new, subdomain)
    check_pod(faults, new)
    if door == "ephemeralcontainers":
        _check_ephemeral(faults, new["spec"], old["spec"])
    elif not faults.errors:
        _check_resize(faults, new, old)
    return faults.errors


def _check_ephemeral(faults: Faults, new: Object, old: Object) -> None:
    field = "spec.ephemeralContainers"
    given = {each.get("name"): each for each in new.get("ephemeralContainers") or []}
    for before in old.get("ephemeralContainers") or []:
        name = before["name"]
        if name not in given:
            faults.forbidden(field, f'existing ephemeral containers "{name}" may not be removed\n')
        elif not equal_json(given[name], before):
            faults.forbidden(field, f'existing ephemeral containers "{name}" may not be changed')


def _check_resize(faults: Faults, new: Object, old: Object) -> None:
    before = (old.get("status") or {}).get("qosClass") or qos_class(old["spec"])
    if qos_class(new["spec"]) != before:
        faults.invalid("spec", before, "Pod QOS Class may not change as a result of resizing")
    for place in ("containers", "initContainers"):
        for index, (now, was) in enumerate(
            zip(new["spec"].get(place) or [], old["spec"].get(place) or [], strict=True)
        ):
            for key in ("requests", "limits"):
                left, had = _resources(now, key), _resources(was, key)
                if any(name in had and name not in left for name in ("cpu", "memory")):
                    faults.forbidden(f"spec.{place}[{index}].resources.{key}", f"resource {key} cannot be removed")
                if {n: q for n, q in left.items() if n not in ("cpu", "memory")} != {
                    n: q for n, q in had.items() if n not in ("cpu", "memory")
                }:
                    faults.forbidden("spec", "only cpu and memory resources are mutable")


def _resources(container: Object, key: str) -> dict[str, Any]:
    return (container.get("resources") or {}).get(key) or {}


def check_pod_status(faults: Faults, new: Object, old: Object) -> None:
    """What a node may report of a Pod."""
    status, before = new.get("status") or {}, old.get("status") or {}
    families = set()
    for index, each in enumerate(status.get("podIPs") or []):
        address = each.get("ip", "")
        if not is_address(address):
            faults.invalid(f"status.podIPs[{index}]", address, BAD_ADDRESS)
        families.add(":" in address)
    if len(status.get("podIPs") or []) > len(families):
        shown = [{"IP": each.get("ip", "")} for each in status["podIPs"]]
        faults.invalid("status.podIPs", shown, "may specify no more than one IP for each IP family")
    if status.get("qosClass") != before.get("qosClass"):
        faults.immutable("status.qosClass", status.get("qosClass", ""), same=False)
    if name := status.get("nominatedNodeName"):
        for detail in subdomain(name):
            faults.invalid("status.nominatedNodeName", name, detail)
    if status.get("observedGeneration", 0) < 0:
        faults.invalid("status.observedGeneration", status["observedGeneration"], "must be a non-negative integer")
