"""What a schema means in CEL: the types of values, and the values themselves. Pure.

https://kubernetes.io/docs/reference/using-api/cel/#type-system-integration-of-custom-resources.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from sandlane.local.apiserver.cel import types
from sandlane.local.apiserver.cel.syntax import RESERVED
from sandlane.local.apiserver.cel.times import parse_date, parse_duration, parse_timestamp
from sandlane.local.apiserver.cel.types import DYN, Field, Type
from sandlane.local.apiserver.cel.values import EvaluationError, MapList, SetList
from sandlane.local.apiserver.schema import Schema

_META = Schema({"type": "object", "properties": {"name": {"type": "string"}, "generateName": {"type": "string"}}})
_ESCAPES = {"__": "__underscores__", ".": "__dot__", "-": "__dash__", "/": "__slash__"}
_ESCAPED = re.compile(r"__|[.\-/]")
_WORDS = RESERVED | {"true", "false", "null"}
_SCALARS = {"string": types.STRING, "integer": types.INT, "number": types.DOUBLE, "boolean": types.BOOL}


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise EvaluationError(f"invalid base64: {error}") from error


_FORMATS: dict[str, tuple[Type, Callable[[str], Any]]] = {
    "byte": (types.BYTES, _bytes),
    "date": (types.TIMESTAMP, parse_date),
    "date-time": (types.TIMESTAMP, parse_timestamp),
    "duration": (types.DURATION, parse_duration),
}


@lru_cache(maxsize=4096)
def escaped(name: str) -> str:
    """How a property is called in an expression; empty where it cannot be."""
    if name in _WORDS:
        return f"__{name}__"
    made = _ESCAPED.sub(lambda match: _ESCAPES[match[0]], name)
    return made if made.isidentifier() and made.isascii() else ""


def type_of(schema: Schema) -> Type:
    """The type of values of a schema (kept on the schema: the same object each time)."""
    known: Type | None = schema.__dict__.get("_cel_type")
    if known is None:
        known = schema.__dict__["_cel_type"] = _type_of(schema)
    return known


def _type_of(schema: Schema) -> Type:
    if schema.int_or_string:
        return DYN
    match schema.type:
        case "array":
            return types.list_of(type_of(schema.items) if schema.items is not None else DYN)
        case "object":
            if schema.additional is not None and not schema.raw.get("properties"):
                return types.map_of(types.STRING, type_of(schema.additional))
            return Type("object", (), _Fields(schema))
        case "string" if schema.format in _FORMATS:
            return _FORMATS[schema.format][0]
    return _SCALARS.get(schema.type, DYN)


@lru_cache(maxsize=1024)
def whole_type(schema: Schema) -> Type:
    """The type of whole objects, with all of their metadata: as policies see them."""
    return Type("object", (), _Fields(schema, whole=True))


class _Fields:
    """The fields of an object. `whole`: with all of metadata."""

    def __init__(self, schema: Schema, *, whole: bool = False) -> None:
        self._schema = schema
        self._whole = whole
        self._fields: dict[str, Field] | None = None

    def __call__(self, name: str) -> Field | None:
        if self._fields is None:
            found = self._schema.properties if self._whole else fields_of(self._schema)
            found = {name: child for name, child in found.items() if not _is_quantity(child)}
            self._fields = {escaped(each): Field(each, type_of(child)) for each, child in found.items()}
            self._fields.pop("", None)
        return self._fields.get(name)


def _is_quantity(schema: Schema) -> bool:
    """Whether it is a quantity, or a map of them, of a built-in kind: upstream gives those no type, and so no field."""
    of = schema.additional if schema.additional is not None else schema
    return of.format == "quantity" and of.int_or_string


def fields_of(schema: Schema) -> Mapping[str, Schema]:
    """The properties of an object that rules may see: of metadata the name alone."""
    found = schema.properties
    metadata = found.get("metadata")
    if metadata is None or not ("apiVersion" in found and "kind" in found and "ObjectMeta" in _reference(schema)):
        return found
    return {**found, "metadata": _META}


def _reference(schema: Schema) -> str:
    return str((schema.raw.get("properties") or {}).get("metadata", {}).get("$ref", ""))


def _is_plain(schema: Schema) -> bool:
    """Whether values are in CEL what they are in JSON (kept on the schema)."""
    known: bool | None = schema.__dict__.get("_cel_plain")
    if known is None:
        schema.__dict__["_cel_plain"] = True  # for a schema that contains itself
        known = not (
            schema.type == "number"
            or schema.format in _FORMATS
            or schema.list_type in ("set", "map")
            or any(not _is_plain(each) for each in fields_of(schema).values())
            or (schema.items is not None and not _is_plain(schema.items))
            or (schema.additional is not None and not _is_plain(schema.additional))
        )
        schema.__dict__["_cel_plain"] = known
    return known


def value_of(value: Any, schema: Schema) -> Any:
    """A value as CEL sees it. Raises `EvaluationError` for a text that is not of its format."""
    if value is None or _is_plain(schema):
        return value
    if isinstance(value, dict):
        fields = fields_of(schema)
        made = {}
        for name, below in value.items():
            child = fields.get(name) or schema.additional
            made[name] = value_of(below, child) if child is not None else below
        return made
    if isinstance(value, list):
        items = value if schema.items is None else [value_of(each, schema.items) for each in value]
        if schema.list_type == "set":
            return SetList(items)
        if schema.list_type == "map":
            keyed = MapList(items)
            keyed.keys = schema.list_keys
            return keyed
        return items
    if isinstance(value, str) and schema.format in _FORMATS and not schema.int_or_string:
        return _FORMATS[schema.format][1](value)
    if schema.type == "number" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value
