"""The JSON paths of printer columns: `.spec.replicas`, `.metadata.labels.a\\.b/c`, `.status.conditions[?(@.type=="Ready")].status`.

The dialect of https://kubernetes.io/docs/reference/kubectl/jsonpath/, without `range` and texts. Pure.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

_NAME = re.compile(r"(?:\\.|[^\s.,\[\]{}$@\\])+")
_INDEX = re.compile(r"\[(?:\s*(-?\d*)\s*(?::\s*(-?\d*)\s*)?(?::\s*(-?\d*)\s*)?|\*)\]")
_KEYS = re.compile(r"\[\s*((?:'[^']*'|\"[^\"]*\"|-?\d+)(?:\s*,\s*(?:'[^']*'|\"[^\"]*\"|-?\d+))*)\s*\]")
_KEY = re.compile(r"'([^']*)'|\"([^\"]*)\"|(-?\d+)")
_FILTER = re.compile(r"\[\?\(\s*(.+?)\s*\)\]")
_SIDES = re.compile(
    r"(@[^\s=!<>]*|\"[^\"]*\"|'[^']*'|[^\s=!<>]+)\s*(?:(==|!=|<=|>=|<|>)\s*(@[^\s=!<>]*|\"[^\"]*\"|'[^']*'|[^\s=!<>]+))?"
)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_WORDS = {"true": True, "false": False, "null": None}

Step = Callable[[Any], list[Any]]
"""Gives what lies one step below a value."""


class PathError(ValueError):
    """A path that is not understood."""


def find(value: Any, path: str) -> list[Any]:
    """Everything at a path. Raises `PathError`."""
    return _walk(value, _steps(path))


@lru_cache(maxsize=2048)
def _steps(path: str) -> tuple[Step, ...]:
    text = path.removeprefix("$")
    text = text if text.startswith((".", "[")) or not text else f".{text}"
    return tuple(_parsed(text, path))


def _parsed(text: str, path: str) -> Iterator[Step]:
    at = 0
    while at < len(text):
        if text.startswith("..", at):
            yield _everything_below
            at += 1 if _NAME.match(text, at + 2) else 2
        elif text[at] == "." and (name := _NAME.match(text, at + 1)) is not None:
            yield _children if name[0] == "*" else _named(re.sub(r"\\(.)", r"\1", name[0]))
            at = name.end()
        elif (keys := _KEYS.match(text, at)) is not None:
            yield _union([_key_steps(key, path) for key in _KEY.finditer(keys[1])])
            at = keys.end()
        elif (index := _INDEX.match(text, at)) is not None:
            yield _children if "*" in index[0] else _sliced(index)
            at = index.end()
        elif (test := _FILTER.match(text, at)) is not None:
            yield _filtered(test[1], path)
            at = test.end()
        else:
            raise PathError(f"{path!r} is not understood at {text[at:]!r}")


def _named(name: str) -> Step:
    return lambda value: [value[name]] if isinstance(value, dict) and name in value else []


def _key_steps(key: re.Match[str], path: str) -> tuple[Step, ...]:
    """`['a.b']` is the path `.a.b`, as upstream: a dot in a name has to be escaped here, too."""
    name = key[1] or key[2]
    if name:
        return tuple(_parsed(f".{name}", path))
    index = int(key[3] or 0)

    def at(value: Any) -> list[Any]:
        return [value[index]] if isinstance(value, list) and -len(value) <= index < len(value) else []

    return (at,)


def _union(keys: list[tuple[Step, ...]]) -> Step:
    return lambda value: [found for steps in keys for found in _walk(value, steps)]


def _walk(value: Any, steps: tuple[Step, ...]) -> list[Any]:
    found = [value]
    for step in steps:
        found = [below for each in found for below in step(each)]
    return found


def _sliced(match: re.Match[str]) -> Step:
    places = slice(*(int(part) if part else None for part in match.groups()))
    return lambda value: value[places] if isinstance(value, list) else []


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _everything_below(value: Any) -> list[Any]:
    return [value, *(found for child in _children(value) for found in _everything_below(child))]


def _filtered(test: str, path: str) -> Step:
    sides = _SIDES.fullmatch(test)
    if sides is None:
        raise PathError(f"{path!r} is not understood at {test!r}")
    left, compare = _side(sides[1]), _COMPARE.get(sides[2] or "")
    right = _side(sides[3]) if sides[3] else None

    def holds(item: Any) -> bool:
        ours = left(item)
        if compare is None or right is None:
            return bool(ours)
        theirs = right(item)
        if not ours or not theirs or isinstance(ours[0], bool) != isinstance(theirs[0], bool):
            return False
        try:
            return compare(ours[0], theirs[0])
        except TypeError:  # a text and a number have no order
            return False

    return lambda value: [item for item in _children(value) if holds(item)]


def _side(text: str) -> Step:
    """One side of a comparison: a path from the item, or a constant."""
    if text.startswith("@"):
        steps = _steps(text[1:])
        return lambda item: _walk(item, steps)
    if text[0] in "'\"":
        return lambda item: [text[1:-1]]
    if text in _WORDS:
        return lambda item: [_WORDS[text]]
    try:
        number = float(text)
    except ValueError as error:
        raise PathError(f"{text!r} is no value to compare with") from error
    return lambda item: [number]
