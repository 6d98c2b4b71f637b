"""Times on the wire: `metav1.Time` in whole seconds and `metav1.MicroTime` with six digits, always in UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache

_MICRO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)", re.ASCII)
_SECONDS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d([.,]\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)


@lru_cache(maxsize=1024)
def canonical_time(text: str) -> str:
    """An RFC 3339 time as Kubernetes stores it: UTC, no fraction. Raises ValueError."""
    match = _SECONDS.fullmatch(text)
    if match is None:
        raise ValueError(f'parsing time "{text}" as "2006-01-02T15:04:05Z07:00": cannot parse it')
    plain = text.replace(match[1], "") if match[1] else text
    return _utc(plain).strftime("%Y-%m-%dT%H:%M:%SZ")


@lru_cache(maxsize=1024)
def canonical_micro_time(text: str) -> str:
    """A time with exactly six digits of fraction, in UTC. Raises ValueError."""
    if _MICRO.fullmatch(text) is None:
        raise ValueError(f'parsing time "{text}" as "2006-01-02T15:04:05.000000Z07:00": cannot parse it')
    return _utc(text).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _utc(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(f'parsing time "{text}": {error}') from error
