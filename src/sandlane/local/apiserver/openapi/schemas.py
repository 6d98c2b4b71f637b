"""Schemas as OpenAPI publishes them, from the built-in definitions and from custom resources."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from typing import Any

from sandlane.local.apiserver.schema import definitions

V2, V3 = "#/definitions/", "#/components/schemas/"
_DEFS = "#/$defs/"
_INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
_CORE = "io.k8s.api.core.v1."
_DEFAULTS = {f"{_CORE}ContainerPort": {"protocol": "TCP"}, f"{_CORE}ServicePort": {"protocol": "TCP"}}
_TYPE_META = {
    "apiVersion": (
        "APIVersion defines the versioned schema of this representation of an object. Servers should convert "
        "recognized schemas to the latest internal value, and may reject unrecognized values. More info: "
        "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources"
    ),
    "kind": (
        "Kind is a string value representing the REST resource this object represents. Servers may infer this from the "
        "endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: "
        "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds"
    ),
}


def references(raw: Any) -> Iterator[str]:
    """The names of the definitions that a schema refers to, one by one and with repeats."""
    if isinstance(raw, dict):
        reference = raw.get("$ref")
        if isinstance(reference, str) and reference.startswith(_DEFS):
            yield reference.removeprefix(_DEFS)
        for each in raw.values():
            if isinstance(each, (dict, list)):
                yield from references(each)
    elif isinstance(raw, list):
        for each in raw:
            if isinstance(each, (dict, list)):
                yield from references(each)


@cache
def _direct(name: str) -> frozenset[str]:
    return frozenset(references(definitions()[name]))


def closure(names: set[str]) -> set[str]:
    """The names and everything that they refer to."""
    found: set[str] = set()
    todo = [name for name in names if name in definitions()]
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += _direct(name)
    return found


@cache
def published(name: str, prefix: str) -> Mapping[str, Any]:
    """A built-in definition as a schema of version 2 (`prefix` V2) or 3 (V3)."""
    raw = definitions()[name]
    if name == _INT_OR_STRING:
        if prefix == V2:
            return {"description": raw.get("description", ""), "format": "int-or-string", "type": "string"}
        return {"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]}
    if "oneOf" in raw and prefix == V2:
        return {"description": raw.get("description", ""), "type": "string"}
    result = _convert(raw, prefix)
    for field, value in _DEFAULTS.get(name, {}).items():
        if prefix == V3:
            result["properties"][field]["default"] = value
    if prefix == V3:
        for field, values in _enums().get(name, {}).items():
            target = result["properties"][field]
            target.get("items", target)["enum"] = values
    return result


@cache
def _enums() -> Mapping[str, Mapping[str, list[str]]]:
    """Allowed values by definition and field."""
    enums: dict[str, dict[str, list[str]]] = {}
    text = resources.files(__package__).joinpath("enums.txt").read_text(encoding="utf-8")
    for line in text.splitlines():
        if not line.startswith("#"):
            definition, field, *values = line.split()
            enums.setdefault(definition, {})[field] = values
    return enums


def _convert(raw: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in raw.items():
        if key == "$ref" and isinstance(value, str):
            target = prefix + value.removeprefix(_DEFS)
            if prefix == V2 or len(raw) == 1:
                result["$ref"] = target
            else:
                result["allOf"] = [{"$ref": target}]
                result["default"] = {}
        elif key == "type" and isinstance(value, list):
            result["type"] = next(each for each in value if each != "null")
        elif key == "properties":
            result[key] = {name: _property(name, each, prefix) for name, each in value.items()}
        elif isinstance(value, dict):
            result[key] = _convert(value, prefix)
        elif key == "oneOf":
            result[key] = [_convert(each, prefix) for each in value]
        else:
            result[key] = value
    return result


def _property(name: str, raw: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    result = _convert(raw, prefix)
    if name in _TYPE_META:  # the definitions pin them to one value, Kubernetes does not
        result.pop("enum", None)
    return result


def custom(raw: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The schema of a custom resource: as its author wrote it, with the fields that all objects have."""
    result = _custom(raw, prefix)
    properties = result.setdefault("properties", {})
    for name, description in _TYPE_META.items():
        properties[name] = {"description": description, "type": "string"}
    if "metadata" in properties and prefix == V3:
        meta = f"{V3}io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
        text = (
            "Standard object's metadata. More info: "
            "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata"
        )
        properties["metadata"] = {"description": text, "allOf": [{"$ref": meta}]}
    return result


_V3_ONLY = frozenset({"oneOf", "anyOf", "not", "nullable", "default"})


def _custom(raw: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in raw.items():
        if prefix == V2 and key in _V3_ONLY:
            continue  # version 2 has no words for them; kube-apiserver leaves them out, too
        if key == "$ref" and isinstance(value, str):
            result[key] = prefix + value.removeprefix(_DEFS)
        elif key in ("properties", "patternProperties", "definitions") and isinstance(value, dict):
            result[key] = {
                name: _custom(each, prefix) if isinstance(each, dict) else each for name, each in value.items()
            }
        elif key in ("items", "additionalProperties", "not") and isinstance(value, dict):
            result[key] = _custom(value, prefix)
        elif key in ("allOf", "oneOf", "anyOf") and isinstance(value, list):
            result[key] = [_custom(each, prefix) for each in value]
        else:
            result[key] = value
    return result
