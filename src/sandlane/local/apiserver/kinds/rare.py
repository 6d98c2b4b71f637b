"""Validation of kinds that few people write by hand."""

from __future__ import annotations

import re

from sandlane.kube.patch.values import equal_json
from sandlane.kube.quantity import parse_quantity
from sandlane.kube.resource import Object
from sandlane.local.apiserver.kinds.field_errors import MIN_ZERO, Faults
from sandlane.local.apiserver.kinds.names import check_annotations, check_labels, dns_label
from sandlane.local.apiserver.kinds.pod_rules import check_pod_spec
from sandlane.local.apiserver.kinds.volume_rules import ACCESS_MODES

_CONTROLLER = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/[^ ]+")
_NOT_SOURCES = frozenset(
    {
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
    }
)
_RECLAIM = ("Delete", "Recycle", "Retain")


def check_pod_template(faults: Faults, obj: Object) -> None:
    """A PodTemplate holds what a Pod could be."""
    template = obj.get("template") or {}
    metadata = template.get("metadata") or {}
    check_labels(faults, metadata.get("labels"), "template.labels")
    check_annotations(faults, metadata.get("annotations"), "template.annotations")
    check_pod_spec(faults, template.get("spec") or {}, "template.spec")


def check_controller_revision(faults: Faults, obj: Object) -> None:
    """A ControllerRevision keeps an object."""
    if obj.get("data") is None:
        faults.required("data", "data is mandatory")
    elif not isinstance(obj["data"], dict):
        faults.required("data", "data must be a valid JSON object")
    if obj.get("revision", 0) < 0:
        faults.invalid("revision", obj["revision"], MIN_ZERO)


def check_ingress_class(faults: Faults, obj: Object) -> None:
    """An IngressClass names its controller."""
    controller = (obj.get("spec") or {}).get("controller", "")
    if not controller:
        faults.required("spec.controller")
    elif not _CONTROLLER.fullmatch(controller):
        faults.invalid("spec.controller", controller, 'must be a domain-prefixed path (such as "acme.io/foo")')


def check_runtime_class(faults: Faults, obj: Object) -> None:
    """A RuntimeClass names its handler."""
    handler = obj.get("handler", "")
    if not handler:
        faults.required("handler")
    for detail in dns_label(handler) if handler else ():
        faults.invalid("handler", handler, detail)


def check_storage_class_update(faults: Faults, new: Object, old: Object) -> None:
    """Who provides storage, and how, does not change."""
    for key in ("parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"):
        if not equal_json(new.get(key), old.get(key)):
            faults.immutable(key, new.get(key), same=False)


def check_persistent_volume(faults: Faults, obj: Object) -> None:
    """A PersistentVolume has a place, a size and ways to be used."""
    spec = obj["spec"]
    modes, capacity = spec.get("accessModes") or [], spec.get("capacity") or {}
    if not modes:
        faults.required("spec.accessModes")
    for mode in modes:
        faults.one_of("spec.accessModes", mode, ACCESS_MODES, required=True)
    if not capacity:
        faults.required("spec.capacity")
    if list(capacity) != ["storage"]:
        faults.not_supported("spec.capacity", spec.get("capacity"), ("storage",))
    elif parse_quantity(capacity["storage"]) <= 0:
        faults.invalid("spec.capacity[storage]", capacity["storage"], "must be greater than zero")
    if not any(key not in _NOT_SOURCES for key in spec):
        faults.required("spec", "must specify a volume type")
    if "hostPath" in spec and not spec["hostPath"].get("path"):
        faults.required("spec.hostPath.path")
    faults.one_of("spec.persistentVolumeReclaimPolicy", spec.get("persistentVolumeReclaimPolicy"), _RECLAIM)
