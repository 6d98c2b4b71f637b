"""What the operators of CEL do to values, whole numbers being of 64 bits. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sandlane.local.apiserver.cel import times
from sandlane.local.apiserver.cel.values import (
    Duration,
    EvaluationError,
    SetList,
    Timestamp,
    UInt,
    contains,
    equal,
    type_name,
)


def no_overload(name: str, *values: Any) -> EvaluationError:
    """The error for arguments that a function does not take."""
    return EvaluationError(f"no such overload: {name}({', '.join(type_name(value) for value in values)})")


def checked(value: int) -> int:
    """An int within 64 bits. Raises `EvaluationError`."""
    if not -(2**63) <= value < 2**63:
        raise EvaluationError("integer overflow")
    return value


def checked_unsigned(value: int) -> UInt:
    """A uint within 64 bits. Raises `EvaluationError`."""
    if not 0 <= value < 2**64:
        raise EvaluationError("unsigned integer overflow")
    return UInt(value)


_ORDERED = (str, bytes, bool, Timestamp, Duration)


def compare(left: Any, right: Any) -> int:
    """-1, 0 or 1; 2 where one is not a number. Raises `EvaluationError` for values without an order."""
    numbers = isinstance(left, (int, float)) and isinstance(right, (int, float))
    if numbers and isinstance(left, bool) is isinstance(right, bool):
        if left == right:
            return 0
        return -1 if left < right else 1 if left > right else 2
    kind = next((kind for kind in _ORDERED if isinstance(left, kind)), None)
    if kind is None or not isinstance(right, kind):
        raise no_overload("_<_", left, right)
    return int(left > right) - int(left < right)


def add(left: Any, right: Any) -> Any:
    """`left + right`. Raises `EvaluationError`."""
    kind = type(left)
    if kind is type(right):
        if kind is int:
            return checked(left + right)
        if kind in (float, str, bytes, list):
            return left + right
        if kind is UInt:
            return checked_unsigned(int(left) + int(right))
        if kind is Duration:
            return times.checked_duration(left.ns + right.ns)
    if isinstance(left, list) and isinstance(right, list):
        return _united(left, right)
    if isinstance(left, Duration) and isinstance(right, Timestamp):
        left, right = right, left
    if isinstance(left, Timestamp) and isinstance(right, Duration):
        return times.checked_timestamp(left.ns + right.ns)
    raise no_overload("_+_", left, right)


def _united(left: list[Any], right: list[Any]) -> list[Any]:
    """Lists of type `set` and `map` keep each element once; new values of a map's items win."""
    if isinstance(left, SetList):
        return SetList([*left, *(each for each in right if not contains(left, each))])
    key = getattr(left, "key", None)
    if key is None:
        return list(left) + list(right)
    made = type(left)(left)
    made.keys = left.keys  # type: ignore[attr-defined]
    places = {key(each): index for index, each in enumerate(made)}
    for each in right:
        if key(each) in places:
            made[places[key(each)]] = each
        else:
            made.append(each)
    return made


def subtract(left: Any, right: Any) -> Any:
    """`left - right`. Raises `EvaluationError`."""
    kind = type(left)
    if isinstance(left, Timestamp) and isinstance(right, Duration):
        return times.checked_timestamp(left.ns - right.ns)
    if kind is not type(right) or kind not in (int, float, UInt, Duration, Timestamp):
        raise no_overload("_-_", left, right)
    if kind in (Duration, Timestamp):
        return times.checked_duration(left.ns - right.ns)
    return left - right if kind is float else _checked(kind, int(left) - int(right))


def _checked(kind: type, value: int) -> int:
    return checked(value) if kind is int else checked_unsigned(value)


def multiply(left: Any, right: Any) -> Any:
    """`left * right`. Raises `EvaluationError`."""
    kind = type(left)
    if kind is not type(right) or kind not in (int, float, UInt):
        raise no_overload("_*_", left, right)
    return left * right if kind is float else _checked(kind, int(left) * int(right))


def divide(left: Any, right: Any) -> Any:
    """`left / right`, towards zero for whole numbers. Raises `EvaluationError`."""
    kind = type(left)
    if kind is not type(right) or kind not in (int, float, UInt):
        raise no_overload("_/_", left, right)
    if kind is float:
        if right == 0:
            return float("nan") if left == 0 or left != left else float("inf") if left > 0 else float("-inf")
        return left / right
    if right == 0:
        raise EvaluationError("division by zero")
    quotient = abs(int(left)) // abs(int(right))
    return _checked(kind, quotient if (left < 0) == (right < 0) else -quotient)


def modulo(left: Any, right: Any) -> Any:
    """`left % right`, with the sign of `left`. Raises `EvaluationError`."""
    kind = type(left)
    if kind is not type(right) or kind not in (int, UInt):
        raise no_overload("_%_", left, right)
    if right == 0:
        raise EvaluationError("modulus by zero")
    rest = abs(int(left)) % abs(int(right))
    return _checked(kind, -rest if left < 0 else rest)


def is_in(value: Any, container: Any) -> bool:
    """`value in container`. Raises `EvaluationError`."""
    if isinstance(container, list):
        return contains(container, value)
    if isinstance(container, dict):
        return hashable(value) and value in container
    raise no_overload("@in", value, container)


def hashable(value: Any) -> bool:
    """Whether a value can be a key of a map."""
    return isinstance(value, (str, int, float))


OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "_+_": add,
    "_-_": subtract,
    "_*_": multiply,
    "_/_": divide,
    "_%_": modulo,
    "_==_": equal,
    "_!=_": lambda left, right: not equal(left, right),
    "_<_": lambda left, right: compare(left, right) == -1,
    "_<=_": lambda left, right: compare(left, right) in (-1, 0),
    "_>_": lambda left, right: compare(left, right) == 1,
    "_>=_": lambda left, right: compare(left, right) in (0, 1),
    "@in": is_in,
}


def negate(value: Any) -> Any:
    """`-value`. Raises `EvaluationError`."""
    match value:
        case bool() | UInt():
            pass
        case int():
            return checked(-value)
        case float():
            return -value
        case Duration():
            return times.checked_duration(-value.ns)
    raise no_overload("-_", value)
