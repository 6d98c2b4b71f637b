"""What a structural schema does to an object: fill in defaults, drop what it does not name. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from sandlane.kube.patch.values import copy_json
from sandlane.local.apiserver.schema import Schema
from sandlane.local.apiserver.wire.conform import conform

OBJECT_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"

_TOP = ("apiVersion", "kind", "metadata")


def default(value: Any, schema: Schema) -> None:
    """Fill in defaults where the parent exists; null becomes the default where null is no value of the field."""
    if isinstance(value, dict):
        for name, child in schema.properties.items():
            given = value.get(name, msgspec.UNSET)
            if child.default is not msgspec.UNSET and (
                given is msgspec.UNSET or (given is None and not child.nullable)
            ):
                value[name] = copy_json(child.default)
            elif given is None and not child.nullable:
                value.pop(name, None)
        for name in list(value):
            found = schema.properties.get(name) or schema.additional
            if found is None:
                continue
            if value[name] is None and name not in schema.properties and not found.nullable:
                if found.default is msgspec.UNSET:
                    del value[name]
                    continue
                value[name] = copy_json(found.default)
            default(value[name], found)
    elif isinstance(value, list) and schema.items is not None:
        for item in value:
            default(item, schema.items)


def prune(value: Any, schema: Schema, path: str = "", *, top: bool = True) -> list[str]:
    """Drop fields that the schema does not name; their paths."""
    dropped: list[str] = []
    if isinstance(value, dict):
        for name in list(value):
            at = f"{path}.{name}" if path else name
            if top and name == "metadata":
                if path and isinstance(value[name], dict):
                    value[name], unknown = conform(value[name], OBJECT_META)
                    dropped += [f"{at}.{field}" for field in unknown]
                continue
            child = schema.properties.get(name)
            if child is None:
                child = schema.additional
            if child is not None:
                dropped += prune(value[name], child, at, top=child.embedded)
            elif top and name in _TOP:
                continue
            elif not schema.preserve_unknown:
                del value[name]
                dropped.append(at)
    elif isinstance(value, list) and schema.items is not None:
        for index, item in enumerate(value):
            dropped += prune(item, schema.items, f"{path}[{index}]", top=schema.items.embedded)
    return dropped
