"""String formats that a custom resource's schema can ask for."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
import uuid
from collections.abc import Callable
from datetime import date, datetime
from urllib.parse import urlsplit

_DURATION = re.compile(r"([+-]?(\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h|d|w))+|0")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")
_HOST = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?)*")


def _try(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            parse(text)
        except (ValueError, binascii.Error):
            return False
        return True

    return check


def _date_time(text: str) -> bool:
    if not re.fullmatch(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", text):
        return False
    return _try(lambda value: datetime.fromisoformat(value.upper().replace("Z", "+00:00")))(text)


FORMATS: dict[str, Callable[[str], bool]] = {
    "date": _try(date.fromisoformat),
    "date-time": _date_time,
    "duration": lambda text: _DURATION.fullmatch(text) is not None,
    "email": lambda text: _EMAIL.fullmatch(text) is not None,
    "hostname": lambda text: _HOST.fullmatch(text) is not None and len(text) <= 253,
    "ipv4": _try(ipaddress.IPv4Address),
    "ipv6": _try(ipaddress.IPv6Address),
    "cidr": _try(lambda text: ipaddress.ip_network(text, strict=False)),
    "uuid": _try(uuid.UUID),
    "uri": lambda text: bool(urlsplit(text).scheme) or text.startswith("/"),
    "byte": _try(lambda text: base64.b64decode(text, validate=True)),
}
"""A format that is not here is not checked, as in kube-apiserver."""

KNOWN_FORMATS = frozenset(FORMATS) - {"cidr"} | frozenset(
    [
        "bsonobjectid",
        "creditcard",
        "datetime",
        "double",
        "float",
        "hexcolor",
        "int32",
        "int64",
        "isbn",
        "isbn10",
        "isbn13",
        "k8s-long-name",
        "k8s-short-name",
        "mac",
        "password",
        "rgbcolor",
        "ssn",
        "uuid3",
        "uuid4",
        "uuid5",
    ]
)
"""Formats that kube-apiserver knows; it warns of others (also of `cidr`, which it checks)."""
