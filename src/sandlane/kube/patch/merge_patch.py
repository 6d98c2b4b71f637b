"""JSON merge patch (RFC 7386): maps are merged, `null` deletes, everything else is replaced."""

from __future__ import annotations

from typing import Any

from sandlane.kube.patch.values import copy_json, equal_json


def merge_patch(document: Any, patch: Any) -> Any:
    """`document` with `patch` merged into it (RFC 7386, section 2)."""
    if not isinstance(patch, dict):
        return copy_json(patch)
    result = copy_json(document) if isinstance(document, dict) else {}
    _merge(result, patch)
    return result


def _merge(target: dict[str, Any], patch: dict[str, Any]) -> None:
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict):
            inner = target.get(key)
            if not isinstance(inner, dict):
                inner = target[key] = {}
            _merge(inner, value)
        else:
            target[key] = copy_json(value)


def make_merge_patch(before: Any, after: Any) -> Any:
    """The smallest merge patch that turns `before` into `after`; `{}` where they are equal.

    A null inside `after` cannot be said by a merge patch: it comes out as a missing key.
    """
    if not isinstance(before, dict) or not isinstance(after, dict):
        return copy_json(after)
    patch: dict[str, Any] = {key: None for key in before if key not in after}
    for key, value in after.items():
        if key not in before:
            patch[key] = copy_json(value)
        elif not equal_json(before[key], value):
            patch[key] = make_merge_patch(before[key], value)
    return patch
