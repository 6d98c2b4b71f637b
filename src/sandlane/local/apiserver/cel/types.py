"""Static types of CEL, written as in its documentation: `int`, `list(string)`, `map(string, dyn)`, `A` for any. Pure."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec


class Type(msgspec.Struct, frozen=True, gc=False):
    """A type: its name and parameters. `fields` gives the type of a field of an object, None where it has none."""

    name: str
    parameters: tuple[Type, ...] = ()
    fields: Callable[[str], Field | None] | None = None

    def __str__(self) -> str:
        inner = ", ".join(map(str, self.parameters))
        return f"{self.name}({inner})" if inner else self.name

    @property
    def is_variable(self) -> bool:
        """Whether it stands for any type in a signature."""
        return len(self.name) == 1


class Field(msgspec.Struct, frozen=True, gc=False):
    """A field of an object: how it is called in the data, and its type."""

    name: str
    type: Type


DYN, BOOL, INT, UINT, DOUBLE = Type("dyn"), Type("bool"), Type("int"), Type("uint"), Type("double")
STRING, BYTES, NULL, TYPE = Type("string"), Type("bytes"), Type("null_type"), Type("type")
TIMESTAMP, DURATION = Type("google.protobuf.Timestamp"), Type("google.protobuf.Duration")
_ALIASES = {
    "timestamp": TIMESTAMP,
    "duration": DURATION,
    "quantity": Type("kubernetes.Quantity"),
    "url": Type("kubernetes.URL"),
    "ip": Type("net.IP"),
    "cidr": Type("net.CIDR"),
    "semver": Type("kubernetes.Semver"),
    "format": Type("kubernetes.NamedFormat"),
}


def list_of(item: Type) -> Type:
    """`list(item)`."""
    return Type("list", (item,))


def map_of(key: Type, value: Type) -> Type:
    """`map(key, value)`."""
    return Type("map", (key, value))


def optional_of(value: Type) -> Type:
    """`optional_type(value)`."""
    return Type("optional_type", (value,))


class Signature(msgspec.Struct, frozen=True, gc=False):
    """What a function takes and gives; the first parameter of a method is what it is called on."""

    method: bool
    parameters: tuple[Type, ...]
    result: Type


@lru_cache(maxsize=512)
def parse_type(text: str) -> Type:
    """A type from its text."""
    text = text.strip()
    name, bracket, rest = text.partition("(")
    if not bracket:
        return _ALIASES.get(name, Type(name))
    name = "optional_type" if name == "optional" else name
    return Type(name, tuple(parse_type(each) for each in _split(rest[:-1])))


@lru_cache(maxsize=512)
def parse_signature(text: str) -> Signature:
    """A signature from its text: `string.(string, int) list(string)` is a method, `(string) int` a function."""
    start = text.index(".(") if ".(" in text else text.index("(")
    depth = 0
    for end in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[end], 0)
        if depth == 0 and text[end] == ")":
            break
    method = text[start] == "."
    arguments = text[start + (2 if method else 1) : end]
    parameters = [parse_type(each) for each in _split(arguments)]
    if method:
        parameters.insert(0, parse_type(text[:start]))
    return Signature(method, tuple(parameters), parse_type(text[end + 1 :]))


def _split(text: str) -> list[str]:
    """What commas separate that are in no brackets."""
    parts, depth = [""], 0
    for char in text:
        depth += {"(": 1, ")": -1}.get(char, 0)
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return [part for part in parts if part.strip()]


Bindings = dict[str, Type]


def fits(wanted: Type, given: Type, bound: Bindings) -> bool:
    """Whether a value of type `given` can be where `wanted` is; binds the variables of `wanted`. null fits anywhere."""
    if wanted.is_variable:
        known = bound.get(wanted.name)
        if known is None or known.name in ("dyn", "null_type"):
            bound[wanted.name] = given
            return True
        common = joined(known, given)
        if common is not None:
            bound[wanted.name] = common
        return common is not None or given.name == "null_type"
    if "dyn" in (wanted.name, given.name) or given.name == "null_type" or given.is_variable:
        return True
    if wanted.name != given.name or (wanted.fields is not None and wanted.fields is not given.fields):
        return False
    if not wanted.parameters or not given.parameters:
        return True
    return all(fits(*pair, bound) for pair in zip(wanted.parameters, given.parameters, strict=True))


def joined(left: Type, right: Type) -> Type | None:
    """The type that values of both types have; None when there is none. The items of `[]` are of any type."""
    if left.is_variable or right.is_variable:
        return right if left.is_variable else left
    if left.name in ("dyn", "null_type"):
        return right if left.name == "null_type" else left
    if right.name in ("dyn", "null_type"):
        return left if right.name == "null_type" else right
    if left.name != right.name or left.fields is not right.fields or len(left.parameters) != len(right.parameters):
        return None
    parameters = [joined(*pair) for pair in zip(left.parameters, right.parameters, strict=True)]
    if any(each is None for each in parameters):
        return None
    return Type(left.name, tuple(each for each in parameters if each is not None), left.fields)


def resolved(type_: Type, bound: Bindings) -> Type:
    """A type with its variables replaced; what is not bound is dyn."""
    if type_.is_variable:
        return bound.get(type_.name, DYN)
    if not type_.parameters:
        return type_
    return Type(type_.name, tuple(resolved(each, bound) for each in type_.parameters), type_.fields)


def accepts(type_: Type, value: Any, name: str) -> bool:
    """Whether a value, whose type is called `name`, may be an argument of that type."""
    return type_.is_variable or type_.name in ("dyn", name)
