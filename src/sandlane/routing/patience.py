"""Route reports without the noise of work under way, which would be a write of the status each.

For a few seconds the routers' progress is told in one sentence, and routes that were programmed and have not changed stay
so. What is still not done after that is passed on as it is reported.
"""

from __future__ import annotations

import msgspec

from sandlane.api.reasons import PROGRAMMED, PROGRESSING, TAKING_IN
from sandlane.kube.clock import Clock
from sandlane.kube.resource import Key
from sandlane.runtime.conditions import is_true
from sandlane.world.records import RouteGroup, Sandbox
from sandlane.world.reports import RouteReport

PATIENCE = 5.0


class Told(msgspec.Struct, frozen=True):
    """A report as it is passed on."""

    programmed: bool
    reason: str
    message: str
    served: bool


class Patience:
    """Remembers since when each object's routes are under way. Each controller has its own."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since: dict[Key, float] = {}

    def calm(self, record: Sandbox | RouteGroup, report: RouteReport | None) -> tuple[RouteReport | None, float | None]:
        """The report to pass on, and the seconds after which to look again."""
        key = record.metadata.key
        if report is None or report.programmed or report.reason != PROGRESSING:
            self._since.pop(key, None)
            return report, None
        now = self._clock.monotonic()
        left = self._since.setdefault(key, now) + PATIENCE - now
        if left <= 0:
            return report, None
        current = record.status.observed_generation == record.metadata.generation
        if current and is_true(record.status.conditions, "RoutesProgrammed"):
            return Told(True, PROGRAMMED, "", report.served), left
        return Told(False, PROGRESSING, TAKING_IN, report.served), left

    def forget(self, key: Key) -> None:
        """The object is gone."""
        self._since.pop(key, None)
