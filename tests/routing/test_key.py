"""The routing key that a request carries, by the rules of the contract."""

from __future__ import annotations

import pytest

from sandlane.routing.key import KeySources, routing_key

Headers = list[tuple[str, str]]


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ([], None),
        ([("baggage", "sandlane-routing-key=a")], "a"),
        ([("Baggage", " x=1 , sandlane-routing-key = a ;p=1;q, y=2")], "a"),
        ([("baggage", "x=1"), ("baggage", "sandlane-routing-key=a")], "a"),
        ([("baggage", "sandlane-routing-key=a,sandlane-routing-key=b")], "a"),
        ([("baggage", "sandlane-routing-key=a%20b%C3%A9")], "a bé"),
        ([("baggage", "my-sandlane-routing-key=a")], None),
        ([("baggage", "sandlane-routing-key-2=a")], None),
        ([("baggage", "x=sandlane-routing-key=a")], None),
        ([("baggage", "sandlane-routing-key=")], None),
        ([("baggage", "sandlane-routing-key")], None),
        ([("tracestate", "other=1,sandlane-routing-key=a%20b")], "a%20b"),
        ([("tracestate", "sandlane-routing-key=t"), ("baggage", "sandlane-routing-key=b")], "b"),
    ],
)
def test_key(headers: Headers, key: str | None) -> None:
    """Baggage before tracestate, names exact, properties ignored, values percent-decoded in baggage only."""
    assert routing_key(headers) == key


def test_configured_sources() -> None:
    """Other member names, whole-value headers and a query parameter count where they are configured, in this order."""
    sources = KeySources(members=("sandlane-routing-key", "sd-routing-key"), headers=("X-Key",), query_parameter="key")
    assert routing_key([("baggage", "sd-routing-key=s")], "/?key=q", sources) == "s"
    assert routing_key([("x-key", " h ")], "/?key=q", sources) == "h"
    assert routing_key([], "/a?b=1&key=q%2B+r#key=z", sources) == "q+ r"
    assert routing_key([("x-key", "h")], "/?key=q") is None


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        (KeySources(), ""),
        (KeySources(("a", "sd-routing-key"), ("X-Key",), "key"), ""),
        (KeySources(()), "at least one name"),
        (KeySources(("a b",)), "'a b'"),
        (KeySources(("a=b",)), "'a=b'"),
        (KeySources(("a",), ("Host",)), "Host cannot carry"),
        (KeySources(("a",), ("x-sandlane-internal-key",)), "cannot carry"),
        (KeySources(("a",), (), "a&b"), "'a&b'"),
    ],
)
def test_sources_are_checked(sources: KeySources, said: str) -> None:
    """Names that no request can have, or that must not decide, are refused with the option and the name."""
    assert (sources.problem == "") if not said else (said in sources.problem)
