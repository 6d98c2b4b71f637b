"""Server-side apply: merging an applied object into a live one, and removing what its manager no longer applies. Pure."""

from __future__ import annotations

from typing import Any

from sandlane.kube.patch.values import copy_json
from sandlane.local.apiserver.managed_fields.fieldset import (
    FieldSet,
    Path,
    child_schema,
    is_granular_map,
    item_element,
    list_kind,
)
from sandlane.local.apiserver.schema import Schema


def merge(live: Any, applied: Any, schema: Schema | None) -> Any:
    """`live` with everything in `applied` laid over it: maps field by field, keyed lists and sets item by item."""
    if is_granular_map(live, schema) and is_granular_map(applied, schema):
        merged = dict(live)
        for name, value in applied.items():
            child = child_schema(schema, name)
            merged[name] = merge(live[name], value, child) if name in live else copy_json(value)
        return merged
    kind = list_kind(schema)
    if isinstance(live, list) and isinstance(applied, list) and kind in ("set", "map"):
        return _merge_list(live, applied, schema)
    return copy_json(applied)


def _merge_list(live: list[Any], applied: list[Any], schema: Schema | None) -> list[Any]:
    """Applied items keep their order; live items that were not applied stay where they were between them."""
    items = schema.items if schema is not None and list_kind(schema) == "map" else None
    by_element = {item_element(item, schema): item for item in live}
    wanted = [(item_element(item, schema), item) for item in applied]
    order = {element for element, _ in wanted}
    merged: list[Any] = []
    position = 0
    done: set[str] = set()

    def take_unapplied(until: str | None) -> None:
        nonlocal position
        while position < len(live):
            element = item_element(live[position], schema)
            if element in order:
                if element == until or until is None:
                    position += 1
                    if until is not None:
                        return
                    continue
                if element in done:
                    position += 1
                    continue
                return
            merged.append(live[position])
            position += 1

    for element, item in wanted:
        if element in by_element:
            take_unapplied(element)
            merged.append(merge(by_element[element], item, items) if items is not None else item)
        else:
            merged.append(copy_json(item))
        done.add(element)
    take_unapplied(None)
    return merged


def remove(value: Any, gone: FieldSet, schema: Schema | None, at: Path = ()) -> Any:
    """`value` without the fields and items of `gone`. Maps and lists that become empty by it stay, unless they are in
    `gone` themselves."""
    if is_granular_map(value, schema):
        kept = {}
        for name, below in value.items():
            path = (*at, f"f:{name}")
            child = child_schema(schema, name)
            if path in gone:
                if not _has_below(gone, path) or not isinstance(below, (dict, list)):
                    continue
                rest = remove(below, gone, child, path)
                if rest in ({}, []):
                    continue
                kept[name] = rest
                continue
            if not _has_below(gone, path):
                kept[name] = below
                continue
            rest = remove(below, gone, child, path)
            if rest in ({}, []) and below not in ({}, []):
                continue
            kept[name] = rest
        return kept
    if isinstance(value, list) and list_kind(schema) in ("set", "map"):
        items = schema.items if schema is not None and list_kind(schema) == "map" else None
        left = []
        for item in value:
            path = (*at, item_element(item, schema))
            if path in gone:
                continue
            left.append(remove(item, gone, items, path) if items is not None and _has_below(gone, path) else item)
        return left
    return value


def _has_below(gone: FieldSet, path: Path) -> bool:
    length = len(path)
    return any(len(other) > length and other[:length] == path for other in gone)
