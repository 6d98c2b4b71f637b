"""The `managedFields` of an object: kept right on every write, and the decisions of server-side apply.

Pure but for conversion: what a manager wrote in another version is compared in that version. The rules are those of https://kubernetes.io/docs/reference/using-api/server-side-apply/ and of structured-merge-diff.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

from sandlane.kube.patch.values import copy_json, equal_json
from sandlane.kube.resource import Object
from sandlane.local.apiserver.managed_fields.compare import Comparison, compare, fields_of_new
from sandlane.local.apiserver.managed_fields.fieldset import (
    STRIPPED,
    DuplicateKey,
    FieldSet,
    Path,
    fields_of,
    from_fields,
    path_text,
    to_fields,
    with_named_parents,
    within_atoms,
)
from sandlane.local.apiserver.managed_fields.merge import merge, remove
from sandlane.local.apiserver.managed_fields.versions import Versions
from sandlane.local.apiserver.schema import Schema

APPLY, UPDATE = "Apply", "Update"
BEFORE_FIRST_APPLY = "before-first-apply"
ANCIENT = "ancient-changes"
MOST_UPDATERS = 10
_STATUS: FieldSet = frozenset({("f:status",)})
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


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
class Change:
    """Who writes, through which door, when. `reset`: what cannot be written through it; `typed`: a built-in kind;
    `blank`: an object of the kind that says nothing.
    """

    manager: str
    api_version: str
    subresource: str
    now: str
    reset: FieldSet = frozenset()
    typed: bool = True
    blank: Object = field(default_factory=dict)


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

    def seen_in(self, api_version: str) -> None:
        """Tell them in the version of a subresource."""
        self.conflicts = [
            replace(conflict, manager=replace(conflict.manager, api_version=api_version)) for conflict in self.conflicts
        ]

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
    entries = [_entry(each, to_fields(each.fields)) for each in sorted(managers, key=_order) if each.fields]
    if entries:
        obj["metadata"]["managedFields"] = entries
    else:
        obj["metadata"].pop("managedFields", None)


def _entry(manager: Manager, fields: Object) -> Object:
    return {
        "manager": manager.name,
        "operation": manager.operation,
        "apiVersion": manager.api_version,
        **({"time": manager.time} if manager.time else {}),
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
        **({"subresource": manager.subresource} if manager.subresource else {}),
    }


def _order(manager: Manager) -> tuple[bool, str, str, str, str]:
    return manager.operation != APPLY, manager.time, manager.name, manager.api_version, manager.subresource


def without_managers(obj: Object) -> Object:
    """A shallow copy without `managedFields`."""
    metadata = {key: value for key, value in obj.get("metadata", {}).items() if key != "managedFields"}
    return {**obj, "metadata": metadata}


async def on_update(old: Object | None, new: Object, versions: Versions, change: Change) -> None:
    """Set `new`'s managedFields after a create, replace or patch: what changed belongs to its manager now.

    What has no entries gets none. Raises `StatusError` where an entry is of a version that cannot be had.
    """
    if old is None and change.reset <= _STATUS:
        _on_create(new, versions.schema(change.api_version), change)
        return
    source = _authority(old, new, change) if old is not None else {}
    if old is not None and not source.get("metadata", {}).get("managedFields"):
        new["metadata"].pop("managedFields", None)
        return
    managers = await _known(source, versions, change)
    found = await _comparisons(old if old is not None else change.blank, new, managers, versions, change)
    compared = found[change.api_version]
    mine = Manager(change.manager, UPDATE, change.api_version, change.subresource, time=change.now)
    previous = next((entry for entry in managers if entry.identity == mine.identity), None)
    kept = _taken(managers, found)
    if compared.changed:
        own = next((entry.fields for entry in kept if entry.identity == mine.identity), frozenset())
        kept = [entry for entry in kept if entry.identity != mine.identity]
        kept.append(replace(mine, fields=own | compared.changed))
    elif previous is not None and compared.removed & previous.fields:
        kept = [replace(entry, time=change.now) if entry.identity == mine.identity else entry for entry in kept]
    write(new, _capped(kept))


def _authority(old: Object, new: Object, change: Change) -> Object:
    """The object whose entries count: a client may set them, or take them all off, but through no subresource."""
    given = new["metadata"].get("managedFields")
    if given is None or change.subresource:
        return old
    if given in ([], [{}]):
        return {}
    return new if all(_is_entry(entry) for entry in given) else old


def _is_entry(entry: Object) -> bool:
    fields = entry.get("fieldsV1")
    good = entry.get("fieldsType") == "FieldsV1" and isinstance(fields, dict) and bool(entry.get("apiVersion"))
    return good and entry.get("operation") in (APPLY, UPDATE)


def _on_create(new: Object, schema: Schema | None, change: Change) -> None:
    """The most frequent case: one manager, of everything."""
    fields = fields_of_new(new, schema, change.blank, status=not change.reset)
    new["metadata"].pop("managedFields", None)
    if fields:
        new["metadata"]["managedFields"] = [
            _entry(Manager(change.manager, UPDATE, change.api_version, change.subresource, time=change.now), fields)
        ]


async def apply(live: Object | None, applied: Object, versions: Versions, change: Change, *, force: bool) -> Object:
    """The object after server-side apply, managedFields included. Raises `Conflicts`, `DuplicateKey` and `StatusError`."""
    schema = versions.schema(change.api_version)
    config = without_managers(applied)
    claimed = _without(frozenset(fields_of(config, schema)), change.reset)
    wanted = claimed - STRIPPED
    base = without_managers(live) if live is not None else {}
    managers = await _known(live, versions, change) if live is not None else []
    if live is not None and not managers:
        everything = compare(change.blank, base, schema).changed - STRIPPED
        managers = [Manager(BEFORE_FIRST_APPLY, UPDATE, change.api_version, "", everything, change.now)]
    mine = Manager(change.manager, APPLY, change.api_version, change.subresource, wanted, change.now)
    previous = next((entry for entry in managers if _same_applier(entry, mine)), None)
    others = [entry for entry in managers if entry is not previous]
    merged = merge(base, config, schema) if live is not None else copy_json(config)
    if previous is not None and previous.fields:
        merged = await _pruned(merged, [replace(mine, fields=claimed), *others], previous, versions)
    found = await _comparisons(base, merged, others, versions, change)
    conflicts = [
        ManagerConflict(entry, path)
        for entry in others
        for path in sorted(entry.fields & found[entry.api_version].changed)
    ]
    if conflicts and live is not None and not (force or _left_by_kubectl(conflicts, live, schema, change)):
        raise Conflicts(conflicts)
    if live is not None and previous is not None and previous.fields == wanted and merged == base:
        mine = replace(mine, time=previous.time)
    result: Object = copy_json(merged)
    write(result, [*_taken(others, found), mine])
    if change.manager == "kubectl" and LAST_APPLIED in (result["metadata"].get("annotations") or {}):
        result["metadata"]["annotations"][LAST_APPLIED] = _last_applied(config)
    return result


async def _known(live: Object, versions: Versions, change: Change) -> list[Manager]:
    """The entries of an object whose versions there are, as the schema groups their fields now."""
    entries = [entry for entry in read(live) if versions.has(entry.api_version)]
    if change.typed:
        return entries
    return [replace(entry, fields=within_atoms(entry.fields, versions.schema(entry.api_version))) for entry in entries]


async def _comparisons(
    old: Object, new: Object, managers: list[Manager], versions: Versions, change: Change
) -> dict[str, Comparison]:
    """What a write changes, in its own version and in those of the managers."""
    old, new = without_managers(old), without_managers(new)
    found = {change.api_version: _compared(old, new, versions.schema(change.api_version), change)}
    for version in sorted({entry.api_version for entry in managers} - found.keys()):
        before = await versions.show(old, version, "old object") if old else old
        after = await versions.show(new, version, "new object")
        found[version] = _compared(before, after, versions.schema(version), change)
    return found


def _compared(old: Object, new: Object, schema: Schema | None, change: Change) -> Comparison:
    """What a write changes, without what nobody manages and what this kind of write cannot change."""
    found = compare(old, new, schema)
    return Comparison(
        *(_without(paths - STRIPPED, change.reset) for paths in (found.added, found.modified, found.removed))
    )


def _taken(managers: list[Manager], found: dict[str, Comparison]) -> list[Manager]:
    """The managers without the fields that somebody else changed, or that are gone."""
    kept = []
    for entry in managers:
        lost = entry.fields & (found[entry.api_version].changed | found[entry.api_version].removed)
        kept.append(replace(entry, fields=entry.fields - lost) if lost else entry)
    return kept


async def _pruned(merged: Object, owners: list[Manager], last: Manager, versions: Versions) -> Object:
    """`merged` without what the applier applied last time (`last`), unless somebody has it now (`owners`)."""
    mine, at = owners[0].api_version, last.api_version
    first = base = await versions.show(merged, at)
    schema = versions.schema(at)
    pruned = remove(base, with_named_parents(last.fields, schema), schema)
    for version in sorted({owner.api_version for owner in owners}, key=lambda version: (version != at, version)):
        base, pruned = await versions.show(base, version), await versions.show(pruned, version)
        shape = versions.schema(version)
        everything, left = (with_named_parents(_fields(obj, shape), shape) for obj in (base, pruned))
        owned = frozenset[Path]().union(*(owner.fields for owner in owners if owner.api_version == version))
        pruned = remove(base, everything - (left | with_named_parents(owned, shape)), shape)
    pruned = await versions.show(pruned, at)
    everything, left = (with_named_parents(_fields(obj, schema), schema) for obj in (first, pruned))
    return await versions.show(
        remove(first, (everything - left) & with_named_parents(last.fields, schema), schema), mine
    )


def _last_applied(config: Object) -> str:
    """What kubectl's client-side apply would have left behind."""
    metadata = dict(config["metadata"])
    if LAST_APPLIED in (metadata.get("annotations") or {}):
        metadata["annotations"] = {key: each for key, each in metadata["annotations"].items() if key != LAST_APPLIED}
    text = json.dumps(config | {"metadata": metadata}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text + "\n"


def _fields(obj: Object, schema: Schema | None) -> FieldSet:
    """The fields of an object that may have duplicates in its lists."""
    try:
        return frozenset(fields_of(obj, schema))
    except DuplicateKey:
        return compare({}, obj, schema).added


def _left_by_kubectl(conflicts: list[ManagerConflict], live: Object, schema: Schema | None, change: Change) -> bool:
    """Whether kubectl applies what its client-side apply left behind: all conflicts are with that, and in its annotation."""
    if change.manager != "kubectl":
        return False
    text = (live["metadata"].get("annotations") or {}).get(LAST_APPLIED)
    if not text or any(not conflict.manager.name.startswith("kubectl") for conflict in conflicts):
        return False
    try:
        left = fields_of(json.loads(text), schema)
    except (ValueError, DuplicateKey):
        return False
    return all(conflict.path in left for conflict in conflicts)


def _capped(managers: list[Manager]) -> list[Manager]:
    """At most so many updaters: the oldest become one, per version."""
    updaters = sorted((entry for entry in managers if entry.operation == UPDATE), key=lambda entry: entry.time)
    surplus = updaters[: max(0, len(updaters) - MOST_UPDATERS + 1)] if len(updaters) > MOST_UPDATERS else []
    if not surplus:
        return managers
    kept = [entry for entry in managers if entry not in surplus]
    for version in {entry.api_version for entry in surplus}:
        old = [entry for entry in surplus if entry.api_version == version]
        fields = frozenset(path for entry in old for path in entry.fields)
        kept.append(Manager(ANCIENT, UPDATE, version, "", fields, old[-1].time))
    return kept


def _same_applier(entry: Manager, mine: Manager) -> bool:
    return (entry.name, entry.operation, entry.subresource) == (mine.name, APPLY, mine.subresource)


def _without(fields: FieldSet, reset: FieldSet) -> FieldSet:
    """`fields` without those at or below `reset`."""
    if not reset:
        return fields
    return frozenset(path for path in fields if not any(path[: len(root)] == root for root in reset))


def same_but_times(left: Object, right: Object) -> bool:
    """Whether two objects differ in nothing but the times of managedFields and the resourceVersion."""
    return equal_json(_plain(left), _plain(right))


def _plain(obj: Object) -> Any:
    metadata = {key: value for key, value in obj.get("metadata", {}).items() if key != "resourceVersion"}
    if metadata.get("managedFields"):
        entries = [{key: value for key, value in entry.items() if key != "time"} for entry in metadata["managedFields"]]
        metadata["managedFields"] = sorted(entries, key=lambda entry: json.dumps(entry, sort_keys=True))
    return {**obj, "metadata": metadata}
