"""Fields of the built-in API types: names, protobuf numbers, types, and which of them vanish when empty.

They come from `types.txt`. `@alias prefix` starts a package; then one line for each type, its name and its fields:
`NUMBER FLAGS NAME:TYPE` without spaces. Flags: `*` may be told from unset (a pointer in Go), `?` left out when empty,
`!` left out when it is an empty struct. The name `<` means fields of an inlined type. Types: `s` string, `b` boolean,
`i` int32, `l` int64, `f` double, `y` bytes, `T` time, `M` time with microseconds, `D` duration, `Q` quantity,
`I` int or string, `R` raw object, `F` field set, `J` any JSON, `[x` list, `{x` map by string, `.Name` another type.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

import msgspec

_FIELD = re.compile(r"(\d*)([*?!]*)([^:]+):(\S+)")


class Field(msgspec.Struct, frozen=True):
    """One field. `type` refers to other types by their full definition name: `.io.k8s.api.core.v1.PodSpec`."""

    name: str
    number: int
    type: str
    pointer: bool
    omit_empty: bool
    omit_zero: bool

    @property
    def inline(self) -> bool:
        """Whether the fields of its type appear in JSON as if they were this type's own."""
        return self.name == "<"


@cache
def _packages() -> tuple[dict[str, str], dict[str, str]]:
    """The prefix of each alias, and the raw line of each type by its full name."""
    text = resources.files(__package__).joinpath("types.txt").read_text(encoding="utf-8")
    prefixes: dict[str, str] = {}
    types: dict[str, str] = {}
    prefix = ""
    for line in text.splitlines():
        head, _, rest = line.partition(" ")
        if head.startswith("@"):
            prefix = rest
            prefixes[head[1:]] = prefix
        elif not head.startswith("#"):
            types[prefix + head] = rest
    return prefixes, types


def known(definition: str) -> bool:
    """Whether the fields of a definition are known."""
    return definition in _packages()[1]


@cache
def fields_of(definition: str) -> tuple[Field, ...]:
    """The fields of `io.k8s.api.apps.v1.Deployment` or another definition. Raises KeyError for an unknown one."""
    prefixes, types = _packages()
    own_prefix = definition[: definition.rindex(".") + 1]
    fields = []
    for token in types[definition].split():
        match = _FIELD.fullmatch(token)
        if match is None:
            raise RuntimeError(f"types.txt: {definition}: {token} is not a field")
        number, flags, name, type_ = match.groups()
        container, dot, reference = type_.partition(".")
        if dot:
            alias, dot, local = reference.rpartition(".")
            type_ = f"{container}.{prefixes[alias] if dot else own_prefix}{local}"
        fields.append(Field(name, int(number or 0), type_, "*" in flags, "?" in flags, "!" in flags))
    return tuple(fields)
