"""The JSON paths of printer columns and selectable fields: `.spec.replicas`, `.status.conditions[?(@.type=="Ready")].status`."""

from __future__ import annotations

import re
from typing import Any

_STEP = re.compile(
    r"\.([A-Za-z0-9_\-/$\\.]+?)(?=$|\.|\[)|\[(?:'([^']*)'|\"([^\"]*)\"|(\*)|(-?\d+)|\?\(@\.?([\w.]+)\s*==\s*[\"']([^\"']*)[\"']\))\]"
)


class PathError(ValueError):
    """A path that is not understood."""


def find(value: Any, path: str) -> list[Any]:
    """Everything at a path. Raises `PathError`."""
    found, at = [value], 0
    text = re.sub(r"(?<!\\)\\\.", "\0", path if path.startswith((".", "[")) else f".{path}")
    while at < len(text):
        step = _STEP.match(text, at)
        if step is None:
            raise PathError(f"{path!r} is not understood at {text[at:]!r}")
        at = step.end()
        found = [below for each in found for below in _below(each, step)]
    return found


def _below(value: Any, step: re.Match[str]) -> list[Any]:
    name = step[1] or step[2] or step[3]
    if name is not None:
        name = name.replace("\0", ".")
        return [value[name]] if isinstance(value, dict) and name in value else []
    if not isinstance(value, list):
        return list(value.values()) if step[4] and isinstance(value, dict) else []
    if step[4]:
        return value
    if step[5] is not None:
        index = int(step[5])
        return [value[index]] if -len(value) <= index < len(value) else []
    return [item for item in value if str((find(item, "." + step[6]) or [None])[0]) == step[7]]
