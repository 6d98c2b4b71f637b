"""What rules can cost at most, by the limits that their schema sets: checked when a definition is written. Pure.

As upstream in kind: what has no `maxItems`, `maxLength` or `maxProperties` may be as large as a request, and a rule on an element is run
for each element. The sums differ a little from those of cel-go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sandlane.local.apiserver.cel.tree import Call, Ident, ListOf, Literal, Macro, MapOf, Node, Select, children
from sandlane.local.apiserver.crd.cel_types import fields_of
from sandlane.local.apiserver.schema import Schema
from sandlane.local.apiserver.wire.bodies import MAX_BODY_BYTES

RULE_LIMIT = 10_000_000
TOTAL_LIMIT = 100_000_000
UNKNOWN = 2**64
_LOOKING = {"matches": 0.25, "find": 0.25, "findAll": 0.25, "contains": 0.1}
_WHOLE_LISTS = ("sum", "min", "max", "isSorted", "indexOf", "lastIndexOf", "flatten", "reverse", "slice")
_NEW_TEXTS = (
    "lowerAscii",
    "upperAscii",
    "substring",
    "trim",
    "replace",
    "split",
    "join",
    "format",
)
_WHOLE_TEXTS = (
    *_NEW_TEXTS,
    *("url", "isURL", "ip", "isIP", "cidr", "isCIDR", "quantity", "isQuantity", "semver", "isSemver", "validate"),
)
_SQUARE = ("sort", "distinct", "sets.contains", "sets.equivalent", "sets.intersects")


class Size(NamedTuple):
    """What is known of a value: its schema, and how many characters, items or entries it has at most."""

    schema: Schema | None
    most: int


def smallest(schema: Schema | None) -> int:
    """Bytes of JSON that a value takes at least."""
    if schema is None:
        return 1
    match schema.type:
        case "object":
            needed = [schema.properties[name] for name in schema.required if name in schema.properties]
            return 2 + sum(smallest(each) + 4 for each in needed if each is not schema)
        case "string" | "array":
            return 2
        case "boolean":
            return 4
    return 1


def most(schema: Schema | None) -> int:
    """The size that a value may have."""
    if schema is None:
        return MAX_BODY_BYTES
    raw = schema.raw
    match schema.type:
        case "array":
            return int(raw.get("maxItems", MAX_BODY_BYTES // (smallest(schema.items) + 1)))
        case "object" if schema.additional is not None:
            return int(raw.get("maxProperties", MAX_BODY_BYTES // (smallest(schema.additional) + 4)))
        case "string":
            if "enum" in raw:
                return max((len(str(each)) for each in schema.enum), default=0)
            return int(
                raw.get("maxLength", {"date": 10, "date-time": 32, "duration": 64}.get(schema.format, MAX_BODY_BYTES))
            )
        case "object":
            return len(schema.properties)
    return MAX_BODY_BYTES if not schema.type or schema.int_or_string else 1


def estimate(node: Node, variables: Mapping[str, Schema | None]) -> int:
    """The steps that an expression takes at most."""
    known = {name: Size(schema, most(schema)) for name, schema in variables.items()}
    return int(_Estimate().cost(node, known)[0])


class _Estimate:
    def cost(self, node: Node, known: Mapping[str, Size]) -> tuple[float, Size]:
        """The cost of a piece, and what its value is like."""
        match node:
            case Literal():
                size = len(node.value) if isinstance(node.value, (str, bytes)) else 1
                return 0, Size(None, size)
            case Ident():
                return 1, known.get(node.name, Size(None, 1))
            case Select():
                cost, of = self.cost(node.operand, known)
                if node.test:
                    return cost + 1, Size(None, 1)
                child = fields_of(of.schema).get(node.field) or of.schema.additional if of.schema is not None else None
                return cost + 1, Size(child, most(child))
            case ListOf() | MapOf():
                base = 10 if isinstance(node, ListOf) else 30
                entries = len(node.items) if isinstance(node, ListOf) else len(node.keys)
                return base + sum(self.cost(each, known)[0] for each in children(node)), Size(None, entries)
            case Macro():
                return self._loop(node, known)
            case Call():
                return self._call(node, known)
        raise AssertionError(node)

    def _loop(self, node: Macro, known: Mapping[str, Size]) -> tuple[float, Size]:
        cost, over = self.cost(node.range, known)
        schema = over.schema
        item = None
        if schema is not None:
            item = schema.items if schema.type == "array" else schema.additional
        element = Size(item, most(item))
        key = Size(
            None, 0 if schema is not None else MAX_BODY_BYTES
        )  # a schema cannot bound keys; upstream has them free
        if node.kind in ("optMap", "optFlatMap"):
            inner, rounds = {**known, node.variables[0]: over}, 1
        elif len(node.variables) == 2:
            inner, rounds = {**known, node.variables[0]: key, node.variables[1]: element}, over.most
        else:
            only = element if schema is None or schema.type == "array" else key
            inner, rounds = {**known, node.variables[0]: only}, over.most
        step = sum(self.cost(each, inner)[0] for each in node.body)
        if node.kind == "sortBy":
            return cost + rounds * (rounds + step), over
        made = over if node.kind == "filter" else Size(None, rounds if "ap" in node.kind or "L" in node.kind else 1)
        return cost + rounds * (step + 2), made

    def _call(self, node: Call, known: Mapping[str, Size]) -> tuple[float, Size]:
        parts = ([node.target] if node.target is not None else []) + node.args
        found = [self.cost(each, known) for each in parts]
        total = sum(cost for cost, _ in found)
        sizes = [size for _, size in found]
        first = sizes[0].most if sizes else 1
        match node.function:
            case "_&&_" | "_||_":
                return total, Size(None, 1)
            case "_?_:_":
                larger = max(sizes[1:], key=lambda size: size.most)
                return found[0][0] + max(found[1][0], found[2][0]), larger
            case "_[_]" | "_[?_]":
                of = sizes[0].schema
                child = (of.items if of.type == "array" else of.additional) if of is not None else None
                return total + 1, Size(child, most(child))
            case "_==_" | "_!=_" | "_<_" | "_<=_" | "_>_" | "_>=_":
                return total + 1 + 0.1 * min(size.most for size in sizes), Size(None, 1)
            case "_+_":
                return total + 1 + 0.1 * sum(size.most for size in sizes), Size(
                    sizes[0].schema, sum(s.most for s in sizes)
                )
            case "@in":
                return total + 1 + sizes[1].most, Size(None, 1)
            case "orValue" | "value" | "dyn" | "optional.of":
                return total + 1, max(sizes, key=lambda size: size.most)
            case "size" | "hasValue" | "int" | "double" | "bool" | "type":
                return total + 1, Size(None, 1)
            case "startsWith" | "endsWith":
                return total + 1 + 0.1 * sizes[-1].most, Size(None, 1)
            case name if name in _LOOKING:
                return total + 1 + 0.1 * first * max(1, _LOOKING[name] * sizes[-1].most), Size(None, first)
            case name if name in _WHOLE_LISTS:
                return total + 1 + first, sizes[0]
            case name if name in _SQUARE:
                return total + 1 + first * sizes[-1].most, sizes[0]
        if node.function in ("string", "bytes"):  # upstream knows no limit of what is made of a number
            return total + 1, Size(None, UNKNOWN)
        whole = sum(size.most for size in sizes)
        if node.function == "join" and (sizes[0].schema is None or sizes[0].schema.items is None):
            return total + UNKNOWN, Size(None, UNKNOWN)
        looked = 0.1 * whole if node.function in _WHOLE_TEXTS else 0
        return total + 1 + looked, Size(None, whole if node.function in _NEW_TEXTS else 1)


def too_much(name: str, cost: int, limit: int) -> str:
    """Why a cost is refused; empty when it is not."""
    if cost <= limit:
        return ""
    factor = cost / limit
    by = "more than 100x" if factor > 100 else f"{factor:.1f}x" if factor >= 1.5 else f"{factor:f}x"
    return (
        f"{name} exceeds budget by factor of {by} (try simplifying the rule, or adding maxItems, maxProperties, and "
        "maxLength where arrays, maps, and strings are declared)"
    )
