"""Gives each piece of an expression its type, and finds what can never work. Pure.

Names with dots (`sets.contains`) become functions here, and fields of objects get the names that they have in the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from typing import Any

from sandlane.local.apiserver.cel import types
from sandlane.local.apiserver.cel.library import Overload, functions
from sandlane.local.apiserver.cel.regexes import RegexError, compiled
from sandlane.local.apiserver.cel.syntax import CompileError, located
from sandlane.local.apiserver.cel.times import parse_duration, parse_timestamp
from sandlane.local.apiserver.cel.tree import Call, Ident, ListOf, Literal, Macro, MapOf, Node, Select
from sandlane.local.apiserver.cel.types import BOOL, DYN, INT, Type
from sandlane.local.apiserver.cel.values import TYPES, Duration, EvaluationError, Timestamp, UInt

_LITERALS: dict[type, Type] = {
    bool: BOOL,
    int: INT,
    UInt: types.UINT,
    float: types.DOUBLE,
    str: types.STRING,
    bytes: types.BYTES,
    type(None): types.NULL,
    Duration: types.DURATION,
    Timestamp: types.TIMESTAMP,
}
_CONSTANTS = {"duration": parse_duration, "timestamp": parse_timestamp}


class Checker:
    """Checks one expression. `variables` are those that it may use."""

    def __init__(self, source: str, variables: Mapping[str, Type]) -> None:
        self._source = source
        self._variables = dict(variables)
        self.errors: list[str] = []
        self._mixed = False
        """Whether lists may have items of several types: within what is formatted."""

    def run(self, node: Node) -> Type:
        """The type of the whole. Raises `CompileError` with all faults."""
        found = self._check(node)
        if self.errors:
            raise CompileError("\n".join(self.errors))
        return found

    def _fail(self, node: Node, message: str) -> Type:
        self.errors.append(located(self._source, node.at, message))
        return DYN

    def _check(self, node: Node) -> Type:
        match node:
            case Literal():
                return _LITERALS[type(node.value)]
            case Ident():
                return self._ident(node)
            case Select():
                return self._select(node)
            case ListOf():
                return types.list_of(self._joined(node.items, node.optional))
            case MapOf():
                keys = self._joined(node.keys, [False] * len(node.keys))
                return types.map_of(keys, self._joined(node.values, node.optional))
            case Macro():
                return self._macro(node)
            case Call():
                return self._call(node)
        raise AssertionError(node)

    def _ident(self, node: Ident) -> Type:
        known = self._variables.get(node.name)
        if known is not None:
            return known
        if node.name in TYPES:
            return types.TYPE
        return self._fail(node, f"undeclared reference to '{node.name}' (in container '')")

    # -- fields -----------------------------------------------------------------------------------------

    def _select(self, node: Select) -> Type:
        dotted = _dotted(node)
        if dotted in TYPES and dotted is not None and dotted.partition(".")[0] not in self._variables:
            node.operand, node.field = Ident("", at=node.at), dotted
            return types.TYPE
        operand = self._check(node.operand)
        chained = operand.name == "optional_type"
        inner = operand.parameters[0] if chained and operand.parameters else DYN if chained else operand
        found = self._field(node, inner)
        if node.test:
            return BOOL
        return types.optional_of(found) if chained or node.optional else found

    def _field(self, node: Select, of: Type) -> Type:
        if of.fields is not None:
            field = of.fields(node.field)
            if field is None:
                return self._fail(node, f"undefined field '{node.field}'")
            node.field = field.name
            return field.type
        if of.name == "map":
            return of.parameters[1] if of.parameters else DYN
        if of.name in ("dyn", "null_type") or of.is_variable:
            return DYN
        return self._fail(node, f"type '{of}' does not support field selection")

    def _joined(self, nodes: list[Node], optional: list[bool]) -> Type:
        """The one type that all have."""
        common: Type | None = None
        for node, maybe in zip(nodes, optional, strict=True):
            found = self._check(node)
            if maybe and found.name == "optional_type":
                found = found.parameters[0] if found.parameters else DYN
            made = found if common is None else types.joined(common, found)
            if made is None and self._mixed:
                made = DYN
            if made is None:
                return self._fail(node, f"expected type '{common}' but found '{found}'")
            common = made
        return common or Type("A")

    # -- loops ------------------------------------------------------------------------------------------

    def _macro(self, node: Macro) -> Type:
        over = self._check(node.range)
        if node.kind in ("optMap", "optFlatMap"):
            if over.name not in ("optional_type", "dyn"):
                return self._fail(node, f"found no matching overload for '{node.kind}' applied to '{over}'")
            inner = over.parameters[0] if over.parameters else DYN
            with self._bound(node.variables, [inner]):
                body = self._check(node.body[0])
            if node.kind == "optMap":
                return types.optional_of(body)
            if body.name not in ("optional_type", "dyn"):
                return self._fail(node, f"expected an optional value but found '{body}'")
            return body
        first, second = self._of_range(node, over)
        bound = [first, second] if len(node.variables) == 2 else [second if over.name == "list" else first]
        with self._bound(node.variables, bound):
            return self._loop(node, [self._check(each) for each in node.body], over)

    def _of_range(self, node: Macro, over: Type) -> tuple[Type, Type]:
        """The types of index and item, or key and value."""
        if over.name == "list":
            return INT, over.parameters[0] if over.parameters else DYN
        if over.name == "map":
            return (over.parameters[0], over.parameters[1]) if over.parameters else (DYN, DYN)
        if over.name not in ("dyn", "null_type"):
            text = f"expression of type '{over}' cannot be range of a comprehension (must be list, map, or dynamic)"
            self._fail(node.range, text)
        return DYN, DYN

    def _loop(self, node: Macro, body: list[Type], over: Type) -> Type:
        tests = {"all": 1, "exists": 1, "exists_one": 1, "existsOne": 1, "filter": 1}.get(node.kind, len(body) - 1)
        for each, found in zip(node.body[:tests], body[:tests], strict=True):
            if found.name not in ("bool", "dyn"):
                self._fail(each, f"expected type 'bool' but found '{found}'")
        made = body[-1]
        match node.kind:
            case "filter":
                return over if over.name == "list" else types.list_of(over.parameters[0] if over.parameters else DYN)
            case "sortBy":
                return over
            case "map" | "transformList":
                return types.list_of(made)
            case "transformMap":
                return types.map_of(over.parameters[0] if over.name == "map" and over.parameters else INT, made)
            case "transformMapEntry":
                return made if made.name == "map" else types.map_of(DYN, DYN)
        return BOOL

    @contextmanager
    def _bound(self, names: list[str], found: list[Type]) -> Any:
        before = dict(self._variables)
        self._variables.update(zip(names, found, strict=True))
        yield
        self._variables = before

    # -- calls ------------------------------------------------------------------------------------------

    def _call(self, node: Call) -> Type:
        if node.function in ("_&&_", "_||_"):
            return self._logic(node)
        if node.target is not None:
            dotted = _dotted(node.target)
            if dotted is not None and dotted.partition(".")[0] not in self._variables:
                name = f"{dotted}.{node.function}"
                if name in functions():
                    node.function, node.target = name, None
        forms = functions().get(node.function, ())
        if not forms:
            for each in ([node.target] if node.target is not None else []) + node.args:
                self._check(each)
            return self._fail(node, f"undeclared reference to '{node.function}' (in container '')")
        before, self._mixed = self._mixed, self._mixed or node.function == "format"
        given = [self._check(each) for each in ([node.target] if node.target is not None else []) + node.args]
        self._mixed = before
        self._constants(node)
        results: list[Type] = []
        for form in forms:
            bound: types.Bindings = {}
            if _takes(form, node.target is not None, given, bound):
                results.append(types.resolved(form.signature.result, bound))
        if not results:
            shown = [str(each) for each in given]
            text = f"{shown[0]}.({', '.join(shown[1:])})" if node.target is not None else f"({', '.join(shown)})"
            return self._fail(node, f"found no matching overload for '{node.function}' applied to '{text}'")
        return results[0] if all(each == results[0] for each in results) else DYN

    def _logic(self, node: Call) -> Type:
        for each in node.args:
            found = self._check(each)
            if found.name not in ("bool", "dyn"):
                shown = ", ".join(("bool", str(found)) if each is not node.args[0] else (str(found), "bool"))
                self._fail(node, f"found no matching overload for '{node.function}' applied to '({shown})'")
        return BOOL

    def _constants(self, node: Call) -> None:
        """Texts of regular expressions, times and spans that are written down have to be right."""
        if not node.args or not isinstance(node.args[-1], Literal) or not isinstance(node.args[-1].value, str):
            return
        text = node.args[-1].value
        try:
            if node.function in _CONSTANTS and len(node.args) == 1 and node.target is None:
                _CONSTANTS[node.function](text)
            elif node.function == "matches" or (node.function in ("find", "findAll") and node.target is not None):
                compiled(text)
        except (EvaluationError, RegexError):
            self._fail(node.args[-1], f"invalid {node.function} argument")


def _takes(form: Overload, method: bool, given: list[Type], bound: types.Bindings) -> bool:
    wanted = form.signature.parameters
    if form.signature.method != method or len(wanted) != len(given):
        return False
    return all(types.fits(*pair, bound) for pair in zip(wanted, given, strict=True))


def _dotted(node: Node) -> str | None:
    """`a.b.c` as a text, None for what is no chain of names."""
    if isinstance(node, Ident):
        return node.name
    if isinstance(node, Select) and not node.test and not node.optional:
        before = _dotted(node.operand)
        return f"{before}.{node.field}" if before is not None else None
    return None
