"""The tree of an expression: its pieces. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec


class Node(msgspec.Struct, gc=False, kw_only=True):
    """A piece of an expression. `at`: where it begins in the text; `depth`: levels from here down."""

    at: int = 0
    depth: int = 1


class Literal(Node, gc=False):
    """A constant."""

    value: Any


class Ident(Node, gc=False):
    """A variable or the name of a type."""

    name: str


class Select(Node):
    """`operand.field`; `test`: within `has()`; `optional`: `operand.?field`."""

    operand: Node
    field: str
    test: bool = False
    optional: bool = False


class Call(Node):
    """A function, method (`target` is set) or operator such as `_+_`, `_?_:_`, `_[_]`, `_[?_]`, `@in`."""

    function: str
    target: Node | None
    args: list[Node]


class ListOf(Node):
    """`[a, ?b]`: `optional` says which items are optional values."""

    items: list[Node]
    optional: list[bool]


class MapOf(Node):
    """`{a: b, ?c: d}`."""

    keys: list[Node]
    values: list[Node]
    optional: list[bool]


class Macro(Node):
    """`range.kind(variables, body...)`: `all`, `map`, `transformMap`, `optMap`, ..."""

    kind: str
    range: Node
    variables: list[str]
    body: list[Node]


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
