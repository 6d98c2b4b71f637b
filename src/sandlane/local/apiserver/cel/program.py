"""Compiles expressions into functions, and runs them with a budget. Pure.

The budget is counted in steps that are about those of Kubernetes: one for each piece of an expression that is evaluated, and one for
each ten characters that a function looks at.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from sandlane.local.apiserver.cel import loops
from sandlane.local.apiserver.cel.checker import Checker
from sandlane.local.apiserver.cel.frame import STEPS, Budget, Frame, Step, TooExpensive, work
from sandlane.local.apiserver.cel.library import Overload, functions
from sandlane.local.apiserver.cel.operators import OPERATORS, hashable, negate, no_overload
from sandlane.local.apiserver.cel.syntax import parse
from sandlane.local.apiserver.cel.tree import Call, Ident, ListOf, Literal, Macro, MapOf, Node, Select, count
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
            return loops.compiled(node, _step)
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
        if value is None:
            raise EvaluationError(f"no such key: {name}")
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
