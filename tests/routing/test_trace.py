"""Where a probe arrived with its key, and where that was lost, from what routers log."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sandlane.routing.envoy.probe import MARK, TRACE_PREFIX
from sandlane.routing.key import KeySources
from sandlane.routing.rules import Rule
from sandlane.routing.trace import Hop, Probe, hops_in, judge

PROBE = Probe("ab" * 12, "k1")
TRACE = f"00-{TRACE_PREFIX}{'ab' * 12}-0123456789abcdef-01"
KEPT = f"sandlane-routing-key=k1,sandlane-probe={'ab' * 12}"


def line(door: str, at: float = 0.0, ms: int = 10, baggage: str = KEPT, trace: str = TRACE, **more: Any) -> str:
    """A line as a router logs it."""
    told = {MARK: f"n/{door}:80", "at": str(1000 + at), "milliseconds": ms, "method": "GET", "path": "/", "status": 200}
    return json.dumps(
        told | {"servedBy": "baseline", "traceparent": trace, "baggage": baggage, "tracestate": "-"} | more
    )


def rule(door: str, key: str = "k1") -> Rule:
    """A route of the key."""
    return Rule("n", door, 80, key, "Sandbox n/a", "a", "a/w", active=True)


def verdict(*lines: str, rules: tuple[Rule, ...] = (), status: int = 200, probe: Probe = PROBE) -> tuple[str, str]:
    """The verdict and its words."""
    made = judge(probe, hops_in(lines, probe), rules, status)
    return made.verdict, made.message


def test_hops_are_nested_by_time() -> None:
    """A call is made while its caller is still answering; what is not of the probe is left out."""
    found = hops_in(
        [
            line("eta", 0.004, 2),
            "plain text",
            '{"other": 1}',
            '{"sandlaneProbe": "torn',
            line("routes", 0.003, 5),
            line("drivers", 0.001, 1),
            line("web", 0.0, 20),
            line("web", 0.0, 20, trace=f"00-{TRACE_PREFIX}{'cd' * 12}-0123456789abcdef-01", baggage="-"),
        ],
        PROBE,
    )
    assert [(hop.door, hop.caller) for hop in found] == [
        ("n/web:80", ""),
        ("n/drivers:80", "n/web:80"),
        ("n/routes:80", "n/web:80"),
        ("n/eta:80", "n/routes:80"),
    ]
    assert found[0] == Hop("n/web:80", 1000.0, 0.02, "GET", "/", 200, "baseline", "k1", True, True)


def test_keys_in_other_places() -> None:
    """A probe's key is looked for where this cluster's routers look, and sent by the name that they know."""
    sources = KeySources(("sd-routing-key",), ("x-key",))
    probe = Probe("ab" * 12, "k1", "sd-routing-key")
    assert probe.headers()["baggage"] == KEPT.replace("sandlane", "sd", 1)
    told = line("web", baggage=KEPT.replace("sandlane", "sd", 1)), line("eta", baggage="-", headers={"x-key": "k1"})
    assert [hop.key for hop in hops_in(told, probe, sources)] == ["k1", "k1"]
    assert [hop.key for hop in hops_in(told, probe)] == ["", ""]
    assert "k1" not in Probe("ab" * 12, "k1", "").headers()["baggage"]


def test_a_key_that_arrives() -> None:
    """Where every hop has the key, that is said; doors with a route that saw nothing are named."""
    assert verdict(line("web")) == ("arrived", "the key arrived at all 1 hop that routers saw")
    told = verdict(line("web"), rules=(rule("web"), rule("eta"), rule("eta", "other")), status=503)
    assert told[0] == "arrived"
    assert "n/eta:80 has a route for the key and did not see the probe" in told[1]
    assert "the answer was 503" in told[1]


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        (
            {"baggage": "a=b"},
            "the call to n/eta:80 had no key (the trace context arrived). Either baseline behind n/web:80 made it",
        ),
        ({"baggage": KEPT.replace("k1", "k2"), "trace": "-"}, "had another key (the probe's baggage arrived)"),
    ],
)
def test_a_key_that_is_lost(lost: dict[str, str], words: str) -> None:
    """The first hop without the key, and who called it."""
    told = verdict(line("web", 0, 20), line("eta", 0.001, 2, **lost))
    assert told[0] == "lost"
    assert "between n/web:80 and n/eta:80" in told[1]
    assert words in told[1]


def test_lost_before_the_first_router() -> None:
    """A proxy before the first router may have taken it off."""
    assert verdict(line("web", baggage="-"))[1].startswith("lost before n/web:80: the request came with no key")


def test_nobody_saw_it() -> None:
    """Without any line nothing is claimed but that."""
    told = verdict("something else")
    assert told[0] == "unseen"
    assert "no router saw the probe" in told[1]


def test_without_a_key() -> None:
    """A plain probe only shows its way."""
    plain = Probe("ab" * 12, "")
    assert verdict(line("web", baggage="-"), probe=plain) == ("arrived", "1 hop without a key")
    assert plain.headers("x=y") == {
        "traceparent": TRACE.replace("0123456789abcdef", "ab" * 8),
        "baggage": f"sandlane-probe={'ab' * 12},x=y",
    }
    assert PROBE.headers()["baggage"] == KEPT
