"""One client at a time holds a LocalWorkload."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from sandlane.api.types import ConnectionStatus
from sandlane.localworkload.holding import RESERVED, Refused, hold

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CONNECTED = ConnectionStatus(client="jane", session="aaaa", connected_at="2026-01-01T00:00:00Z", tunnels=4)
ASLEEP = msgspec.structs.replace(CONNECTED, tunnels=0, last_seen="2026-01-01T00:00:00Z")


def test_the_first_client_holds_it() -> None:
    """Nobody is kept out of what nobody holds."""
    assert hold(None, "jane", "aaaa", NOW) == ConnectionStatus("jane", "aaaa", last_seen="2026-01-01T00:00:00Z")


def test_a_holder_renews() -> None:
    """A client that holds it already changes nothing by asking again."""
    assert hold(CONNECTED, "jane", "aaaa", NOW, renewal=True) is CONNECTED


def test_the_same_user_takes_over() -> None:
    """Another client of the same user holds it from now on, and starts anew."""
    assert hold(CONNECTED, "jane", "bbbb", NOW) == ConnectionStatus("jane", "bbbb", last_seen="2026-01-01T00:00:00Z")


def test_a_renewal_never_takes_over() -> None:
    """A client that was taken over from while it slept does not take it back by renewing."""
    with pytest.raises(Refused, match="somewhere else"):
        hold(CONNECTED, "jane", "bbbb", NOW, renewal=True)


def test_another_user_is_refused_by_name() -> None:
    """Another user is told who holds it, also when she guesses the session."""
    for session in ("aaaa", "bbbb"):
        with pytest.raises(Refused, match="held by jane"):
            hold(CONNECTED, "bob", session, NOW)


def test_a_closed_lid_keeps_others_out_for_a_while() -> None:
    """What is not connected is free for others after a while, and no earlier."""
    with pytest.raises(Refused, match="last seen"):
        hold(ASLEEP, "bob", "bbbb", NOW + RESERVED - timedelta(seconds=1))
    assert hold(ASLEEP, "bob", "bbbb", NOW + RESERVED).client == "bob"
