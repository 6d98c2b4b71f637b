"""The work queue of a controller: each key at most once in line and at most once in work.

A key that is asked for while it is in work is queued again when that work is done. Failures of a key delay it, 5 ms
doubling to 1000 s. Keys of a user's change go before those of the first list and of resyncs; within one priority, first
come first served.
"""

from __future__ import annotations

import asyncio
import heapq
from enum import IntEnum

from sandlane.kube.clock import Clock
from sandlane.runtime.result import Request

FIRST_DELAY = 0.005
LAST_DELAY = 1000.0


class Priority(IntEnum):
    """Lower goes first."""

    CHANGE = 0
    BACKGROUND = 100


class ShutDown(Exception):
    """The queue takes and gives no more keys."""


class WorkQueue:
    """Keys waiting to be reconciled. All methods belong to one event loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._order = 0
        self._ready: list[tuple[int, int, Request]] = []
        self._queued: dict[Request, tuple[int, float]] = {}  # priority, when it was queued
        self._active: set[Request] = set()
        self._dirty: dict[Request, int] = {}  # asked for while active
        self._delayed: list[tuple[float, int, Request]] = []
        self._due: dict[Request, float] = {}
        self._failures: dict[Request, int] = {}
        self._wake = asyncio.Event()
        self._closed = False
        self.adds = 0
        self.retries = 0

    def add(self, key: Request, priority: int = Priority.CHANGE) -> None:
        """Queue a key now."""
        if self._closed:
            return
        self._due.pop(key, None)  # sooner than any delay
        if key in self._active:
            self._dirty[key] = min(priority, self._dirty.get(key, priority))
            return
        queued = self._queued.get(key)
        if queued is not None and queued[0] <= priority:
            return
        self.adds += 1
        self._order += 1
        self._queued[key] = (priority, queued[1] if queued else self._clock.monotonic())
        heapq.heappush(self._ready, (priority, self._order, key))
        self._wake.set()

    def add_after(self, key: Request, seconds: float) -> None:
        """Queue a key after a delay; an earlier delay of the same key wins, and so does `add`."""
        if self._closed:
            return
        due = self._clock.monotonic() + seconds
        if key in self._queued or self._due.get(key, due + 1) <= due:
            return
        self._due[key] = due
        self._order += 1
        heapq.heappush(self._delayed, (due, self._order, key))
        self._wake.set()

    def add_rate_limited(self, key: Request) -> None:
        """Queue a key after its back-off."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        self.retries += 1
        self.add_after(key, min(FIRST_DELAY * 2 ** min(failures, 30), LAST_DELAY))

    def forget(self, key: Request) -> None:
        """End a key's back-off."""
        self._failures.pop(key, None)

    def failures(self, key: Request) -> int:
        """How often in a row a key has failed."""
        return self._failures.get(key, 0)

    async def get(self) -> tuple[Request, float]:
        """The next key, and the seconds that it waited. Raises `ShutDown` once the queue is closed."""
        while True:
            if self._closed:
                raise ShutDown
            wait = self._promote()
            while self._ready:
                priority, _, key = heapq.heappop(self._ready)
                queued = self._queued.get(key)
                if queued is None or queued[0] != priority:
                    continue  # queued again with a higher priority
                del self._queued[key]
                self._active.add(key)
                return key, self._clock.monotonic() - queued[1]
            self._wake.clear()
            await self._wait(wait)

    def done(self, key: Request) -> None:
        """The work on a key has ended."""
        self._active.discard(key)
        if (priority := self._dirty.pop(key, None)) is not None:
            self.add(key, priority)

    def close(self) -> None:
        """Take and give no more keys; waiting workers get `ShutDown`."""
        self._closed = True
        self._wake.set()

    def __len__(self) -> int:
        return len(self._queued)

    @property
    def active(self) -> int:
        """How many keys are in work."""
        return len(self._active)

    def _promote(self) -> float | None:
        """Queue what is due; the seconds until the next one is."""
        now = self._clock.monotonic()
        while self._delayed:
            due, _, key = self._delayed[0]
            if self._due.get(key) != due:
                heapq.heappop(self._delayed)  # superseded
            elif due <= now:
                heapq.heappop(self._delayed)
                self.add(key)
            else:
                return due - now
        return None

    async def _wait(self, seconds: float | None) -> None:
        """Until something is added, or for `seconds`."""
        if seconds is None:
            await self._wake.wait()
            return
        async with asyncio.TaskGroup() as tasks:
            timer = tasks.create_task(self._clock.sleep(seconds))
            woken = tasks.create_task(self._wake.wait())
            await asyncio.wait({timer, woken}, return_when=asyncio.FIRST_COMPLETED)
            timer.cancel()
            woken.cancel()
        self._wake.set()  # let the other workers look as well
