"""When objects expire."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from sandlane.api.keys import derive_key, routing_key
from sandlane.api.ttl import expiry, parse_duration
from sandlane.api.types import Ttl

DAY = "2026-01-01T00:00:00Z"


@pytest.mark.parametrize(("text", "hours"), [("30m", 0.5), ("2h", 2), ("3d", 72), ("1w", 168)])
def test_durations(text: str, hours: float) -> None:
    """Minutes, hours, days and weeks."""
    assert parse_duration(text) == timedelta(hours=hours)


@pytest.mark.parametrize("text", ["", "0d", "2y", "1.5h", "d", "-1d", "1d2h", "999999d"])
def test_what_is_no_duration(text: str) -> None:
    """Everything else is refused."""
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


def test_expiry_is_counted_and_announced() -> None:
    """15 % of the duration before, at least five minutes, never before the count begins."""
    found = expiry(Ttl("10d"), created=DAY, updated="")
    assert found is not None
    assert found.at == datetime(2026, 1, 11, tzinfo=UTC)
    assert found.warn_at == found.at - timedelta(days=1.5)
    short = expiry(Ttl("20m", "lastUpdate"), created=DAY, updated="2026-01-02T00:00:00Z")
    assert short is not None
    assert short.at - short.warn_at == timedelta(minutes=5)
    tiny = expiry(Ttl("2m"), created=DAY, updated="")
    assert tiny is not None
    assert tiny.warn_at == datetime(2026, 1, 1, tzinfo=UTC)


def test_unmatched_groups_expire_only_while_unmatched() -> None:
    """Counted from the moment since when no sandbox matches, if there is one."""
    ttl = Ttl("1d", "noMatchedSandboxes")
    assert expiry(ttl, created=DAY, updated="") is None
    assert expiry(ttl, created=DAY, updated="", unmatched_since=DAY) is not None


def test_keys_are_a_function_of_the_uid() -> None:
    """13 lower-case letters and digits, stable, different for different uids; a wanted key wins."""
    key = derive_key("a")
    assert key == derive_key("a") != derive_key("b")
    assert len(key) == 13
    assert key.isalnum()
    assert key == key.lower()
    assert routing_key("a", "mine") == "mine"
