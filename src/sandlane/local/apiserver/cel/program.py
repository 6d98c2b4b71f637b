"""Compiles expressions into functions, and runs them with a budget. Pure.

The budget is counted in steps that are about those of Kubernetes: one for each piece of an expression that is evaluated, and one for
each ten characters that a function looks at.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from functools import cmp_to_key, lru_cache
from typing import Any

from sandlane.local.apiserver.cel.checker import Checker
from sandlane.local.apiserver.cel.library import OPERATORS, Overload, compare, functions, hashable, negate, no_overload
from sandlane.local.apiserver.cel.syntax import Call, Ident, ListOf, Literal, Macro, MapOf, Node, Select, parse
from sandlane.local.apiserver.cel.types import Type, accepts
from sandlane.local.apiserver.cel.values import (
    MISSING,
    NONE,
    TYPES,
    EvaluationError,
    Optional,
    TypeValue,
    type_name,
)

STEPS = 1_000_000
"""Steps of one evaluation, as upstream."""


class TooExpensive(EvaluationError):
    """An evaluation that takes too many steps."""


class Budget:
    """The steps that are left for several evaluations."""

    def __init__(self, steps: int) -> None:
        self.left = steps


class Frame:
    """What an evaluation knows: the variables, and how many steps are left."""

    __slots__ = ("left", "values")

    def __init__(self, values: Mapping[str, Any], left: int) -> None:
        self.values = dict(values)
        self.left = left

    def spend(self, steps: int) -> None:
        """Take some steps. Raises `TooExpensive`."""
        self.left -= steps
        if self.left < 0:
            raise TooExpensive("operation cancelled: actual cost limit exceeded")


Step = Callable[[Frame], Any]


class Program:
    """A compiled expression and the type of its value."""

    def __init__(self, source: str, variables: tuple[tuple[str, Type], ...], node: Node, type_: Type) -> None:
        self.source = source
        self.node = node
        self.type = type_
        self._run = _step(node)
        self._steps = count(node)

    def run(self, values: Mapping[str, Any], budget: Budget | None = None) -> Any:
        """The value. Raises `EvaluationError`, and `TooExpensive` when it takes too long or the budget is used up."""
        allowed = STEPS if budget is None else min(STEPS, budget.left)
        frame = Frame(values, allowed)
        try:
            frame.spend(self._steps)
            return self._run(frame)
        except RecursionError as error:
            raise EvaluationError("the expression goes too deep") from error
        finally:
            if budget is not None:
                budget.left -= allowed - frame.left


@lru_cache(maxsize=4096)
def compile_expression(source: str, variables: tuple[tuple[str, Type], ...]) -> Program:
    """Compile an expression over some variables. Raises `CompileError`."""
    node = parse(source)
    return Program(source, variables, node, Checker(source, dict(variables)).run(node))


def count(node: Node) -> int:
    """How many pieces an expression has; loops count what they do on their own."""
    return 1 + sum(count(each) for each in children(node))


def children(node: Node) -> Iterator[Node]:
    """The pieces of a piece that are evaluated once for each time that it is."""
    match node:
        case Select():
            yield node.operand
        case Call():
            if node.target is not None:
                yield node.target
            yield from node.args
        case ListOf():
            yield from node.items
        case MapOf():
            yield from (*node.keys, *node.values)
        case Macro():
            yield node.range


# -- pieces -------------------------------------------------------------------------------------------------


def _step(node: Node) -> Step:
    match node:
        case Literal():
            value = node.value
            return lambda frame: value
        case Ident():
            return _ident(node.name)
        case Select():
            return _select(node)
        case ListOf():
            return _list(node)
        case MapOf():
            return _map(node)
        case Macro():
            return _LOOPS[node.kind](node)
        case Call():
            return _call(node)
    raise AssertionError(node)


def _ident(name: str) -> Step:
    def ident(frame: Frame) -> Any:
        try:
            return frame.values[name]
        except KeyError:
            if name in TYPES:
                return TypeValue(name)
            raise EvaluationError(f"no such attribute(s): {name}") from None

    return ident


def _select(node: Select) -> Step:
    name, optional = node.field, node.optional
    if isinstance(node.operand, Ident) and not node.operand.name:
        return lambda frame: TypeValue(name)
    of = _step(node.operand)
    if node.test:

        def test(frame: Frame) -> bool:
            value = of(frame)
            if isinstance(value, Optional):
                value = value.value if value.there else {}
            if not isinstance(value, Mapping):
                raise no_overload("has", value)
            return bool(name in value)

        return test

    def select(frame: Frame) -> Any:
        value = of(frame)
        if isinstance(value, dict):
            if name in value:
                return Optional(value[name]) if optional else value[name]
            if optional:
                return NONE
            raise EvaluationError(f"no such key: {name}")
        if isinstance(value, Optional):
            if not value.there:
                return NONE
            if isinstance(value.value, dict):
                return Optional(value.value[name]) if name in value.value else NONE
        fields = getattr(value, "fields", None)
        if isinstance(fields, dict) and name in fields:
            return fields[name]
        raise EvaluationError(f"no such overload: {type_name(value)}.{name}")

    return select


def _index(value: Any, key: Any) -> Any:
    """`value[key]`; `MISSING` where there is nothing."""
    if isinstance(value, list):
        if isinstance(key, float) and key.is_integer():
            key = int(key)
        if not isinstance(key, int) or isinstance(key, bool):
            raise no_overload("_[_]", value, key)
        return value[key] if 0 <= key < len(value) else MISSING
    if isinstance(value, dict):
        return value.get(key, MISSING) if hashable(key) else MISSING
    raise no_overload("_[_]", value, key)


def _indexed(node: Call) -> Step:
    of, at = _step(node.args[0]), _step(node.args[1])
    optional = node.function == "_[?_]"

    def index(frame: Frame) -> Any:
        value, key = of(frame), at(frame)
        if isinstance(value, Optional):
            if not value.there:
                return NONE
            found = _index(value.value, key)
            return NONE if found is MISSING else Optional(found)
        found = _index(value, key)
        if optional:
            return NONE if found is MISSING else Optional(found)
        if found is MISSING:
            raise EvaluationError(f"index out of bounds: {key}" if isinstance(value, list) else f"no such key: {key}")
        return found

    return index


def _list(node: ListOf) -> Step:
    steps = [_step(each) for each in node.items]
    if not any(node.optional):
        return lambda frame: [each(frame) for each in steps]

    def made(frame: Frame) -> list[Any]:
        items = []
        for each, maybe in zip(steps, node.optional, strict=True):
            value = each(frame)
            if not maybe:
                items.append(value)
            elif value.there:
                items.append(value.value)
        return items

    return made


def _map(node: MapOf) -> Step:
    entries = [(_step(key), _step(value)) for key, value in zip(node.keys, node.values, strict=True)]

    def made(frame: Frame) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for (key_of, value_of), maybe in zip(entries, node.optional, strict=True):
            key, value = key_of(frame), value_of(frame)
            if not hashable(key):
                raise EvaluationError(f"unsupported key type: {type_name(key)}")
            if key in found:
                raise EvaluationError(f"insert failed: key {key} already exists")
            if maybe:
                if not value.there:
                    continue
                value = value.value
            found[key] = value
        return found

    return made


# -- calls --------------------------------------------------------------------------------------------------


def _call(node: Call) -> Step:
    match node.function:
        case "_&&_":
            return _logic(node, stop=False)
        case "_||_":
            return _logic(node, stop=True)
        case "_?_:_":
            return _conditional(node)
        case "_[_]" | "_[?_]":
            return _indexed(node)
        case "!_":
            return _not(_step(node.args[0]))
        case "-_":
            of = _step(node.args[0])
            return lambda frame: negate(of(frame))
    if node.function in OPERATORS:
        return _operator(node.function, _step(node.args[0]), _step(node.args[1]))
    return _function(node)


def _logic(node: Call, *, stop: bool) -> Step:
    """`&&` and `||`: a value that decides wins over errors, wherever it stands."""
    steps = [_step(each) for each in node.args]
    name = node.function

    def logic(frame: Frame) -> bool:
        failed: EvaluationError | None = None
        for each in steps:
            try:
                value = each(frame)
                if value is stop:
                    return bool(stop)
                if value is not True and value is not False:
                    raise no_overload(name, value)
            except TooExpensive:
                raise
            except EvaluationError as error:
                failed = failed or error
        if failed is not None:
            raise failed
        return not stop

    return logic


def _conditional(node: Call) -> Step:
    test, then, other = (_step(each) for each in node.args)

    def conditional(frame: Frame) -> Any:
        value = test(frame)
        if value is True:
            return then(frame)
        if value is False:
            return other(frame)
        raise no_overload("_?_:_", value)

    return conditional


def _not(of: Step) -> Step:
    def negated(frame: Frame) -> bool:
        value = of(frame)
        if value is True:
            return False
        if value is False:
            return True
        raise no_overload("!_", value)

    return negated


def _operator(name: str, left_of: Step, right_of: Step) -> Step:
    run = OPERATORS[name]

    def operator(frame: Frame) -> Any:
        left, right = left_of(frame), right_of(frame)
        if not isinstance(left, (int, float)):
            frame.spend(work(left) + (work(right) if name in ("_+_", "@in") else 0))
        elif name == "@in":
            frame.spend(work(right))
        return run(left, right)

    return operator


def _function(node: Call) -> Step:
    method = node.target is not None
    steps = [_step(each) for each in ([node.target] if node.target is not None else []) + node.args]
    forms = [
        form
        for form in functions()[node.function]
        if form.signature.method == method and len(form.signature.parameters) == len(steps)
    ]
    name = node.function

    def call(frame: Frame) -> Any:
        values = [each(frame) for each in steps]
        names = [type_name(each) for each in values]
        form = _chosen(forms, values, names)
        if form is None:
            raise no_overload(name, *values)
        frame.spend(1 + sum(work(each) for each in values))
        try:
            return form.function(*values)
        except (ArithmeticError, ValueError, TypeError, AttributeError, IndexError) as error:
            raise EvaluationError(f"{name}: {error}") from error

    return call


def _chosen(forms: list[Overload], values: list[Any], names: list[str]) -> Overload | None:
    for form in forms:
        if all(map(accepts, form.signature.parameters, values, names)):
            return form
    return None


def work(value: Any) -> int:
    """Steps that looking at a whole value takes."""
    if isinstance(value, (str, bytes)):
        return len(value) // 10
    return len(value) if isinstance(value, (list, dict)) else 0


# -- loops --------------------------------------------------------------------------------------------------


def _pairs(value: Any, both: bool) -> Any:
    """What a loop goes over: items of a list, keys of a map, or index and item, or key and value."""
    if isinstance(value, list):
        return enumerate(value) if both else value
    if isinstance(value, dict):
        return value.items() if both else value
    raise EvaluationError(f"no such overload: a loop over {type_name(value)}")


def _rounds(node: Macro) -> Callable[[Frame], Generator[None, None, None]]:
    """Runs once for each element, with the variables set; they are as before at the end."""
    of, names, both = _step(node.range), node.variables, len(node.variables) == 2
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


def _quantifier(node: Macro) -> Step:
    """`all` and `exists`: as `&&` and `||`."""
    rounds, body, stop = _rounds(node), _step(node.body[0]), node.kind == "exists"

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


def _exists_one(node: Macro) -> Step:
    rounds, body = _rounds(node), _step(node.body[0])
    return lambda frame: sum(_truth(body(frame), node.kind) for _ in rounds(frame)) == 1


def _filter(node: Macro) -> Step:
    rounds, body, name = _rounds(node), _step(node.body[0]), node.variables[0]

    def filtered(frame: Frame) -> list[Any]:
        made = []
        for _ in rounds(frame):
            item = frame.values[name]
            if _truth(body(frame), "filter"):
                made.append(item)
        return made

    return filtered


def _mapped(node: Macro) -> Step:
    rounds, body = _rounds(node), _step(node.body[-1])
    test = _step(node.body[0]) if len(node.body) == 2 else None

    def mapped(frame: Frame) -> list[Any]:
        return [body(frame) for _ in rounds(frame) if test is None or _truth(test(frame), node.kind)]

    return mapped


def _sorted_by(node: Macro) -> Step:
    rounds, body, name = _rounds(node), _step(node.body[0]), node.variables[0]

    def ordered(frame: Frame) -> list[Any]:
        keyed = [(body(frame), frame.values[name]) for _ in rounds(frame)]
        keys, items = [key for key, _ in keyed], [item for _, item in keyed]
        order: Callable[[int, int], int] = lambda one, other: compare(keys[one], keys[other])  # noqa: E731
        return [items[place] for place in sorted(range(len(items)), key=cmp_to_key(order))]

    return ordered


def _transformed(node: Macro) -> Step:
    rounds, body, key_name = _rounds(node), _step(node.body[-1]), node.variables[0]
    test = _step(node.body[0]) if len(node.body) == 2 else None
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


def _optional(node: Macro) -> Step:
    of, body, name, flat = _step(node.range), _step(node.body[0]), node.variables[0], node.kind == "optFlatMap"

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


_LOOPS: dict[str, Callable[[Macro], Step]] = {
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
