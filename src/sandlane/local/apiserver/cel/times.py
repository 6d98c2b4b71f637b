"""Timestamps and durations of CEL: from text, to text, and their parts. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sandlane.local.apiserver.cel.values import Duration, EvaluationError, Timestamp

SECOND = 10**9
_UNITS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": SECOND,
    "m": 60 * SECOND,
    "h": 3600 * SECOND,
}
_PART = re.compile(r"([0-9]*)(?:\.([0-9]*))?(ns|us|µs|μs|ms|s|m|h)")
_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:[.,]([0-9]+))?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_OFFSET = re.compile(r"([+-]?)([0-9]{2}):([0-9]{2})")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST, _LAST = -62135596800 * SECOND, 253402300800 * SECOND - 1


def parse_duration(text: str) -> Duration:
    """A span such as `1h30m` or `-1.5s`. Raises `EvaluationError`."""
    rest, sign = text, 1
    if rest[:1] in ("+", "-"):
        sign, rest = (-1 if rest[0] == "-" else 1), rest[1:]
    if rest == "0":
        return Duration(0)
    total, at = 0, 0
    while at < len(rest):
        match = _PART.match(rest, at)
        if match is None or not (match[1] or match[2]):
            break
        unit = _UNITS[match[3]]
        fraction = (match[2] or "")[:18]
        total += int((match[1] or "0")[:20]) * unit + int(fraction or 0) * unit // 10 ** len(fraction)
        at = match.end()
    if not rest or at < len(rest):
        raise EvaluationError(f'time: invalid duration "{text}"')
    return checked_duration(sign * total)


def checked_duration(ns: int) -> Duration:
    """A span within what fits. Raises `EvaluationError`."""
    if not -(2**63) <= ns < 2**63:
        raise EvaluationError("duration overflow")
    return Duration(ns)


def parse_timestamp(text: str) -> Timestamp:
    """A time of RFC 3339. Raises `EvaluationError`."""
    match = _TIME.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        zone = match[4].upper().replace("Z", "+00:00")
        whole = datetime.fromisoformat(f"{match[1]}T{match[2]}{zone}")
    except ValueError:
        raise EvaluationError(f'parsing time "{text}": it is not of RFC 3339') from None
    fraction = (match[3] or "")[:9].ljust(9, "0")
    return checked_timestamp((whole - _EPOCH) // timedelta(seconds=1) * SECOND + int(fraction))


def parse_date(text: str) -> Timestamp:
    """A day (`2020-01-31`), or a time. Raises `EvaluationError`."""
    return parse_timestamp(f"{text}T00:00:00Z" if len(text) == 10 else text)


def checked_timestamp(ns: int) -> Timestamp:
    """A time within the years 1 to 9999. Raises `EvaluationError`."""
    if not _FIRST <= ns <= _LAST:
        raise EvaluationError("timestamp overflow")
    return Timestamp(ns)


def show_timestamp(value: Timestamp) -> str:
    """As RFC 3339 in UTC."""
    text = _datetime(value, UTC).strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")
    fraction = f".{value.ns % SECOND:09}".rstrip("0") if value.ns % SECOND else ""
    return f"{text}{fraction}Z"


def show_duration(value: Duration) -> str:
    """In seconds: `90s`."""
    whole, rest = divmod(abs(value.ns), SECOND)
    fraction = f".{rest:09}".rstrip("0") if rest else ""
    return f"{'-' if value.ns < 0 else ''}{whole}{fraction}s"


def _zone(name: str) -> tzinfo:
    match = _OFFSET.fullmatch(name)
    if match is not None:
        span = timedelta(hours=int(match[2]), minutes=int(match[3]))
        if span < timedelta(hours=24):
            return timezone(-span if match[1] == "-" else span)
    try:
        return UTC if name in ("UTC", "Z", "") else ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise EvaluationError(f"unknown time zone {name}") from error


def _datetime(value: Timestamp, zone: tzinfo) -> datetime:
    return (_EPOCH + timedelta(seconds=value.ns // SECOND)).astimezone(zone)


_PARTS: dict[str, Callable[[datetime], int]] = {
    "getFullYear": lambda t: t.year,
    "getMonth": lambda t: t.month - 1,
    "getDayOfYear": lambda t: t.timetuple().tm_yday - 1,
    "getDayOfMonth": lambda t: t.day - 1,
    "getDate": lambda t: t.day,
    "getDayOfWeek": lambda t: t.isoweekday() % 7,
    "getHours": lambda t: t.hour,
    "getMinutes": lambda t: t.minute,
    "getSeconds": lambda t: t.second,
}
_OF_DURATION = {"getHours": 3600 * SECOND, "getMinutes": 60 * SECOND, "getSeconds": SECOND, "getMilliseconds": 10**6}


def part_of_timestamp(name: str) -> Callable[..., int]:
    """The function that gives one part of a time, in UTC or another zone."""

    def part(value: Timestamp, zone: str = "UTC") -> int:
        if name == "getMilliseconds":
            return value.ns % SECOND // 10**6
        try:
            return _PARTS[name](_datetime(value, _zone(zone)))
        except OverflowError as error:
            raise EvaluationError("timestamp overflow") from error

    return part


def part_of_duration(name: str) -> Callable[[Duration], int]:
    """The function that gives a span in one unit, towards zero."""
    unit = _OF_DURATION[name]
    if name == "getMilliseconds":
        return lambda value: abs(value.ns) // unit % 1000 * (-1 if value.ns < 0 else 1)
    return lambda value: abs(value.ns) // unit * (-1 if value.ns < 0 else 1)


Rows = list[tuple[str, str, Callable[..., object]]]
ROWS: Rows = [
    *((name, "timestamp.() int", part_of_timestamp(name)) for name in (*_PARTS, "getMilliseconds")),
    *((name, "timestamp.(string) int", part_of_timestamp(name)) for name in (*_PARTS, "getMilliseconds")),
    *((name, "duration.() int", part_of_duration(name)) for name in _OF_DURATION),
    ("duration", "(string) duration", parse_duration),
    ("duration", "(duration) duration", lambda value: value),
    ("duration", "(int) duration", checked_duration),
    ("timestamp", "(string) timestamp", parse_timestamp),
    ("timestamp", "(timestamp) timestamp", lambda value: value),
    ("timestamp", "(int) timestamp", lambda value: checked_timestamp(value * SECOND)),
    ("string", "(timestamp) string", show_timestamp),
    ("string", "(duration) string", show_duration),
    ("int", "(timestamp) int", lambda value: value.ns // SECOND),
    ("int", "(duration) int", lambda value: value.ns),
]
"""Functions: name, signature, what does it."""
