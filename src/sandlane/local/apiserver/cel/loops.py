"""Macros that go over lists and maps, as functions. Pure."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import cmp_to_key
from typing import Any, TypeAlias

from sandlane.local.apiserver.cel.frame import Frame, Step, TooExpensive
from sandlane.local.apiserver.cel.operators import compare, no_overload
from sandlane.local.apiserver.cel.tree import Macro, Node, count
from sandlane.local.apiserver.cel.values import MISSING, NONE, EvaluationError, Optional, type_name

Compile: TypeAlias = Callable[[Node], Step]


def compiled(node: Macro, step: Compile) -> Step:
    """A macro as a function; `step` makes one of each piece of it."""
    return _LOOPS[node.kind](node, step)


def _pairs(value: Any, both: bool) -> Any:
    """What a loop goes over: items of a list, keys of a map, or index and item, or key and value."""
    if isinstance(value, list):
        return enumerate(value) if both else value
    if isinstance(value, dict):
        return value.items() if both else value
    raise EvaluationError(f"no such overload: a loop over {type_name(value)}")


def _rounds(node: Macro, step: Compile) -> Callable[[Frame], Generator[None, None, None]]:
    """Runs once for each element, with the variables set; they are as before at the end."""
    of, names, both = step(node.range), node.variables, len(node.variables) == 2
    steps = 2 + sum(count(each) for each in node.body)

    def rounds(frame: Frame) -> Generator[None, None, None]:
        over = _pairs(of(frame), both)
        values = frame.values
        before = [(name, values.get(name, MISSING)) for name in names]
        try:
            for element in over:
                frame.spend(steps)
                if both:
                    values[names[0]], values[names[1]] = element
                else:
                    values[names[0]] = element
                yield
        finally:
            for name, value in before:
                if value is MISSING:
                    values.pop(name, None)
                else:
                    values[name] = value

    return rounds


def _quantifier(node: Macro, step: Compile) -> Step:
    """`all` and `exists`: as `&&` and `||`."""
    rounds, body, stop = _rounds(node, step), step(node.body[0]), node.kind == "exists"

    def quantified(frame: Frame) -> bool:
        failed: EvaluationError | None = None
        decided = False
        for _ in (running := rounds(frame)):
            try:
                value = body(frame)
                if value is stop:
                    decided = True
                    break
                if value is not True and value is not False:
                    raise no_overload(node.kind, value)
            except TooExpensive:
                raise
            except EvaluationError as error:
                failed = failed or error
        running.close()
        if decided:
            return stop
        if failed is not None:
            raise failed
        return not stop

    return quantified


def _truth(value: Any, kind: str) -> bool:
    if value is True or value is False:
        return bool(value)
    raise no_overload(kind, value)


def _exists_one(node: Macro, step: Compile) -> Step:
    rounds, body = _rounds(node, step), step(node.body[0])
    return lambda frame: sum(_truth(body(frame), node.kind) for _ in rounds(frame)) == 1


def _filter(node: Macro, step: Compile) -> Step:
    rounds, body, name = _rounds(node, step), step(node.body[0]), node.variables[0]

    def filtered(frame: Frame) -> list[Any]:
        made = []
        for _ in rounds(frame):
            item = frame.values[name]
            if _truth(body(frame), "filter"):
                made.append(item)
        return made

    return filtered


def _mapped(node: Macro, step: Compile) -> Step:
    rounds, body = _rounds(node, step), step(node.body[-1])
    test = step(node.body[0]) if len(node.body) == 2 else None

    def mapped(frame: Frame) -> list[Any]:
        return [body(frame) for _ in rounds(frame) if test is None or _truth(test(frame), node.kind)]

    return mapped


def _sorted_by(node: Macro, step: Compile) -> Step:
    rounds, body, name = _rounds(node, step), step(node.body[0]), node.variables[0]

    def ordered(frame: Frame) -> list[Any]:
        keyed = [(body(frame), frame.values[name]) for _ in rounds(frame)]
        keys, items = [key for key, _ in keyed], [item for _, item in keyed]
        order: Callable[[int, int], int] = lambda one, other: compare(keys[one], keys[other])  # noqa: E731
        return [items[place] for place in sorted(range(len(items)), key=cmp_to_key(order))]

    return ordered


def _transformed(node: Macro, step: Compile) -> Step:
    rounds, body, key_name = _rounds(node, step), step(node.body[-1]), node.variables[0]
    test = step(node.body[0]) if len(node.body) == 2 else None
    entries = node.kind == "transformMapEntry"

    def transformed(frame: Frame) -> dict[Any, Any]:
        made: dict[Any, Any] = {}
        for _ in rounds(frame):
            if test is not None and not _truth(test(frame), node.kind):
                continue
            value = body(frame)
            if not entries:
                made[frame.values[key_name]] = value
                continue
            if not isinstance(value, dict):
                raise no_overload(node.kind, value)
            for key, each in value.items():
                if key in made:
                    raise EvaluationError(f"insert failed: key {key} already exists")
                made[key] = each
        return made

    return transformed


def _optional(node: Macro, step: Compile) -> Step:
    of, body, name, flat = step(node.range), step(node.body[0]), node.variables[0], node.kind == "optFlatMap"

    def chained(frame: Frame) -> Any:
        value = of(frame)
        if not isinstance(value, Optional):
            raise no_overload(node.kind, value)
        if not value.there:
            return NONE
        before = frame.values.get(name, MISSING)
        frame.values[name] = value.value
        frame.spend(1)
        try:
            made = body(frame)
        finally:
            if before is MISSING:
                del frame.values[name]
            else:
                frame.values[name] = before
        return made if flat else Optional(made)

    return chained


_LOOPS: dict[str, Callable[[Macro, Compile], Step]] = {
    "all": _quantifier,
    "exists": _quantifier,
    "exists_one": _exists_one,
    "existsOne": _exists_one,
    "filter": _filter,
    "map": _mapped,
    "sortBy": _sorted_by,
    "transformList": _mapped,
    "transformMap": _transformed,
    "transformMapEntry": _transformed,
    "optMap": _optional,
    "optFlatMap": _optional,
}
