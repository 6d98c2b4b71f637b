"""What `metadata.managedFields` says: whether an applied object would change, and what others have put into it. Pure.

The form of `fieldsV1` is that of https://kubernetes.io/docs/reference/using-api/server-side-apply/: `f:` a field, `k:` an
item of a list by its keys, `v:` a value of a set, `.` the thing itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from sandlane.kube.quantity import QuantityError, canonical_quantity
from sandlane.kube.resource import Object

_MISSING: Any = object()
_IDENTITY = ("apiVersion", "kind")
_IDENTITY_METADATA = ("name", "namespace", "uid", "resourceVersion", "managedFields", "creationTimestamp", "generation")
_PHANTOMS = frozenset(
    f"f:{name}" for name in ("strategy", "updateStrategy", "resources", "status", "loadBalancer", "creationTimestamp")
)
"""Structures that the server writes, empty, for kinds of its own also when they were not applied."""


def would_change(desired: Object, live: Object, manager: str) -> bool:
    """Whether applying `desired` as `manager` would change the object: a value, or what the manager owns."""
    owned = _applied_by(live, manager)
    if owned is None:
        return True
    wanted = {name: value for name, value in desired.items() if name not in _IDENTITY}
    wanted["metadata"] = {k: v for k, v in desired["metadata"].items() if k not in _IDENTITY_METADATA}
    return _differs(wanted, live, owned)


def foreign_paths(desired: Object, live: Object, manager: str) -> list[str]:
    """JSON pointers of what other managers have put into the object, deepest and last first, so that they can be
    removed in this order. Left alone are status, annotations, finalizers, owners, and what `desired` has as well.
    """
    found: set[tuple[str | int, ...]] = set()
    for entry in live.get("metadata", {}).get("managedFields") or ():
        if entry.get("manager") == manager or entry.get("subresource"):
            continue
        for name, child in (entry.get("fieldsV1") or {}).items():
            key = name.removeprefix("f:")
            if key == "metadata":
                labels = child.get("f:labels")
                at = ("metadata", "labels")
                want, have = (_get(_get(tree, "metadata"), "labels") for tree in (desired, live))
                if labels and have is not _MISSING:
                    found.update(_foreign(labels, want, have, at))
            elif key not in ("status", *_IDENTITY):
                found.update(_foreign(child, _get(desired, key), _get(live, key), (key,)))
    top = {path for path in found if not any(path[:depth] in found for depth in range(1, len(path)))}
    order = sorted(top, key=lambda path: [(isinstance(part, str), part) for part in path], reverse=True)
    return ["".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path) for path in order]


def _applied_by(live: Object, manager: str) -> dict[str, Any] | None:
    for entry in live.get("metadata", {}).get("managedFields") or ():
        if entry.get("manager") == manager and entry.get("operation") == "Apply" and not entry.get("subresource"):
            fields: dict[str, Any] = entry.get("fieldsV1") or {}
            return fields
    return None


def _differs(desired: Any, live: Any, owned: dict[str, Any]) -> bool:
    """Whether a part of the object would change."""
    children = {name: child for name, child in owned.items() if name != "."}
    if not children:
        return not _covers(live, desired)
    if isinstance(desired, dict) and isinstance(live, dict):
        for key, value in desired.items():
            child = children.pop(f"f:{key}", None)
            if value is None or (not child and value in ({}, []) and _nothing_to_say(value, live.get(key))):
                continue
            if child is None or key not in live or _differs(value, live[key], child):
                return True
        return any(child or not _phantom(name, live) for name, child in children.items())
    if isinstance(desired, list) and isinstance(live, list):
        return _list_differs(desired, live, children)
    return True


def _nothing_to_say(empty: Any, live: Any) -> bool:
    """An empty map or list that was applied is dropped by the server."""
    return live is None or live == empty or (empty == {} and isinstance(live, dict))


def _phantom(name: str, live: dict[str, Any]) -> bool:
    """Whether a field that is owned but not desired was only made up by the server."""
    if name == "f:targetPort":
        return live.get("targetPort") == live.get("port")
    return name in _PHANTOMS


def _list_differs(desired: list[Any], live: list[Any], children: dict[str, Any]) -> bool:
    left = list(desired)
    for name, child in children.items():
        want, have = _item(left, name, loose=True), _item(live, name)
        if want is None or have is None or _differs(left[want], live[have], child):
            return True
        left.pop(want)
    return bool(left)


def _item(items: list[Any], name: str, *, loose: bool = False) -> int | None:
    """The index of the item that `k:...` or `v:...` names. `loose`: a key that the item leaves to its default fits."""
    wanted = msgspec.json.decode(name[2:])
    for index, item in enumerate(items):
        if name.startswith("v:"):
            if item == wanted:
                return index
        elif isinstance(item, dict) and all(
            item.get(key, value if loose else _MISSING) == value for key, value in wanted.items()
        ):
            return index
    return None


def _covers(live: Any, desired: Any) -> bool:
    """Whether a value that is applied as a whole is there; the server may have added defaults to it."""
    if isinstance(desired, dict):
        return isinstance(live, dict) and all(
            value is None or _covers(live.get(key, _MISSING), value) for key, value in desired.items()
        )
    if isinstance(desired, list):
        return isinstance(live, list) and len(live) == len(desired) and all(map(_covers, live, desired))
    return bool(live == desired) or _same_quantity(live, desired)


def _same_quantity(live: Any, desired: Any) -> bool:
    if not isinstance(live, str) or isinstance(desired, bool) or not isinstance(desired, (str, int, float)):
        return False
    try:
        return canonical_quantity(live) == canonical_quantity(str(desired))
    except QuantityError:
        return False


def _foreign(
    fields: dict[str, Any], desired: Any, live: Any, at: tuple[str | int, ...]
) -> Iterator[tuple[str | int, ...]]:
    """Paths under `at` that `fields` names, that are there, and that are not desired."""
    if live is _MISSING:
        return
    children = {name: child for name, child in fields.items() if name != "."}
    if desired is _MISSING and (not children or "." in fields):
        yield at
        return
    for name, child in children.items():
        if name.startswith("f:"):
            key = name[2:]
            yield from _foreign(child, _get(desired, key), _get(live, key), (*at, key))
        elif isinstance(live, list) and name[:2] in ("k:", "v:"):
            have = _item(live, name)
            if have is None:
                continue
            want = _item(desired, name, loose=True) if isinstance(desired, list) else None
            item = _MISSING if want is None else desired[want]
            yield from _foreign(child, item, live[have], (*at, have))


def _get(tree: Any, key: str) -> Any:
    return tree.get(key, _MISSING) if isinstance(tree, dict) else _MISSING
