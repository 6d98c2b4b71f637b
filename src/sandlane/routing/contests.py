"""Services that somebody else keeps writing while they are turned: repaired, then complained of, then left to them for a while."""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec

from sandlane.kube.clock import Clock
from sandlane.kube.resource import Key, Object

WINDOW = 60.0
"""Seconds for which a repair counts."""
COMPLAIN = 3
GIVE_UP = 6
"""Repairs within the window."""
FIRST, LONGEST = 300.0, 3600.0
"""Seconds for which a Service is left alone, doubling each time."""


class _Lost(msgspec.Struct):
    manager: str
    until: float
    pause: float


class Contests:
    """Counts repairs of Services."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._repairs: dict[Key, deque[float]] = {}
        self._lost: dict[Key, _Lost] = {}

    def repaired(self, key: Key, manager: str) -> int:
        """Note one more repair of what a field manager wrote; gives how many there were of late. At `GIVE_UP` it is lost."""
        now = self._clock.monotonic()
        repairs = self._repairs.setdefault(key, deque())
        repairs.append(now)
        while repairs[0] < now - WINDOW:
            repairs.popleft()
        count = len(repairs)
        if count >= GIVE_UP:
            before = self._lost.get(key)
            pause = min(2 * before.pause, LONGEST) if before is not None else FIRST
            self._lost[key] = _Lost(manager, now + pause, pause)
            del self._repairs[key]
        return count

    def lost_to(self, key: Key) -> tuple[str, float]:
        """The field manager that a Service is left to, and for how many seconds yet; an empty text when it is ours."""
        lost = self._lost.get(key)
        left = lost.until - self._clock.monotonic() if lost is not None else 0.0
        return (lost.manager, left) if lost is not None and left > 0 else ("", 0.0)

    def forget(self, key: Key) -> None:
        """The Service is gone, or nobody wants it turned any more."""
        self._repairs.pop(key, None)
        self._lost.pop(key, None)


def last_writer(live: Object, ours: str) -> str:
    """The field manager, other than ours, that last wrote the selector or ports of a Service; empty when nobody is named."""
    entries: list[dict[str, Any]] = live["metadata"].get("managedFields") or []
    found = [
        (entry.get("time", ""), entry.get("manager", ""))
        for entry in entries
        if entry.get("manager") != ours
        and {"f:selector", "f:ports"} & ((entry.get("fieldsV1") or {}).get("f:spec") or {}).keys()
    ]
    return max(found)[1] if found else ""
