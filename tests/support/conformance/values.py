"""Pointers into JSON values, and the first difference of two of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

ABSENT = "<absent>"


class Mismatch(Exception):
    """The server did something else than what was recorded."""


def lookup(doc: Any, pointer: str | list[str]) -> Any:
    """Value at a JSON pointer; segments may also be `[key=value]`, `*` (each item) and `#` (length)."""
    if isinstance(pointer, str):
        pointer = [s.replace("~1", "/").replace("~0", "~") for s in pointer.split("/")[1:]]
    if not pointer:
        return doc
    head, rest = pointer[0], pointer[1:]
    if isinstance(doc, list):
        if head == "*":
            return [lookup(item, rest) for item in doc]
        if head == "#":
            return len(doc)
        if head.startswith("["):
            key, _, want = head[1:-1].partition("=")
            for item in doc:
                if str(lookup(item, key.split("."))) == want:
                    return lookup(item, rest)
        elif head.isdigit() and int(head) < len(doc):
            return lookup(doc[int(head)], rest)
    elif isinstance(doc, dict):
        if head == "*":
            return {key: lookup(value, rest) for key, value in doc.items()}
        if head in doc:
            return lookup(doc[head], rest)
    return ABSENT


def change(doc: Any, pointer: str, edit: Callable[[Any], Any]) -> None:
    """Replace each value at the pointer by edit(value), or remove it where that gives ABSENT."""
    parent, _, last = pointer.rpartition("/")
    last = last.replace("~1", "/").replace("~0", "~")
    found = lookup(doc, parent)
    for owner in found if "*" in parent and isinstance(found, list) else [found]:
        if isinstance(owner, dict) and last in owner:
            value = edit(owner.pop(last))
            if value is not ABSENT:
                owner[last] = value


def first_diff(want: Any, got: Any, at: str = "") -> str | None:
    """Describe the first difference between two JSON values, or None."""
    if isinstance(want, dict) and isinstance(got, dict):
        for key in [*want, *(k for k in got if k not in want)]:
            if found := first_diff(want.get(key, ABSENT), got.get(key, ABSENT), f"{at}/{key}"):
                return found
        return None
    if isinstance(want, list) and isinstance(got, list):
        for i, (left, right) in enumerate(zip(want, got, strict=False)):
            if found := first_diff(left, right, f"{at}/{i}"):
                return found
        if len(want) == len(got):
            return None
        extra = (
            "missing: " + json.dumps(want[len(got)]) if len(want) > len(got) else "extra: " + json.dumps(got[len(want)])
        )
        return f"at {at or '/'}: {len(want)} items recorded, {len(got)} seen; first {extra}"
    if want == got and type(want) is type(got):
        return None
    return f"at {at or '/'}\n      recorded: {json.dumps(want)}\n      seen:     {json.dumps(got)}"
