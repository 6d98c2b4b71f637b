"""Server-side apply: merging an applied object into a live one, and taking fields out of an object. Pure."""

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
    if isinstance(live, list) and isinstance(applied, list) and list_kind(schema) in ("set", "map"):
        return _merge_list(live, applied, schema)
    return copy_json(applied)


def _merge_list(live: list[Any], applied: list[Any], schema: Schema | None) -> list[Any]:
    """Applied items in their order; live items that were not applied stay before the item that they stood before."""
    items = schema.items if schema is not None and list_kind(schema) == "map" else None
    ours = [item_element(item, schema) for item in live]
    theirs = [item_element(item, schema) for item in applied]
    by_element = dict(zip(reversed(ours), reversed(live), strict=True))  # of duplicates the first
    wanted = dict(zip(theirs, applied, strict=True))
    shared = [element for element in theirs if element in by_element]
    merged: list[Any] = []
    done: set[str] = set()
    left = right = 0

    def take_applied(element: str) -> None:
        done.add(element)
        if element in shared:
            shared.remove(element)
        if element in by_element and items is not None:
            merged.append(merge(by_element[element], wanted[element], items))
        else:
            merged.append(copy_json(wanted[element]))

    while left < len(ours) or right < len(theirs):
        if left < len(ours):
            element = ours[left]
            if right < len(theirs) and element == theirs[right]:
                take_applied(element)
                left, right = left + 1, right + 1
                continue
            if element not in wanted:
                merged.append(live[left])
                left += 1
                continue
            if element in done or (shared and shared[0] != element):
                left += 1  # it comes, or came, where the applied order puts it
                continue
        if right < len(theirs):
            take_applied(theirs[right])
            right += 1
    return merged


def remove(value: Any, gone: FieldSet, schema: Schema | None, at: Path = ()) -> Any:
    """`value` without the fields and items of `gone`, and without the maps and lists that lose all they had by it."""
    rest = _Remover(gone).remove(value, schema, at)
    return {} if rest is None else rest


class _Remover:
    def __init__(self, gone: FieldSet) -> None:
        self._gone = gone
        self._above = {path[:length] for path in gone for length in range(len(path))}

    def remove(self, value: Any, schema: Schema | None, at: Path) -> Any:
        if not value or at not in self._above:
            return value
        if is_granular_map(value, schema):
            kept: dict[str, Any] = {}
            for name, below in value.items():
                path = (*at, f"f:{name}")
                if path in self._gone:
                    continue
                rest = self.remove(below, child_schema(schema, name), path)
                if rest is not None or below is None:
                    kept[name] = rest
            return kept or None
        if isinstance(value, list) and list_kind(schema) in ("set", "map"):
            items = schema.items if schema is not None and list_kind(schema) == "map" else None
            left = []
            for item in value:
                path = (*at, item_element(item, schema))
                if path not in self._gone:
                    left.append(self.remove(item, items, path) if items is not None else item)
            return left or None
        return value
