"""The `managedFields` of an object: kept right on every write, and the decisions of server-side apply. Pure.

The rules are those of https://kubernetes.io/docs/reference/using-api/server-side-apply/ and of structured-merge-diff.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from sandlane.kube.patch.values import copy_json, equal_json
from sandlane.kube.resource import Object
from sandlane.local.apiserver.managed_fields.fieldset import (
    STRIPPED,
    DuplicateKey,
    FieldSet,
    Path,
    fields_of,
    from_fields,
    lookup,
    path_text,
    to_fields,
)
from sandlane.local.apiserver.managed_fields.merge import merge, remove
from sandlane.local.apiserver.schema import Schema

APPLY, UPDATE = "Apply", "Update"
BEFORE_FIRST_APPLY = "before-first-apply"


@dataclass(frozen=True)
class Manager:
    """One entry of `managedFields`."""

    name: str
    operation: str
    api_version: str
    subresource: str = ""
    fields: FieldSet = frozenset()
    time: str = ""

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """What makes two entries the same manager."""
        return self.name, self.operation, self.api_version, self.subresource


@dataclass(frozen=True)
class ManagerConflict:
    """A field that is applied with another value than its manager gave it."""

    manager: Manager
    path: Path


class Conflicts(Exception):
    """Server-side apply without force met fields of others."""

    def __init__(self, conflicts: list[ManagerConflict]) -> None:
        super().__init__(f"Apply failed with {len(conflicts)} conflicts")
        self.conflicts = conflicts

    def causes(self) -> list[Object]:
        """Causes of the Status."""
        return [
            {
                "reason": "FieldManagerConflict",
                "message": f"conflict with {_describe(conflict.manager)}",
                "field": path_text(conflict.path),
            }
            for conflict in self.conflicts
        ]

    def message(self) -> str:
        """The Status' message."""
        by_manager: dict[str, list[str]] = {}
        for conflict in self.conflicts:
            by_manager.setdefault(f"conflicts with {_describe(conflict.manager)}", []).append(path_text(conflict.path))
        count = len(self.conflicts)
        if count == 1:
            conflict = self.conflicts[0]
            return (
                f"Apply failed with 1 conflict: conflict with {_describe(conflict.manager)}: {path_text(conflict.path)}"
            )
        lines = [f"{who}:\n- " + "\n- ".join(paths) for who, paths in by_manager.items()]
        return f"Apply failed with {count} conflicts: " + "\n".join(lines)


def _describe(manager: Manager) -> str:
    text = f'"{manager.name}"'
    if manager.subresource:
        text += f' with subresource "{manager.subresource}"'
    if manager.operation == UPDATE:
        text += f" using {manager.api_version}"
        if manager.time:
            text += f" at {manager.time}"
    return text


def read(obj: Object) -> list[Manager]:
    """The entries of an object."""
    return [
        Manager(
            entry.get("manager", ""),
            entry.get("operation", ""),
            entry.get("apiVersion", ""),
            entry.get("subresource", ""),
            from_fields(entry.get("fieldsV1") or {}),
            entry.get("time", ""),
        )
        for entry in obj.get("metadata", {}).get("managedFields") or ()
    ]


def write(obj: Object, managers: list[Manager]) -> None:
    """Put entries into an object, in the server's order."""
    entries = [
        {
            "manager": manager.name,
            "operation": manager.operation,
            "apiVersion": manager.api_version,
            **({"time": manager.time} if manager.time else {}),
            "fieldsType": "FieldsV1",
            "fieldsV1": to_fields(manager.fields),
            **({"subresource": manager.subresource} if manager.subresource else {}),
        }
        for manager in sorted(managers, key=_order)
        if manager.fields
    ]
    if entries:
        obj["metadata"]["managedFields"] = entries
    else:
        obj["metadata"].pop("managedFields", None)


def _order(manager: Manager) -> tuple[bool, str, str, str, str]:
    return manager.operation != APPLY, manager.time, manager.name, manager.api_version, manager.subresource


def without_managers(obj: Object) -> Object:
    """A shallow copy without `managedFields`."""
    metadata = {key: value for key, value in obj.get("metadata", {}).items() if key != "managedFields"}
    return {**obj, "metadata": metadata}


def field_set(obj: Object, schema: Schema | None) -> FieldSet:
    """All managed fields of an object. A list with duplicates counts as a whole."""
    try:
        found = fields_of(without_managers(obj), schema)
    except DuplicateKey:
        found = fields_of(without_managers(obj), None)
    return frozenset(found) - STRIPPED


def changed_fields(old: Object, new: Object, schema: Schema | None) -> tuple[FieldSet, FieldSet]:
    """Fields of `new` that were added or have another value, and fields of `old` that are gone."""
    before, after = field_set(old, schema), field_set(new, schema)
    changed = set(after - before)
    for path in after & before:
        _, left = lookup(old, path, schema)
        _, right = lookup(new, path, schema)
        is_leaf = not isinstance(right, dict) or not any(len(p) > len(path) and p[: len(path)] == path for p in after)
        if isinstance(right, list) and any(len(p) > len(path) and p[: len(path)] == path for p in after):
            is_leaf = False
        if is_leaf and not equal_json(left, right):
            changed.add(path)
    return frozenset(changed), before - after


