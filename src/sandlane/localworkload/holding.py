"""Who may hold a LocalWorkload's tunnels: one client at a time. Pure.

A second client of the same user takes over; another user's is refused while the first one is connected, or was a moment ago.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sandlane.api.types import ConnectionStatus
from sandlane.kube.clock import parse_timestamp, timestamp

RESERVED = timedelta(seconds=60)
"""For how long a client that is not connected (its lid is closed) keeps others' clients out."""


class Refused(Exception):
    """The client may not hold it; the message names who does."""


def hold(
    now_held: ConnectionStatus | None, user: str, session: str, now: datetime, *, renewal: bool = False
) -> ConnectionStatus:
    """The connection once `user`'s client has its certificate; the same value when it holds it already. Raises `Refused`."""
    fresh = ConnectionStatus(client=user, session=session, last_seen=timestamp(now))
    if now_held is None or not now_held.session:
        return fresh
    if now_held.session == session and now_held.client == user:
        return now_held
    if renewal and now_held.client == user:
        raise Refused(
            f"{user} has connected from somewhere else meanwhile, which took it over: connect again to take it back"
        )
    if now_held.client != user and _keeps_out(now_held, now):
        since = f"since {now_held.connected_at}" if now_held.tunnels else f"last seen at {now_held.last_seen}"
        raise Refused(f"it is held by {now_held.client} ({since}): one client at a time")
    return fresh


def _keeps_out(connection: ConnectionStatus, now: datetime) -> bool:
    if connection.tunnels or not connection.last_seen:
        return True
    return now - parse_timestamp(connection.last_seen) < RESERVED
