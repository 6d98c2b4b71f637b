"""JSON values: copying them and comparing them, where `true`, `1` and `1.0` are looked at as JSON sees them."""

from __future__ import annotations

from typing import Any


def copy_json(value: Any) -> Any:
    """A copy that shares no dict or list with `value`; several times faster than `copy.deepcopy`."""
    if isinstance(value, dict):
        return {key: copy_json(each) if isinstance(each, (dict, list)) else each for key, each in value.items()}
    if isinstance(value, list):
        return [copy_json(each) if isinstance(each, (dict, list)) else each for each in value]
    return value


def equal_json(left: Any, right: Any) -> bool:
    """Equality of JSON values: numbers by value, a boolean is never a number."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(equal_json(value, right[key]) for key, value in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(equal_json, left, right))
    return bool(left == right)


def go_text(value: Any) -> str:
    """A JSON value as messages of Kubernetes show it: `map[a:1 b:[x y]]`."""
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{go_text(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, list):
        return "[" + " ".join(map(go_text, value)) + "]"
    return "<nil>" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