def on_update(
    old: Object | None,
    new: Object,
    schema: Schema | None,
    *,
    manager: str,
    api_version: str,
    subresource: str,
    now: str,
    reset: FieldSet = frozenset(),
) -> None:
    """Set `new`'s managedFields after a create, replace or patch: what changed belongs to `manager` now.

    `new` may carry managedFields of its own: an empty list given by the client removes all; otherwise those of `old`
    count.
    """
    managers = read(old) if old is not None else []
    changed, gone = changed_fields(old if old is not None else {}, new, schema)
    changed = _without(changed, reset)
    present = field_set(new, schema)
    mine = Manager(manager, UPDATE, api_version, subresource, time=now)
    kept: list[Manager] = []
    own: FieldSet = frozenset()
    time = now
    for entry in managers:
        if entry.identity == mine.identity:
            own = entry.fields
            if not changed and not (entry.fields & gone):
                time = entry.time
            continue
        fields = (entry.fields - changed) & _living(entry.fields, present)
        kept.append(entry if fields == entry.fields else replace(entry, fields=fields))
    fields = (own | changed) & _living(own | changed, present)
    write(new, [*kept, replace(mine, fields=fields, time=time)])


def _living(fields: FieldSet, present: FieldSet) -> FieldSet:
    """Those of `fields` that are in the object, as themselves or through something below them."""
    prefixes = {path[:length] for path in present for length in range(1, len(path) + 1)}
    return frozenset(path for path in fields if path in prefixes)


def _without(fields: FieldSet, reset: FieldSet) -> FieldSet:
    """`fields` without those at or below `reset`."""
    if not reset:
        return fields
    return frozenset(path for path in fields if not any(path[: len(root)] == root for root in reset))


def apply(
    live: Object | None,
    applied: Object,
    schema: Schema | None,
    *,
    manager: str,
    api_version: str,
    subresource: str,
    now: str,
    force: bool,
    reset: FieldSet = frozenset(),
) -> Object:
    """The object after server-side apply, managedFields included. Raises `Conflicts` and `DuplicateKey`."""
    config = without_managers(applied)
    wanted = _without(frozenset(fields_of(config, schema)) - STRIPPED, reset)
    base = without_managers(live) if live is not None else {}
    managers = read(live) if live is not None else []
    if live is not None and not any(True for _ in managers):
        first = field_set(base, schema)
        managers = [Manager(BEFORE_FIRST_APPLY, UPDATE, live.get("apiVersion", api_version), "", first, now)]
    mine = Manager(manager, APPLY, api_version, subresource, wanted, now)
    previous = next((entry for entry in managers if entry.identity == mine.identity), None)
    previous = previous or next(
        (e for e in managers if (e.name, e.operation, e.subresource) == (manager, APPLY, subresource)), None
    )
    merged = merge(base, config, schema) if live is not None else copy_json(config)
    others = [entry for entry in managers if entry is not previous]
    changed = wanted & changed_fields(base, merged, schema)[0] if live is not None else wanted
    conflicts = [
        ManagerConflict(entry, path)
        for entry in others
        for path in sorted(changed & entry.fields)
        if live is not None and lookup(base, path, schema)[0]
    ]
    if conflicts and not force:
        raise Conflicts(conflicts)
    if conflicts:
        lost: dict[int, set[Path]] = {}
        for conflict in conflicts:
            lost.setdefault(id(conflict.manager), set()).add(conflict.path)
        others = [replace(entry, fields=entry.fields - lost.get(id(entry), set())) for entry in others]
    if previous is not None:
        dropped = previous.fields - wanted
        owned_by_others = frozenset(path for entry in others for path in entry.fields)
        shielded = frozenset(path[:n] for path in owned_by_others for n in range(1, len(path) + 1))
        gone = frozenset(path for path in dropped if path not in shielded and not _is_above(path, wanted))
        if gone:
            merged = remove(merged, gone, schema)
            present = field_set(merged, schema)
            others = [replace(entry, fields=_living(entry.fields, present)) for entry in others]
        if not changed and wanted == previous.fields:
            mine = replace(mine, time=previous.time)
    result: Object = copy_json(merged)
    write(result, [*others, mine])
    return result


def _is_above(path: Path, fields: FieldSet) -> bool:
    return any(len(other) > len(path) and other[: len(path)] == path for other in fields)


def same_but_times(left: Object, right: Object) -> bool:
    """Whether two objects differ in nothing but the times of managedFields and the resourceVersion."""
    return equal_json(_plain(left), _plain(right))


def _plain(obj: Object) -> Any:
    metadata = {key: value for key, value in obj.get("metadata", {}).items() if key != "resourceVersion"}
    if metadata.get("managedFields"):
        entries = [{key: value for key, value in entry.items() if key != "time"} for entry in metadata["managedFields"]]
        metadata["managedFields"] = sorted(entries, key=lambda entry: json.dumps(entry, sort_keys=True))
    return {**obj, "metadata": metadata}
