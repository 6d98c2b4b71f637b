"""A clock that stands still until a test moves it: sleepers wake in order of their times, one time after the other."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

START = datetime(2030, 1, 1, tzinfo=UTC)
ROUNDS = 10_000


class ManualClock:
    """A `Clock` for tests. `advance` moves it; `run_until` moves it from sleeper to sleeper until something holds."""

    def __init__(self, start: datetime = START) -> None:
        self._start = start
        self._elapsed = 0.0
        self._jumped = 0.0
        self._order = 0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        """The time of day, in UTC."""
        return self._start + timedelta(seconds=self._elapsed + self._jumped)

    def monotonic(self) -> float:
        """Seconds since the start."""
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        """Return once the clock has been moved by `seconds`."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.get_running_loop().create_future()
        self._order += 1
        heapq.heappush(self._sleepers, (self._elapsed + seconds, self._order, woken))
        await woken

    def jump(self, seconds: float) -> None:
        """Change the time of day only, as an administrator or NTP would; sleepers and deadlines do not see it."""
        self._jumped += seconds

    def next_due(self) -> float | None:
        """Seconds until the next sleeper wakes, or None when nobody sleeps."""
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)
        return self._sleepers[0][0] - self._elapsed if self._sleepers else None

    async def advance(self, seconds: float) -> None:
        """Move on by `seconds`; whoever wakes on the way runs, at its time, until everybody waits again."""
        target = self._elapsed + seconds
        await settle()
        while (due := self.next_due()) is not None and self._elapsed + due <= target:
            self._wake(due)
            await settle()
        self._elapsed = target

    def freeze_past(self, seconds: float) -> None:
        """Move on by `seconds` at once, as for a process that was stopped: whoever is due wakes late."""
        self._elapsed += seconds
        while (due := self.next_due()) is not None and due <= 0:
            heapq.heappop(self._sleepers)[2].set_result(None)

    async def run_until(self, holds: Callable[[], bool], *, within: float = 3600.0) -> None:
        """Move on, from sleeper to sleeper, until `holds()`. Raises `TimeoutError` after `within` seconds of it."""
        end = self._elapsed + within
        while True:
            await settle()
            if holds():
                return
            due = self.next_due()
            if due is None or self._elapsed + due > end:
                waiting = "nobody sleeps" if due is None else f"the next sleeper wakes in {due:g} s"
                raise TimeoutError(f"it does not hold within {within:g} s of the manual clock ({waiting})")
            self._wake(due)

    def _wake(self, due: float) -> None:
        moment, _, woken = heapq.heappop(self._sleepers)
        self._elapsed = max(self._elapsed, moment)
        if not woken.done():
            woken.set_result(None)


async def settle() -> None:
    """Let everything that can run without time or I/O run. Raises `RuntimeError` when it never comes to rest."""
    ready = getattr(asyncio.get_running_loop(), "_ready", None)
    quiet = 0
    for _ in range(ROUNDS):
        await asyncio.sleep(0)
        quiet = 0 if ready else quiet + 1
        if quiet >= (3 if ready is not None else 100):
            return
    raise RuntimeError("tasks never come to rest: something runs in a loop without waiting")
