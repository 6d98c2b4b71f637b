"""Time to live: durations, when an object expires, when to say so before. Pure: the time is an argument."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import msgspec

from sandlane.api.types import Ttl

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION = re.compile(r"([1-9][0-9]{0,4})([mhdw])")
_LEAST_WARNING = timedelta(minutes=5)


def parse_duration(text: str) -> timedelta:
    """`<n>m|h|d|w` as a duration. Raises `ValueError`."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a duration: write a whole number and m, h, d or w, such as 2d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def parse_time(text: str) -> datetime:
    """A `metav1.Time`. Raises `ValueError`."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(UTC)


def format_time(moment: datetime) -> str:
    """A time as `metav1.Time`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Expiry(msgspec.Struct, frozen=True):
    """When an object is deleted, and when that is announced."""

    at: datetime
    warn_at: datetime


def expiry(ttl: Ttl, *, created: str, updated: str, unmatched_since: str = "") -> Expiry | None:
    """When an object with these times expires; None while the time that is counted from has not come.

    Announced 15 % of the duration before, at least 5 minutes (but not before the count begins).
    """
    since = {"creation": created, "lastUpdate": updated or created, "noMatchedSandboxes": unmatched_since}[ttl.from_]
    if not since:
        return None
    start, duration = parse_time(since), parse_duration(ttl.duration)
    notice = min(max(duration * 0.15, _LEAST_WARNING), duration)
    return Expiry(start + duration, start + duration - notice)
