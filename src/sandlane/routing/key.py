"""The routing key that a request carries. Pure; the same rules as the Lua filter of the routers (`envoy/filter.py`).

Baggage: https://www.w3.org/TR/baggage/; `tracestate`: https://www.w3.org/TR/trace-context/.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

import msgspec

MEMBER = "sandlane-routing-key"
MAX_KEY = 40
"""Characters of a key at most; what is longer, or has other characters than a key may have, is nobody's."""
_SPACE = " \t"
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_NOT_WHOLE = ("baggage", "tracestate", "host", "content-length", "transfer-encoding", "connection")


class KeySources(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Where a key is looked for, in this order: baggage, tracestate, whole-value headers, query parameter."""

    members: tuple[str, ...] = (MEMBER,)
    headers: tuple[str, ...] = ()
    query_parameter: str = ""

    @property
    def problem(self) -> str:
        """What is wrong with these names; empty when nothing is."""
        if not self.members:
            return "routingKeyMembers: at least one name is needed"
        for field, names in (("Members", self.members), ("Headers", self.headers)):
            for name in names:
                if not re.fullmatch(_TOKEN, name):
                    return f"routingKey{field}: {name!r} is not a name that a header may have"
        for name in self.headers:
            if name.lower() in _NOT_WHOLE or name.lower().startswith("x-sandlane-internal"):
                return f"routingKeyHeaders: {name} cannot carry a routing key"
        if self.query_parameter and not re.fullmatch(r"[A-Za-z0-9._~-]+", self.query_parameter):
            return f"routingKeyQueryParameter: {self.query_parameter!r} must be letters, digits and . _ ~ -"
        return ""


class Found(NamedTuple):
    """A key and what carried it, in words."""

    key: str
    where: str


def routing_key(headers: Iterable[tuple[str, str]], path: str = "/", sources: KeySources | None = None) -> str | None:
    """The key in a request's headers (as sent, repeats included), or None."""
    found = find_key(headers, path, sources)
    return found.key if found else None


def find_key(headers: Iterable[tuple[str, str]], path: str = "/", sources: KeySources | None = None) -> Found | None:
    """The key in a request's headers, and which of them carried it."""
    sources = sources or KeySources()
    pairs = [(name.lower(), value) for name, value in headers]
    for header in ("baggage", "tracestate"):
        values = [value for name, value in pairs if name == header]
        found = _member(values, sources.members, decode=header == "baggage")
        if found is not None:
            return Found(found.key, f"{header} member {found.where}")
    for wanted in sources.headers:
        for name, value in pairs:
            if name == wanted.lower() and value.strip(_SPACE):
                return Found(value.strip(_SPACE), f"header {name}")
    if sources.query_parameter:
        key = _parameter(path, sources.query_parameter)
        return None if key is None else Found(key, f"query parameter {sources.query_parameter}")
    return None


def _member(values: Sequence[str], names: Sequence[str], *, decode: bool) -> Found | None:
    """The first list member with one of the names; several headers are one list."""
    for value in values:
        for item in value.split(","):
            name, equals, rest = item.partition(";")[0].partition("=")
            if not equals or name.strip(_SPACE) not in names:
                continue
            text = rest.strip(_SPACE)
            if not text:
                continue
            return Found(unquote_to_bytes(text).decode("utf-8", "replace") if decode else text, name.strip(_SPACE))
    return None


def _parameter(path: str, wanted: str) -> str | None:
    query = path.partition("?")[2].partition("#")[0]
    for pair in query.split("&"):
        name, equals, value = pair.partition("=")
        if equals and name == wanted and value:
            return unquote_to_bytes(value.replace("+", " ")).decode("utf-8", "replace")
    return None
