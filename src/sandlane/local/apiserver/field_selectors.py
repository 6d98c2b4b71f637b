"""Field selectors: which fields of each kind can be selected by, and their values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sandlane.kube.resource import Object
from sandlane.kube.selectors import SelectorError, parse_field_selector
from sandlane.local.apiserver.resource_type import ResourceType
from sandlane.local.apiserver.status import bad_request

Requirements = tuple[tuple[str, str, bool], ...]

_EVENT = tuple(
    f"involvedObject.{name}"
    for name in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
) + ("reason", "reportingComponent", "source", "type")
_EVENT_NEW = tuple(name.replace("involvedObject", "regarding") for name in _EVENT)

SELECTABLE: dict[tuple[str, str], tuple[str, ...]] = {
    ("", "pods"): (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.podIPs",
        "status.nominatedNodeName",
    ),
    ("", "events"): _EVENT,
    ("events.k8s.io", "events"): _EVENT_NEW + _EVENT,
    ("", "secrets"): ("type",),
    ("", "nodes"): ("spec.unschedulable",),
    ("", "namespaces"): ("status.phase",),
    ("", "services"): ("spec.clusterIP", "spec.type"),
    ("", "replicationcontrollers"): ("status.replicas",),
    ("batch", "jobs"): ("status.successful",),
    ("certificates.k8s.io", "certificatesigningrequests"): ("spec.signerName",),
}


def parse(type_: ResourceType, text: str) -> Requirements:
    """The requirements of a field selector. Raises `StatusError` 400 for bad texts and for other fields."""
    if not text:
        return ()
    try:
        requirements = parse_field_selector(text)
    except SelectorError as error:
        raise bad_request(str(error)) from error
    resource = type_.resource
    known = {"metadata.name", "metadata.namespace", *type_.selectable_fields}
    own = SELECTABLE.get((resource.group, resource.plural), ())
    known.update(own)
    for field, _, _ in requirements:
        if field not in known:
            if own or type_.custom:
                raise bad_request(f"field label not supported: {field}")
            names = '"metadata.name", "metadata.namespace"'
            raise bad_request(f'"{field}" is not a known field selector: only {names}')
    return requirements


def matches(type_: ResourceType, requirements: Requirements, obj: Object) -> bool:
    """Whether an object satisfies all requirements."""
    return all((_value(type_, field, obj) == value) == equal for field, value, equal in requirements)


def _value(type_: ResourceType, field: str, obj: Object) -> str:
    custom: Callable[[Object], str] | None = type_.selectable_fields.get(field)
    if custom is not None:
        return custom(obj)
    if field == "source":
        return str(obj.get("source", {}).get("component") or obj.get("reportingComponent") or "")
    value: Any = obj
    for key in field.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "false" if field in ("spec.hostNetwork", "spec.unschedulable") else "0" if _counts(field) else ""
    return str(value)


def _counts(field: str) -> bool:
    return field in ("status.replicas", "status.successful")
