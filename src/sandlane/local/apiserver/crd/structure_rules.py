"""What makes a schema structural, and what of JSON schema is not allowed, with the texts of kube-apiserver. Pure.

https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from sandlane.kube.resource import Object
from sandlane.local.apiserver.kinds.field_errors import Faults, FieldError

_TYPES = ("array", "boolean", "integer", "number", "object", "string")
_UNSUPPORTED = ("id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref")
_TEXTS = ("description", "title", "type", "default", "nullable")
_FLAGS = ("x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource", "x-kubernetes-int-or-string")
_EITHER: dict[str, tuple[str, ...]] = defaultdict(
    tuple, integer=(".anyOf[0]",), string=(".anyOf[1]",)
)  # the one way to say what int-or-string is
INCOMPLETE = "because it is defined in"
_ONLY_NAMES = frozenset({"type", "properties", "description"})


def check_node(faults: Faults, raw: Object, at: str, *, root: bool, item: bool) -> None:
    """One node of a schema without what is below it. `item`: it is what a list has."""
    kind = raw.get("type")
    free = raw.get("x-kubernetes-int-or-string") or raw.get("x-kubernetes-preserve-unknown-fields")
    if not root and not kind and not free:
        what = "array items" if item else "object fields"
        faults.required(f"{at}.type", f"must not be empty for specified {what}")
    if kind == "null":
        faults.forbidden(f"{at}.type", "type cannot be set to null, use nullable as an alternative")
    elif kind and kind not in _TYPES:
        faults.not_supported(f"{at}.type", kind, _TYPES)
    if kind == "array" and "items" not in raw:
        faults.required(f"{at}.items", "must be specified")
    for name in _UNSUPPORTED:
        if raw.get(name):
            faults.forbidden(f"{at}.{name}", f"{name} is not supported")
    if raw.get("uniqueItems"):
        why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        faults.forbidden(f"{at}.uniqueItems", why)
    if isinstance(raw.get("items"), list):
        faults.forbidden(f"{at}.items", "items must be a schema object and not an array")
    if "additionalProperties" in raw and raw.get("properties") and raw["additionalProperties"] is not True:
        faults.forbidden(f"{at}.additionalProperties", "additionalProperties and properties are mutual exclusive")
    _check_flags(faults, raw, at)
    _check_list(faults, raw, at)
    if root:
        _check_root(faults, raw, at)
    for path, branch in _branches(raw, at):
        _check_branch(faults, branch, path, raw, at)


def _check_flags(faults: Faults, raw: Object, at: str) -> None:
    kind = raw.get("type") or ""
    if raw.get("x-kubernetes-preserve-unknown-fields") is False:
        faults.invalid(f"{at}.x-kubernetes-preserve-unknown-fields", False, "must be true or undefined")
    if raw.get("x-kubernetes-embedded-resource"):
        if not raw.get("x-kubernetes-preserve-unknown-fields") and not raw.get("properties"):
            why = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields"
            faults.required(f"{at}.properties", why)
        if kind != "object":
            why = "must be object if x-kubernetes-embedded-resource is true"
            faults.invalid(f"{at}.type", kind, why) if kind else faults.required(f"{at}.type", why)
    if (map_type := raw.get("x-kubernetes-map-type")) is not None:
        if map_type not in ("granular", "atomic"):
            faults.not_supported(f"{at}.x-kubernetes-map-type", map_type, ("atomic", "granular"))
        if kind != "object":
            faults.invalid(f"{at}.type", kind, "must be object if x-kubernetes-map-type is specified")


def _check_list(faults: Faults, raw: Object, at: str) -> None:
    kind, list_type = raw.get("type") or "", raw.get("x-kubernetes-list-type")
    keys = raw.get("x-kubernetes-list-map-keys") or ()
    items = raw.get("items") if isinstance(raw.get("items"), dict) else {}
    assert isinstance(items, dict)
    if list_type is None:
        if keys:
            why = "must be map if x-kubernetes-list-map-keys is non-empty"
            faults.required(f"{at}.x-kubernetes-list-type", why)
        return
    if list_type not in ("atomic", "map", "set"):
        supported = 'supported values: "atomic", "set", "map"'
        faults.errors.append(FieldError("FieldValueNotSupported", f"{at}.x-kubernetes-list-type", list_type, supported))
    if kind != "array":
        faults.invalid(f"{at}.type", kind, "must be array if x-kubernetes-list-type is specified")
    if list_type != "map" and keys:
        why = "must be map if x-kubernetes-list-map-keys is non-empty"
        faults.invalid(f"{at}.x-kubernetes-list-type", list_type, why)
    atomic = items.get("x-kubernetes-list-type") == "atomic" or items.get("x-kubernetes-map-type") == "atomic"
    if list_type == "set" and items.get("type") == "object" and not atomic:
        part = "x-kubernetes-map-type" if items["type"] == "object" else "x-kubernetes-list-type"
        why = "must be atomic as item of a list with x-kubernetes-list-type=set"
        faults.invalid(f"{at}.items.{part}", items.get(part, ""), why)
    if list_type == "set" and items.get("nullable"):
        faults.forbidden(f"{at}.items.nullable", "cannot be nullable when x-kubernetes-list-type is set")
    if list_type == "map":
        if items.get("type") != "object":
            why = "must be object if parent array's x-kubernetes-list-type is map"
            faults.invalid(f"{at}.items.type", items.get("type", ""), why)
        if items.get("nullable"):
            faults.forbidden(f"{at}.items.nullable", "cannot be nullable when x-kubernetes-list-type is map")
        _check_keys(faults, items, keys, at)


def _check_keys(faults: Faults, items: Object, keys: Any, at: str) -> None:
    """The keys of a list of type map are always there: required, or with a default."""
    if not keys:
        faults.required(f"{at}.x-kubernetes-list-map-keys", "must not be empty if x-kubernetes-list-type is map")
    if len(set(keys)) < len(keys):
        faults.invalid(f"{at}.x-kubernetes-list-map-keys", keys, "must not have duplicate entries")
    for key in dict.fromkeys(keys):
        found = (items.get("properties") or {}).get(key)
        if found is None:
            faults.invalid(f"{at}.x-kubernetes-list-map-keys", keys, "entries must all be names of item properties")
            continue
        if found.get("type") in ("array", "object"):
            why = "must be a scalar type if parent array's x-kubernetes-list-type is map"
            faults.invalid(f"{at}.items.properties[{key}].type", found["type"], why)
        if key not in (items.get("required") or ()) and "default" not in found:
            why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"
            faults.required(f"{at}.items.properties[{key}].default", why)


def _check_root(faults: Faults, raw: Object, at: str) -> None:
    """apiVersion, kind and metadata are there without being said; what is said of them must be true."""
    properties = raw.get("properties") or {}
    for name in ("apiVersion", "kind"):
        kind = (properties.get(name) or {}).get("type")
        if name in properties and kind != "string":
            faults.invalid(f"{at}.properties[{name}].type", kind or "", "must be string")
    metadata = properties.get("metadata")
    if metadata is None:
        return
    where = f"{at}.properties[metadata]"
    if metadata.get("type") != "object":
        faults.invalid(f"{where}.type", metadata.get("type", ""), "must be object")
    if set(metadata) - _ONLY_NAMES or set(metadata.get("properties") or ()) - {"name", "generateName"}:
        why = "must not specify anything other than name and generateName, but metadata is implicitly specified"
        faults.forbidden(where, why)


def _branches(raw: Mapping[str, Any], at: str) -> Iterator[tuple[str, Object]]:
    for word in ("allOf", "anyOf", "oneOf"):
        for index, branch in enumerate(raw.get(word) or ()):
            if isinstance(branch, dict):
                yield f"{at}.{word}[{index}]", branch
    if isinstance(raw.get("not"), dict):
        yield f"{at}.not", raw["not"]


def _check_branch(faults: Faults, branch: Object, path: str, outer: Object | None, at: str) -> None:
    """A branch only says more of what is said outside of it: `outer`, at the path `at`; None where it says nothing."""
    either = bool(outer and outer.get("x-kubernetes-int-or-string")) and path.endswith(_EITHER[branch.get("type", "")])
    for name in _TEXTS:
        if name in branch and not (name == "type" and either):
            faults.forbidden(f"{path}.{name}", "must be empty to be structural")
    for name in _FLAGS:
        if branch.get(name):
            faults.forbidden(f"{path}.{name}", "must be false to be structural")
    for name in ("x-kubernetes-list-type", "x-kubernetes-map-type", "x-kubernetes-list-map-keys"):
        if branch.get(name):
            faults.forbidden(f"{path}.{name}", "must be undefined to be structural")
    if branch.get("x-kubernetes-validations"):
        faults.forbidden(f"{path}.x-kubernetes-validations", "must be empty to be structural")
    if "additionalProperties" in branch:
        faults.forbidden(f"{path}.additionalProperties", "must be undefined to be structural")
    known = (outer or {}).get("properties") or {}
    values = (outer or {}).get("additionalProperties")
    for name, below in (branch.get("properties") or {}).items():
        where = f"{at}.properties[{name}]"
        found = known.get(name) or (values if isinstance(values, dict) else None)
        if found is None and not (outer or {}).get("x-kubernetes-preserve-unknown-fields"):
            faults.required(where, f"{INCOMPLETE} {path}.properties[{name}]")
        if isinstance(below, dict):
            _check_branch(faults, below, f"{path}.properties[{name}]", found, where)
    if isinstance(branch.get("items"), dict):
        items = (outer or {}).get("items")
        if not isinstance(items, dict):
            faults.required(f"{at}.items", f"{INCOMPLETE} {path}.items")
        _check_branch(
            faults, branch["items"], f"{path}.items", items if isinstance(items, dict) else None, f"{at}.items"
        )
    for deeper, each in _branches(branch, path):
        _check_branch(faults, each, deeper, outer, at)
