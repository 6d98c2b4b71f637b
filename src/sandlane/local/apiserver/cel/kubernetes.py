"""What Kubernetes adds to CEL: quantities, URLs, IP addresses, networks, semantic versions, named formats. Pure.

https://kubernetes.io/docs/reference/using-api/cel/#cel-options-language-features-and-libraries.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

from sandlane.kube.quantity import QuantityError, parse_quantity
from sandlane.local.apiserver.cel.times import Rows
from sandlane.local.apiserver.cel.values import (
    NONE,
    Cidr,
    EvaluationError,
    Format,
    Ip,
    Optional,
    Quantity,
    Semver,
    Url,
)
from sandlane.local.apiserver.crd.formats import FORMATS
from sandlane.local.apiserver.kinds import names


def _holds(parse: Callable[..., Any]) -> Callable[..., bool]:
    def holds(*args: Any) -> bool:
        try:
            parse(*args)
        except EvaluationError:
            return False
        return True

    return holds


# -- quantities ---------------------------------------------------------------------------------------------


def _quantity(text: str) -> Quantity:
    try:
        return Quantity(parse_quantity(text))
    except QuantityError as error:
        raise EvaluationError(str(error)) from error


def _integer(value: Quantity) -> int:
    if value.value.denominator != 1 or not -(2**63) <= value.value < 2**63:
        raise EvaluationError("cannot convert value to integer")
    return int(value.value)


def _plus(sign: int) -> Callable[[Quantity, Any], Quantity]:
    def plus(left: Quantity, right: Any) -> Quantity:
        return Quantity(left.value + sign * (right.value if isinstance(right, Quantity) else Fraction(right)))

    return plus


def _compared(left: Any, right: Any) -> int:
    return int(left > right) - int(left < right)


# -- URLs ---------------------------------------------------------------------------------------------------


def _url(text: str) -> Url:
    try:
        parts = urlsplit(text)
        ok = text.startswith("/") or bool(parts.scheme and (parts.netloc or parts.path.startswith("/")))
        _ = parts.port
    except ValueError as error:
        raise EvaluationError(f'URL parse error during conversion from string: parse "{text}": {error}') from error
    if not ok or " " in text:
        raise EvaluationError(f'URL parse error during conversion from string: parse "{text}": invalid URI for request')
    return Url(text)


def _parts(url: Url) -> SplitResult:
    return urlsplit(url.text)


# -- addresses ----------------------------------------------------------------------------------------------

_LOCAL_GROUPS = {4: ipaddress.ip_network("224.0.0.0/24"), 6: ipaddress.ip_network("ff02::/16")}


def _ip(text: str) -> Ip:
    try:
        if "%" in text:
            raise ValueError("IP address with zone value is not allowed")
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise EvaluationError(f'IP Address "{text}" parse error during conversion from string: {error}') from error
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        raise EvaluationError(f'IPv4-mapped IPv6 address "{text}" is not allowed')
    return Ip(address)


def _cidr(text: str) -> Cidr:
    try:
        if "/" not in text or "%" in text or not text.rpartition("/")[2].isdecimal():
            raise ValueError("no prefix length")
        return Cidr(ipaddress.ip_interface(text))
    except ValueError as error:
        raise EvaluationError(
            f'network address parse error during conversion from string: "{text}": {error}'
        ) from error


def _contains_ip(cidr: Cidr, ip: Ip) -> bool:
    return ip.address.version == cidr.interface.version and ip.address in cidr.interface.network


def _contains_cidr(outer: Cidr, inner: Cidr) -> bool:
    left, right = outer.interface.network, inner.interface.network
    return left.version == right.version and left.supernet_of(right)  # type: ignore[arg-type]


def _masked(cidr: Cidr) -> Cidr:
    return Cidr(ipaddress.ip_interface(str(cidr.interface.network)))


def _canonical(text: str) -> bool:
    return str(_ip(text).address) == text


# -- versions -----------------------------------------------------------------------------------------------

_IDENTIFIERS = r"[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*"
_SEMVER = re.compile(rf"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-({_IDENTIFIERS}))?(?:\+{_IDENTIFIERS})?", re.ASCII)


def _semver(text: str, normalize: bool = False) -> Semver:
    given = text
    if normalize:
        core, sign, rest = re.match(r"v?([^-+]*)([-+]?)(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]
        numbers = [part.lstrip("0") or "0" if part else part for part in core.split(".")]
        given = ".".join([*numbers, "0", "0"][: max(3, len(numbers))]) + sign + rest
    match = _SEMVER.fullmatch(given)
    parts = (match[4] or "").split(".") if match is not None else []
    if match is None or any(part.isdecimal() and part[0] == "0" and len(part) > 1 for part in parts):
        raise EvaluationError(f'semver parse error: "{text}" is no semantic version')
    order: tuple[Any, ...] = (1,)
    if match[4]:
        order = (0, tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts))
    return Semver(int(match[1]), int(match[2]), int(match[3]), order)


# -- formats ------------------------------------------------------------------------------------------------


def _prefix(rule: names.NameRule) -> names.NameRule:
    return lambda text: rule(text[:-1] + "a" if text.endswith("-") else text)


def _of_format(name: str, why: str) -> names.NameRule:
    check = FORMATS[name]
    return lambda text: [] if check(text) else [why]


NAMED: dict[str, names.NameRule] = {
    "dns1123Label": names.dns_label,
    "dns1123Subdomain": names.subdomain,
    "dns1035Label": names.dns1035_label,
    "qualifiedName": names.qualified_name,
    "dns1123LabelPrefix": _prefix(names.dns_label),
    "dns1123SubdomainPrefix": _prefix(names.subdomain),
    "dns1035LabelPrefix": _prefix(names.dns1035_label),
    "labelValue": names.label_value,
    "uri": lambda text: [] if _holds(_url)(text) else ["invalid URI for request"],
    "uuid": _of_format("uuid", "does not match the UUID format"),
    "byte": _of_format("byte", "invalid base64"),
    "date": _of_format("date", "invalid date"),
    "datetime": _of_format("date-time", "invalid datetime"),
}


def _validate(format_: Format, text: str) -> Optional:
    faults = format_.faults(text)
    return Optional(faults) if faults else NONE


def _named(name: str) -> Optional:
    return Optional(Format(name, NAMED[name])) if name in NAMED else NONE


def _constant(name: str) -> Callable[[], Format]:
    return lambda: Format(name, NAMED[name])


ROWS: Rows = [
    ("quantity", "(string) quantity", _quantity),
    ("isQuantity", "(string) bool", _holds(_quantity)),
    ("isInteger", "quantity.() bool", _holds(_integer)),
    ("asInteger", "quantity.() int", _integer),
    ("asApproximateFloat", "quantity.() double", lambda value: float(value.value)),
    ("sign", "quantity.() int", lambda value: _compared(value.value, 0)),
    ("add", "quantity.(quantity) quantity", _plus(1)),
    ("add", "quantity.(int) quantity", _plus(1)),
    ("sub", "quantity.(quantity) quantity", _plus(-1)),
    ("sub", "quantity.(int) quantity", _plus(-1)),
    *(
        (name, f"{type_}.({type_}) bool", lambda left, right: left > right)
        for name, type_ in (("isGreaterThan", "quantity"), ("isGreaterThan", "semver"))
    ),
    *(
        (name, f"{type_}.({type_}) bool", lambda left, right: left < right)
        for name, type_ in (("isLessThan", "quantity"), ("isLessThan", "semver"))
    ),
    *(
        (name, f"{type_}.({type_}) int", _compared)
        for name, type_ in (("compareTo", "quantity"), ("compareTo", "semver"))
    ),
    ("url", "(string) url", _url),
    ("isURL", "(string) bool", _holds(_url)),
    ("getScheme", "url.() string", lambda url: _parts(url).scheme),
    ("getHost", "url.() string", lambda url: _parts(url).netloc.rpartition("@")[2]),
    ("getHostname", "url.() string", lambda url: _parts(url).hostname or ""),
    ("getPort", "url.() string", lambda url: str(_parts(url).port or "")),
    ("getEscapedPath", "url.() string", lambda url: _parts(url).path),
    ("getQuery", "url.() map(string, list(string))", lambda url: parse_qs(_parts(url).query, keep_blank_values=True)),
    ("ip", "(string) ip", _ip),
    ("ip", "cidr.() ip", lambda cidr: Ip(cidr.interface.ip)),
    ("isIP", "(string) bool", _holds(_ip)),
    ("ip.isCanonical", "(string) bool", _canonical),
    ("string", "(ip) string", lambda ip: str(ip.address)),
    ("family", "ip.() int", lambda ip: ip.address.version),
    ("isLoopback", "ip.() bool", lambda ip: ip.address.is_loopback),
    ("isUnspecified", "ip.() bool", lambda ip: ip.address.is_unspecified),
    ("isLinkLocalMulticast", "ip.() bool", lambda ip: ip.address in _LOCAL_GROUPS[ip.address.version]),
    ("isLinkLocalUnicast", "ip.() bool", lambda ip: ip.address.is_link_local),
    (
        "isGlobalUnicast",
        "ip.() bool",
        lambda ip: (
            not (
                ip.address.is_multicast
                or ip.address.is_loopback
                or ip.address.is_unspecified
                or ip.address.is_link_local
                or str(ip.address) == "255.255.255.255"
            )
        ),
    ),
    ("cidr", "(string) cidr", _cidr),
    ("isCIDR", "(string) bool", _holds(_cidr)),
    ("string", "(cidr) string", lambda cidr: str(cidr.interface)),
    ("containsIP", "cidr.(string) bool", lambda cidr, text: _contains_ip(cidr, _ip(text))),
    ("containsIP", "cidr.(ip) bool", _contains_ip),
    ("containsCIDR", "cidr.(string) bool", lambda cidr, text: _contains_cidr(cidr, _cidr(text))),
    ("containsCIDR", "cidr.(cidr) bool", _contains_cidr),
    ("prefixLength", "cidr.() int", lambda cidr: cidr.interface.network.prefixlen),
    ("masked", "cidr.() cidr", _masked),
    ("semver", "(string) semver", _semver),
    ("semver", "(string, bool) semver", _semver),
    ("isSemver", "(string) bool", _holds(_semver)),
    ("isSemver", "(string, bool) bool", _holds(_semver)),
    ("major", "semver.() int", lambda version: version.major),
    ("minor", "semver.() int", lambda version: version.minor),
    ("patch", "semver.() int", lambda version: version.patch),
    ("format.named", "(string) optional(format)", _named),
    *((f"format.{name}", "() format", _constant(name)) for name in NAMED),
    ("validate", "format.(string) optional(list(string))", _validate),
]
"""Functions: name, signature, what does it."""
