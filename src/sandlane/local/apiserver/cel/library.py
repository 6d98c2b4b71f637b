"""All functions of CEL with their signatures, and the operators. Pure."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, cmp_to_key
from itertools import pairwise
from typing import Any

import msgspec

from sandlane.local.apiserver.cel import authorizer, kubernetes, texts, times
from sandlane.local.apiserver.cel.operators import add, checked, checked_unsigned, compare
from sandlane.local.apiserver.cel.types import Signature, parse_signature
from sandlane.local.apiserver.cel.values import (
    NONE,
    EvaluationError,
    Optional,
    Timestamp,
    TypeValue,
    UInt,
    contains,
    equal,
    type_name,
)


class Overload(msgspec.Struct, frozen=True, gc=False):
    """One form of a function."""

    signature: Signature
    function: Callable[..., Any]


# -- conversions --------------------------------------------------------------------------------------------


def _int(value: Any) -> int:
    try:
        if isinstance(value, float) and not -(2.0**63) < value < 2.0**63:
            raise EvaluationError("integer overflow")
        if isinstance(value, str) and (not value.lstrip("+-").isdecimal() or not value.isascii() or len(value) > 25):
            raise ValueError
        made = int(value)
    except ValueError:
        raise EvaluationError(f'strconv.ParseInt: parsing "{value}": invalid syntax') from None
    return checked(made)


def _uint(value: Any) -> UInt:
    try:
        if isinstance(value, str) and (not value.isdecimal() or not value.isascii() or len(value) > 25):
            raise ValueError
        if isinstance(value, float) and not 0 <= value < 2.0**64:
            raise EvaluationError("unsigned integer overflow")
        return checked_unsigned(int(value))
    except ValueError:
        raise EvaluationError(f'strconv.ParseUint: parsing "{value}": invalid syntax') from None


def _double(value: Any) -> float:
    try:
        return float(value)
    except ValueError:
        raise EvaluationError(f'strconv.ParseFloat: parsing "{value}": invalid syntax') from None


def _bool(text: str) -> bool:
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise EvaluationError(f'strconv.ParseBool: parsing "{text}": invalid syntax')


def _decoded(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise EvaluationError("invalid UTF-8 in bytes, cannot convert to string") from None


# -- lists --------------------------------------------------------------------------------------------------


def _sum(items: list[Any]) -> Any:
    total: Any = items[0] if items else 0
    for item in items[1:]:
        total = add(total, item)
    return total


def _extreme(name: str, wanted: int) -> Callable[[list[Any]], Any]:
    def extreme(items: list[Any]) -> Any:
        if not items:
            raise EvaluationError(f"{name} called on empty list")
        best = items[0]
        for item in items[1:]:
            if compare(item, best) == wanted:
                best = item
        return best

    return extreme


def _flatten(items: list[Any], depth: int = 1) -> list[Any]:
    if depth < 0:
        raise EvaluationError("level must be non-negative")
    made: list[Any] = []
    for item in items:
        made += _flatten(item, depth - 1) if isinstance(item, list) and depth else [item]
    return made


def _slice(items: list[Any], start: int, end: int) -> list[Any]:
    if start < 0 or end < 0:
        raise EvaluationError(f"cannot slice({start}, {end}), negative indexes not supported")
    if start > end:
        raise EvaluationError(f"cannot slice({start}, {end}), start index must be less than or equal to end index")
    if end > len(items):
        raise EvaluationError(f"cannot slice({start}, {end}), list is length {len(items)}")
    return items[start:end]


def _distinct(items: list[Any]) -> list[Any]:
    made: list[Any] = []
    for item in items:
        if not contains(made, item):
            made.append(item)
    return made


def _range(count: int) -> list[int]:
    if count > 100_000:
        raise EvaluationError("lists.range: too many items")
    return list(range(count))


def _at(items: list[Any], index: int) -> Optional:
    return Optional(items[index]) if items else NONE


def _where(items: list[Any], value: Any, order: Callable[[range], Any]) -> int:
    return next((index for index in order(range(len(items))) if equal(items[index], value)), -1)


def _sorted(items: list[Any]) -> list[Any]:
    return sorted(items, key=cmp_to_key(compare))


def _value(optional: Optional) -> Any:
    if not optional.there:
        raise EvaluationError("optional.none() dereference")
    return optional.value


_NUMBERS = ("int", "uint", "double")
_ORDERS = [*(f"({a}, {b}) bool" for a in _NUMBERS for b in _NUMBERS)]
_ORDERS += [f"({each}, {each}) bool" for each in ("bool", "string", "bytes", "timestamp", "duration")]
_SIGNATURES = {
    "_+_": ["(int, int) int", "(uint, uint) uint", "(double, double) double", "(string, string) string", "(bytes, bytes) bytes", "(list(A), list(A)) list(A)", "(timestamp, duration) timestamp", "(duration, timestamp) timestamp", "(duration, duration) duration"],
    "_-_": ["(int, int) int", "(uint, uint) uint", "(double, double) double", "(timestamp, timestamp) duration", "(timestamp, duration) timestamp", "(duration, duration) duration"],
    "_*_": ["(int, int) int", "(uint, uint) uint", "(double, double) double"],
    "_/_": ["(int, int) int", "(uint, uint) uint", "(double, double) double"],
    "_%_": ["(int, int) int", "(uint, uint) uint"],
    "_==_": ["(A, A) bool"],
    "_!=_": ["(A, A) bool"],
    "_<_": _ORDERS,
    "_<=_": _ORDERS,
    "_>_": _ORDERS,
    "_>=_": _ORDERS,
    "@in": ["(A, list(A)) bool", "(A, map(A, B)) bool"],
    "_?_:_": ["(bool, A, A) A"],
    "_[_]": ["(list(A), int) A", "(map(A, B), A) B", "(optional(list(A)), int) optional(A)", "(optional(map(A, B)), A) optional(B)"],
    "_[?_]": ["(list(A), int) optional(A)", "(map(A, B), A) optional(B)", "(optional(list(A)), int) optional(A)", "(optional(map(A, B)), A) optional(B)"],
    "!_": ["(bool) bool"],
    "-_": ["(int) int", "(double) double", "(duration) duration"],
}  # fmt: skip

ROWS: times.Rows = [
    *(
        (name, signature, lambda value: len(value))
        for name in ("size",)
        for kind in ("string", "bytes", "list(A)", "map(A, B)")
        for signature in (f"{kind}.() int", f"({kind}) int")
    ),
    ("type", "(A) type", lambda value: TypeValue(type_name(value))),
    ("dyn", "(A) dyn", lambda value: value),
    *(("int", f"({kind}) int", _int) for kind in ("int", "uint", "double", "string")),
    *(("uint", f"({kind}) uint", _uint) for kind in ("int", "uint", "double", "string")),
    *(("double", f"({kind}) double", _double) for kind in ("int", "uint", "double", "string")),
    *(("string", f"({kind}) string", str) for kind in ("int", "uint", "string")),
    ("string", "(double) string", texts.show_double),
    ("string", "(bool) string", lambda value: "true" if value else "false"),
    ("string", "(bytes) string", _decoded),
    ("bytes", "(string) bytes", str.encode),
    ("bytes", "(bytes) bytes", lambda value: value),
    ("bool", "(bool) bool", lambda value: value),
    ("bool", "(string) bool", _bool),
    ("isSorted", "list(A).() bool", lambda items: all(compare(*pair) in (-1, 0) for pair in pairwise(items))),
    *(("sum", f"list({kind}).() {kind}", _sum) for kind in (*_NUMBERS, "duration")),
    ("min", "list(A).() A", _extreme("min", -1)),
    ("max", "list(A).() A", _extreme("max", 1)),
    ("indexOf", "list(A).(A) int", lambda items, value: _where(items, value, iter)),
    ("lastIndexOf", "list(A).(A) int", lambda items, value: _where(items, value, reversed)),
    ("flatten", "list(list(A)).() list(A)", _flatten),
    ("flatten", "list(dyn).(int) list(dyn)", _flatten),
    ("slice", "list(A).(int, int) list(A)", _slice),
    ("sort", "list(A).() list(A)", _sorted),
    ("distinct", "list(A).() list(A)", _distinct),
    ("reverse", "list(A).() list(A)", lambda items: list(items[::-1])),
    ("first", "list(A).() optional(A)", lambda items: _at(items, 0)),
    ("last", "list(A).() optional(A)", lambda items: _at(items, -1)),
    ("lists.range", "(int) list(int)", _range),
    ("sets.contains", "(list(A), list(A)) bool", lambda items, others: all(contains(items, each) for each in others)),
    (
        "sets.equivalent",
        "(list(A), list(A)) bool",
        lambda items, others: all(contains(items, e) for e in others) and all(contains(others, e) for e in items),
    ),
    ("sets.intersects", "(list(A), list(A)) bool", lambda items, others: any(contains(items, each) for each in others)),
    ("optional.of", "(A) optional(A)", Optional),
    ("optional.none", "() optional(A)", lambda: NONE),
    (
        "optional.ofNonZeroValue",
        "(A) optional(A)",
        lambda value: Optional(value) if value or isinstance(value, (Timestamp, TypeValue)) else NONE,
    ),
    ("optional.unwrap", "(list(optional(A))) list(A)", lambda items: [each.value for each in items if each.there]),
    ("unwrapOpt", "list(optional(A)).() list(A)", lambda items: [each.value for each in items if each.there]),
    ("hasValue", "optional(A).() bool", lambda optional: optional.there),
    ("value", "optional(A).() A", _value),
    ("or", "optional(A).(optional(A)) optional(A)", lambda optional, other: optional if optional.there else other),
    ("orValue", "optional(A).(A) A", lambda optional, other: optional.value if optional.there else other),
    *texts.ROWS,
    *times.ROWS,
    *kubernetes.ROWS,
    *authorizer.ROWS,
]
"""Functions: name, signature, what does it."""


def _nothing(*args: Any) -> Any:
    raise AssertionError("operators are run elsewhere")


@cache
def functions() -> dict[str, tuple[Overload, ...]]:
    """All forms of each function and operator."""
    made: dict[str, tuple[Overload, ...]] = {}
    for name, signature, function in ROWS:
        made[name] = (*made.get(name, ()), Overload(parse_signature(signature), function))
    for name, signatures in _SIGNATURES.items():
        made[name] = tuple(Overload(parse_signature(each), _nothing) for each in signatures)
    return made
