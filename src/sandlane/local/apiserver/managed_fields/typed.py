"""What an applied object has that its kind cannot have: wrong types, unknown fields, items twice. In the words of structured-merge-diff. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from sandlane.local.apiserver.managed_fields.fieldset import (
    child_schema,
    item_element,
    list_kind,
    path_text,
)
from sandlane.local.apiserver.schema import Schema

_SCALARS = {"string": (str,), "boolean": (bool,), "integer": (int, float), "number": (int, float)}


def type_faults(value: Any, schema: Schema | None, at: str = "") -> Iterator[str]:
    """The faults of a value, each with its path; `null` and what has no schema is always fine."""
    if value is None or schema is None or schema.format == "int-or-string":
        return
    if schema.int_or_string:
        if isinstance(value, (Mapping, list)):
            yield f"{at}: expected any scalar, got &{{{_plain(value)}}}"
    elif schema.type == "object":
        if isinstance(value, Mapping):
            yield from _map_faults(value, schema, at)
        else:
            yield f"{at}: expected map, got &{{{_plain(value)}}}"
    elif schema.type == "array":
        if isinstance(value, list):
            yield from _list_faults(value, schema, at)
        else:
            yield f"{at}: expected list, got &{{{_plain(value)}}}"
    elif schema.type in _SCALARS:
        fits = isinstance(value, _SCALARS[schema.type])
        if not fits or (isinstance(value, bool) and schema.type != "boolean"):
            yield f"{at}: {_wanted(schema.type, value)}"


def _map_faults(value: Mapping[str, Any], schema: Schema, at: str) -> Iterator[str]:
    for name, below in value.items():
        child = child_schema(schema, name)
        if child is not None:
            yield from type_faults(below, child, f"{at}.{name}")
        elif not schema.preserve_unknown and (schema.properties or schema.additional is not None):
            yield f"{at}.{name}: field not declared in schema"


def _list_faults(value: list[Any], schema: Schema, at: str) -> Iterator[str]:
    kind, seen = list_kind(schema), set[str]()
    for index, item in enumerate(value):
        place = f"[{index}]"
        if kind == "map" and not isinstance(item, Mapping):
            yield f"{at}: element {index}: associative list with keys may not have non-map elements"
            return
        if kind != "atomic":
            place = path_text((item_element(item, schema),)) or place
            if place in seen and place != f"[{index}]":
                yield f"{at}: duplicate entries for key {place}"
            seen.add(place)
        yield from type_faults(item, schema.items, f"{at}{place}")


def _wanted(type_: str, value: Any) -> str:
    if type_ == "string":
        return f"expected string, got &value.valueUnstructured{{Value:{_go_syntax(value)}}}"
    if type_ == "boolean":
        return f"expected boolean, got &{{{_plain(value)}}}"
    names = {str: "string", bool: "bool", list: "[]interface {}"}
    return f"expected numeric (int or float), got {names.get(type(value), 'map[string]interface {}')}"


def _plain(value: Any) -> str:
    """A value as Go prints it with `%v`."""
    match value:
        case None:
            return "<nil>"
        case bool():
            return str(value).lower()
        case list():
            return "[" + " ".join(map(_plain, value)) + "]"
        case Mapping():
            return "map[" + " ".join(f"{key}:{_plain(value[key])}" for key in sorted(value)) + "]"
    return str(value)


def _go_syntax(value: Any) -> str:
    """A value as Go prints it with `%#v`."""
    match value:
        case None:
            return "interface {}(nil)"
        case list():
            return "[]interface {}{" + ", ".join(map(_go_syntax, value)) + "}"
        case Mapping():
            inside = ", ".join(f"{json.dumps(key)}:{_go_syntax(value[key])}" for key in sorted(value))
            return f"map[string]interface {{}}{{{inside}}}"
    return json.dumps(value)
