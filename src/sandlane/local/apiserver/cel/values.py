"""What values are in CEL, and when two are equal. Pure.

int, double, bool, string, bytes, null, list and map are Python's own (`int`, `float`, ...); the rest is here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import msgspec

MISSING = msgspec.UNSET


class EvaluationError(Exception):
    """An expression that has no value."""


class UInt(int):
    """An unsigned number."""


class Timestamp(msgspec.Struct, frozen=True, order=True, gc=False):
    """Nanoseconds since 1970."""

    ns: int


class Duration(msgspec.Struct, frozen=True, order=True, gc=False):
    """A span of time in nanoseconds."""

    ns: int


class TypeValue(msgspec.Struct, frozen=True, gc=False):
    """A type as a value: `type(1) == int`."""

    name: str


class Optional(msgspec.Struct, frozen=True):
    """A value that may be missing."""

    value: Any = MISSING

    @property
    def there(self) -> bool:
        """Whether there is one."""
        return self.value is not MISSING


NONE = Optional()


class Quantity(msgspec.Struct, frozen=True, order=True, gc=False):
    """A number such as `500m`."""

    value: Fraction


class Url(msgspec.Struct, frozen=True, gc=False):
    """A URL, as it was written."""

    text: str


class Ip(msgspec.Struct, frozen=True):
    """An IP address."""

    address: ipaddress.IPv4Address | ipaddress.IPv6Address


class Cidr(msgspec.Struct, frozen=True):
    """An IP address with the length of its network's prefix."""

    interface: ipaddress.IPv4Interface | ipaddress.IPv6Interface


class Semver(msgspec.Struct, frozen=True, order=True):
    """A semantic version; `order` is what decides between two that differ in it alone."""

    major: int
    minor: int
    patch: int
    order: tuple[Any, ...] = ()


class Format(msgspec.Struct, frozen=True):
    """A named format; `faults` gives what is wrong with a text."""

    name: str
    faults: Callable[[str], list[str]] = msgspec.field(default=lambda text: [])


class SetList(list[Any]):
    """A list of type `set`: order does not matter."""


class MapList(list[Any]):
    """A list of type `map`: its items have keys, and order does not matter."""

    keys: tuple[str, ...] = ()

    def key(self, item: Any) -> tuple[Any, ...]:
        """What identifies an item."""
        return tuple(item.get(key) for key in self.keys) if isinstance(item, dict) else ()


_NAMES: dict[type, str] = {
    bool: "bool",
    int: "int",
    UInt: "uint",
    float: "double",
    str: "string",
    bytes: "bytes",
    type(None): "null_type",
    list: "list",
    SetList: "list",
    MapList: "list",
    dict: "map",
    Timestamp: "google.protobuf.Timestamp",
    Duration: "google.protobuf.Duration",
    TypeValue: "type",
    Optional: "optional_type",
    Quantity: "kubernetes.Quantity",
    Url: "kubernetes.URL",
    Ip: "net.IP",
    Cidr: "net.CIDR",
    Semver: "kubernetes.Semver",
    Format: "kubernetes.NamedFormat",
}
TYPES = frozenset(_NAMES.values())
"""The names of all types."""


def type_name(value: Any) -> str:
    """The name of a value's type."""
    name = getattr(value, "cel_type", None)
    return name if isinstance(name, str) else _NAMES.get(type(value), "dyn")


def equal(left: Any, right: Any) -> bool:
    """Whether two values are the same; numbers are whatever their type, other types never mix."""
    if isinstance(left, list):
        if not isinstance(right, list) or len(left) != len(right):
            return False
        if isinstance(left, SetList):
            return all(contains(right, each) for each in left)
        if isinstance(left, MapList):
            others = {left.key(each): each for each in right}
            return all(left.key(each) in others and equal(each, others[left.key(each)]) for each in left)
        return all(equal(*pair) for pair in zip(left, right, strict=True))
    if isinstance(left, dict):
        if not isinstance(right, dict) or len(left) != len(right):
            return False
        return all(key in right and equal(value, right[key]) for key, value in left.items())
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, Optional):
        return isinstance(right, Optional) and left.there == right.there and equal(left.value, right.value)
    return bool(left == right)


def contains(items: list[Any], value: Any) -> bool:
    """Whether a value is in a list."""
    return any(equal(each, value) for each in items)
