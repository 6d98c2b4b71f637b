"""Sets of fields of an object, as paths, and their form in `managedFields` (`FieldsV1`). Pure.

A path is a tuple of elements: `f:name` for a field, `k:{"name":"x"}` for an item of a keyed list,
`v:"x"` for an item of a set. An object's set holds the paths of its leaves and of the items and nested maps that
exist by themselves (`.` in FieldsV1).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import msgspec

from sandlane.kube.resource import Object
from sandlane.local.apiserver.schema import Schema

Path: TypeAlias = tuple[str, ...]
FieldSet: TypeAlias = frozenset[Path]

STRIPPED: frozenset[Path] = frozenset(
    tuple(f"f:{part}" for part in path.split("."))
    for path in (
        "apiVersion",
        "kind",
        "metadata",
        "metadata.name",
        "metadata.namespace",
        "metadata.creationTimestamp",
        "metadata.selfLink",
        "metadata.uid",
        "metadata.clusterName",
        "metadata.generation",
        "metadata.managedFields",
        "metadata.resourceVersion",
        "metadata.deletionTimestamp",
        "metadata.deletionGracePeriodSeconds",
    )
)
"""Fields that nobody manages."""


class DuplicateKey(ValueError):
    """Two items of a keyed list with the same key, or twice the same value in a set."""


def to_fields(paths: Iterable[Path]) -> Object:
    """The set as `FieldsV1`."""
    root: Object = {}
    for path in sorted(paths):
        node = root
        for element in path:
            node = node.setdefault(element, {})
    return _with_dots(root, frozenset(paths))


def _with_dots(root: Object, members: FieldSet, at: Path = ()) -> Object:
    """Mark the members that have members below them with `.`."""
    made: Object = {}
    if at in members and root:
        made["."] = {}
    for element, below in root.items():
        made[element] = _with_dots(below, members, (*at, element))
    return made


def from_fields(fields: Object, at: Path = ()) -> FieldSet:
    """The set that a `FieldsV1` stands for."""
    found: set[Path] = set()
    for element, below in fields.items():
        if element == ".":
            found.add(at)
            continue
        path = (*at, element)
        if not below:
            found.add(path)
        else:
            found |= from_fields(below, path)
    return frozenset(found)


def key_element(item: Object, schema: Schema) -> str:
    """The element of an item of a keyed list. Defaults of missing keys count."""
    keys: Object = {}
    properties = schema.items.properties if schema.items else {}
    for key in schema.list_keys:
        if key in item:
            keys[key] = item[key]
        elif key in properties and properties[key].default is not msgspec.UNSET:
            keys[key] = properties[key].default
    return "k:" + json.dumps(keys, separators=(",", ":"), sort_keys=True)


def value_element(value: Any) -> str:
    """The element of an item of a set."""
    return "v:" + json.dumps(value, separators=(",", ":"))


def child_schema(schema: Schema | None, name: str) -> Schema | None:
    """The schema of a field of an object; None where nothing is known of it."""
    if schema is None:
        return None
    found = schema.properties.get(name)
    return found if found is not None else schema.additional


def is_granular_map(value: Any, schema: Schema | None) -> bool:
    """Whether the fields of a map are managed one by one."""
    if not isinstance(value, Mapping):
        return False
    return schema is None or (schema.map_type == "granular" and not schema.int_or_string)


def list_kind(schema: Schema | None) -> str:
    """`atomic`, `set` or `map`."""
    return schema.list_type if schema is not None else "atomic"


def fields_of(value: Any, schema: Schema | None, at: Path = ()) -> set[Path]:
    """The paths that applying a value claims: its leaves, the items of keyed lists, entries of free maps.

    Raises `DuplicateKey`.
    """
    found: set[Path] = set()
    if is_granular_map(value, schema):
        named = schema.properties if schema is not None else {}
        for name, below in value.items():
            path = (*at, f"f:{name}")
            found |= fields_of(below, child_schema(schema, name), path)
            if below is None or below == {} or name not in named:
                found.add(path)
        return found
    if isinstance(value, list) and list_kind(schema) in ("set", "map"):
        items = schema.items if schema is not None and list_kind(schema) == "map" else None
        seen: set[str] = set()
        for item in value:
            element = item_element(item, schema)
            if element in seen:
                raise DuplicateKey(f"{path_text(at)}: duplicate entries for key {path_text((element,))}")
            seen.add(element)
            path = (*at, element)
            found.add(path)
            if items is not None:
                found |= fields_of(item, items, path)
        return found
    return {at} if at else set()


def with_named_parents(fields: FieldSet, schema: Schema | None) -> FieldSet:
    """`fields`, and the fields of structs that hold some of them."""
    found = set(fields)
    for path in fields:
        node = schema
        for depth, element in enumerate(path[:-1]):
            if element.startswith("f:"):
                name = element[2:]
                if node is not None and name in node.properties:
                    found.add(path[: depth + 1])
                node = child_schema(node, name)
            else:
                node = node.items if node is not None and element.startswith("k:") else None
    return frozenset(found)


def within_atoms(fields: FieldSet, schema: Schema | None) -> FieldSet:
    """`fields`, where the schema makes one value of what was managed in parts: that value in place of its parts."""
    return frozenset(_whole(path, schema) for path in fields) if schema is not None else fields


def _whole(path: Path, schema: Schema | None) -> Path:
    node = schema
    for depth, element in enumerate(path):
        if node is None:
            return path
        if element.startswith("f:"):
            if depth and node.map_type != "granular":
                return path[:depth]
            node = child_schema(node, element[2:])
        else:
            if list_kind(node) == "atomic":
                return path[:depth]
            node = node.items if element.startswith("k:") else None
    return path


def item_element(item: Any, schema: Schema | None) -> str:
    """The element of an item of a set or keyed list."""
    if list_kind(schema) == "map" and isinstance(item, dict):
        assert schema is not None
        return key_element(item, schema)
    return value_element(item)


def path_text(path: Path) -> str:
    """A path as kube-apiserver prints it: `.spec.containers[name="a"].image`."""
    text = ""
    for element in path:
        kind, rest = element[:2], element[2:]
        if kind == "f:":
            text += f".{rest}"
        elif kind == "k:":
            keys = json.loads(rest)
            text += "[" + ",".join(f"{key}={json.dumps(value)}" for key, value in sorted(keys.items())) + "]"
        else:
            text += f"[={rest}]"
    return text
