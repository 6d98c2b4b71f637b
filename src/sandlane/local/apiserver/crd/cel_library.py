"""The functions that Kubernetes adds to CEL: texts, lists, quantities, URLs, IP addresses. Pure.

https://kubernetes.io/docs/reference/using-api/cel/#cel-options-language-features-and-libraries. Quantities, URLs and addresses are maps
with one entry here, so that equal ones are equal. `find`, `findAll` and `format` validators are not there.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

from sandlane.kube.quantity import parse_quantity

Function = Callable[..., Any]
_CALLED = re.compile(r"(\w+)\s*\(")
_NAMESPACE = re.compile(r"\bsets\s*\.\s*")
_QUANTITY, _URL, _IP, _CIDR = "quantity", "url", "ip", "cidr"


def _find(value: Any, part: Any, *start: int) -> int:
    if isinstance(value, str):
        return value.find(part, *start)
    return next((index for index, item in enumerate(value) if item == part), -1)


def _find_last(value: Any, part: Any, *end: int) -> int:
    if isinstance(value, str):
        return value.rfind(part, 0, *(each + len(part) for each in end))
    return next((index for index in reversed(range(len(value))) if value[index] == part), -1)


def _split(text: str, by: str, limit: int = -1) -> list[str]:
    if limit == 0:
        return []
    if not by:
        parts = list(text)
        return parts if limit < 0 or len(parts) <= limit else [*parts[: limit - 1], "".join(parts[limit - 1 :])]
    return text.split(by, limit - 1 if limit > 0 else -1)


def _substring(text: str, start: int, end: int | None = None) -> str:
    end = len(text) if end is None else end
    if not 0 <= start <= end <= len(text):
        raise ValueError(f"index out of range: {start}, {end}")
    return text[start:end]


def _char_at(text: str, index: int) -> str:
    if not 0 <= index <= len(text):
        raise ValueError(f"index out of range: {index}")
    return text[index : index + 1]


def _format(text: str, values: list[Any]) -> str:
    made, rest, values = "", text, list(values)
    while rest:
        before, percent, rest = rest.partition("%")
        made += before
        if not percent:
            break
        if rest.startswith("%"):
            made, rest = made + "%", rest[1:]
            continue
        precision = ""
        if rest.startswith("."):
            digits = len(rest[1:]) - len(rest[1:].lstrip("0123456789"))
            precision, rest = rest[: digits + 1], rest[digits + 1 :]
        if not rest or rest[0] not in "sdfexXbo" or not values:
            raise ValueError("format: unknown clause or too few arguments")
        value = values.pop(0)
        made += _shown(value) if rest[0] == "s" else format(value, precision + rest[0] if rest[0] in "fe" else rest[0])
        rest = rest[1:]
    return made


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(_shown(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_shown(key)}: {_shown(value[key])}" for key in sorted(value)) + "}"
    return "null" if value is None else str(value)


def _quantity(text: str) -> dict[str, str]:
    return {_QUANTITY: str(parse_quantity(text))}


def _number(value: Any) -> Fraction:
    if isinstance(value, Mapping):
        return Fraction(value[_QUANTITY])
    return Fraction(value)


def _plus(sign: int) -> Function:
    return lambda left, right: {_QUANTITY: str(_number(left) + sign * _number(right))}


def _integer(value: Any) -> int:
    number = _number(value)
    if number != int(number):
        raise ValueError("cannot convert value to integer")
    return int(number)


def _is(parse: Callable[[Any], Any]) -> Callable[[Any], bool]:
    def holds(value: Any) -> bool:
        try:
            parse(value)
        except (ValueError, ArithmeticError):
            return False
        return True

    return holds


def _url(text: str) -> dict[str, str]:
    parts = urlsplit(text)
    if not (parts.scheme and (parts.netloc or parts.path.startswith("/"))) and not text.startswith("/"):
        raise ValueError(f"not a URL: {text}")
    return {_URL: text}


def _parts(url: Mapping[str, str]) -> SplitResult:
    return urlsplit(url[_URL])


def _ip(text: str) -> dict[str, str]:
    if "%" in text:
        raise ValueError("zones are not allowed")
    return {_IP: str(ipaddress.ip_address(text))}


def _address(value: Any) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(value[_IP] if isinstance(value, Mapping) else value)


def _cidr(text: str) -> dict[str, str]:
    if "/" not in text:
        raise ValueError("no prefix length")
    return {_CIDR: str(ipaddress.ip_interface(text))}


def _network(value: Any) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(value[_CIDR] if isinstance(value, Mapping) else value, strict=False)


def _contains_cidr(outer: Any, inner: Any) -> bool:
    left, right = _network(outer), _network(inner)
    return left.version == right.version and left.supernet_of(right)  # type: ignore[arg-type]


FUNCTIONS: dict[str, Function] = {
    "charAt": _char_at,
    "format": _format,
    "indexOf": _find,
    "join": lambda items, by="": by.join(items),
    "lastIndexOf": _find_last,
    "lowerAscii": lambda text: "".join(c.lower() if c.isascii() else c for c in text),
    "replace": lambda text, old, new, limit=-1: text.replace(old, new, limit),
    "split": _split,
    "substring": _substring,
    "trim": lambda text: text.strip(),
    "upperAscii": lambda text: "".join(c.upper() if c.isascii() else c for c in text),
    "isSorted": lambda items: all(left <= right for left, right in pairwise(items)),
    "sum": sum,
    "min": lambda *items: min(items[0] if len(items) == 1 and isinstance(items[0], list) else items),
    "max": lambda *items: max(items[0] if len(items) == 1 and isinstance(items[0], list) else items),
    "quantity": _quantity,
    "isQuantity": _is(_quantity),
    "isInteger": _is(_integer),
    "asInteger": _integer,
    "asApproximateFloat": lambda value: float(_number(value)),
    "sign": lambda value: (_number(value) > 0) - (_number(value) < 0),
    "add": _plus(1),
    "sub": _plus(-1),
    "isGreaterThan": lambda left, right: _number(left) > _number(right),
    "isLessThan": lambda left, right: _number(left) < _number(right),
    "compareTo": lambda left, right: (_number(left) > _number(right)) - (_number(left) < _number(right)),
    "url": _url,
    "isURL": _is(_url),
    "getScheme": lambda url: _parts(url).scheme,
    "getHost": lambda url: _parts(url).netloc.rpartition("@")[2],
    "getHostname": lambda url: _parts(url).hostname or "",
    "getPort": lambda url: str(_parts(url).port or ""),
    "getEscapedPath": lambda url: _parts(url).path,
    "getQuery": lambda url: parse_qs(_parts(url).query, keep_blank_values=True),
    "ip": lambda value: {_IP: value[_CIDR].partition("/")[0]} if isinstance(value, Mapping) else _ip(value),
    "isIP": _is(_ip),
    "family": lambda value: _address(value).version,
    "isLoopback": lambda value: _address(value).is_loopback,
    "isUnspecified": lambda value: _address(value).is_unspecified,
    "isLinkLocalMulticast": lambda value: _address(value).is_multicast and _address(value).is_link_local,
    "isLinkLocalUnicast": lambda value: _address(value).is_link_local,
    "isGlobalUnicast": lambda value: not (_address(value).is_multicast or _address(value).is_loopback),
    "cidr": _cidr,
    "isCIDR": _is(_cidr),
    "containsIP": lambda cidr, value: _address(value) in _network(cidr),
    "containsCIDR": _contains_cidr,
    "prefixLength": lambda cidr: _network(cidr).prefixlen,
    "masked": lambda cidr: {_CIDR: str(_network(cidr))},
}


FUNCTIONS |= {
    "sets_contains": lambda items, others: all(each in items for each in others),
    "sets_equivalent": lambda items, others: all(e in items for e in others) and all(e in others for e in items),
    "sets_intersects": lambda items, others: any(each in items for each in others),
}
BUILTIN = frozenset(
    [
        "all",
        "exists",
        "exists_one",
        "existsOne",
        "map",
        "filter",
        "has",
        "size",
        "contains",
        "startsWith",
        "endsWith",
        "matches",
        "bytes",
        "double",
        "dyn",
        "duration",
        "int",
        "string",
        "timestamp",
        "type",
        "uint",
        "getDate",
        "getDayOfMonth",
        "getDayOfWeek",
        "getDayOfYear",
        "getFullYear",
        "getHours",
        "getMilliseconds",
        "getMinutes",
        "getMonth",
        "getSeconds",
        "of",
        "none",
        "ofNonZeroValue",
        "hasValue",
        "value",
        "or",
        "orValue",
    ]
)
"""The functions of the library itself."""


@lru_cache(maxsize=4096)
def functions_in(expression: str) -> tuple[tuple[str, Function], ...]:
    """The functions that an expression calls."""
    called = set(_CALLED.findall(_NAMESPACE.sub("sets_", expression)))
    return tuple((name, function) for name, function in FUNCTIONS.items() if name in called)
