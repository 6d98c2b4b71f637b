"""The work queue of a controller: each key at most once in line and at most once in work.

A key that is asked for while it is in work is queued again when that work is done. Failures of a key delay it, 5 ms
doubling to 1000 s, and a bucket bounds the failures of all keys together. Keys of a user's change go before those of
the first list and of resyncs, but every `SHARE`-th turn belongs to the lowest priority, so that nothing starves; within
one priority, first come first served. `keep_time` is the one task that a queue needs, for its delays.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from enum import IntEnum

from sandlane.kube.bucket import Bucket
from sandlane.kube.clock import Clock
from sandlane.runtime.result import Request

FIRST_DELAY = 0.005
LAST_DELAY = 1000.0
RETRIES_PER_SECOND = 10.0
RETRY_BURST = 100.0
SHARE = 8


class Priority(IntEnum):
    """Lower goes first."""

    CHANGE = 0
    BACKGROUND = 100


class ShutDown(Exception):
    """The queue takes and gives no more keys."""


class WorkQueue:
    """Keys waiting to be reconciled. All methods belong to one event loop."""

    def __init__(
        self, clock: Clock, *, retries_per_second: float = RETRIES_PER_SECOND, retry_burst: float = RETRY_BURST
    ) -> None:
        self._clock = clock
        self._bucket = Bucket(clock, retries_per_second, retry_burst)
        self._lines: dict[int, deque[Request]] = {}
        self._queued: dict[Request, tuple[int, float]] = {}  # priority, when it was queued
        self._active: dict[Request, float] = {}  # since when
        self._dirty: dict[Request, int] = {}  # asked for while active
        self._delayed: list[tuple[float, int, Request, int]] = []
        self._due: dict[Request, tuple[float, int]] = {}
        self._order = 0
        self._turn = 0
        self._failures: dict[Request, int] = {}
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._alarm = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self.adds = 0
        self.retries = 0

    def add(self, key: Request, priority: int = Priority.CHANGE) -> None:
        """Queue a key now."""
        if self._closed:
            return
        if self._due:
            self._due.pop(key, None)  # sooner than any delay
        if key in self._active:
            self._dirty[key] = min(priority, self._dirty.get(key, priority))
            return
        queued = self._queued.get(key)
        if queued is not None:
            if queued[0] <= priority:
                return
            self._queued[key] = (priority, queued[1])
        else:
            self.adds += 1
            self._queued[key] = (priority, self._clock.monotonic())
        line = self._lines.get(priority)
        if line is None:
            self._lines[priority] = line = deque()
            self._lines = dict(sorted(self._lines.items()))
        line.append(key)
        self._wake_one()

    def add_after(self, key: Request, seconds: float, priority: int = Priority.CHANGE) -> None:
        """Queue a key after a delay; an earlier delay of the same key wins, and so does `add`."""
        if self._closed or key in self._queued:
            return
        due = self._clock.monotonic() + seconds
        known = self._due.get(key)
        if known is not None and known[0] <= due:
            return
        self._order += 1
        self._due[key] = (due, self._order)
        if len(self._delayed) > 2 * len(self._due) + 64:  # mostly superseded: days may pass before they are due
            self._delayed = [entry for entry in self._delayed if self._due.get(entry[2]) == entry[:2]]
            heapq.heapify(self._delayed)
        heapq.heappush(self._delayed, (due, self._order, key, priority))
        if self._delayed[0][1] == self._order:
            self._alarm.set()

    def add_rate_limited(self, key: Request) -> None:
        """Queue a key after its back-off, and after those of all keys that failed before it."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        self.retries += 1
        self.add_after(key, max(min(FIRST_DELAY * 2 ** min(failures, 30), LAST_DELAY), self._bucket.take()))

    def forget(self, key: Request) -> None:
        """End a key's back-off."""
        if self._failures:
            self._failures.pop(key, None)

    def failures(self, key: Request) -> int:
        """How often in a row a key has failed."""
        return self._failures.get(key, 0)

    async def get(self) -> tuple[Request, float]:
        """The next key, and the seconds that it waited. Raises `ShutDown` once the queue is closed."""
        while not self._closed:
            self._promote()
            if self._queued:
                return self._take()
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake_one()  # woken and cancelled at once: another worker must look
                raise
        raise ShutDown

    def done(self, key: Request) -> None:
        """The work on a key has ended."""
        self._active.pop(key, None)
        if not self._active:
            self._idle.set()
        if self._dirty and (priority := self._dirty.pop(key, None)) is not None:
            self.add(key, priority)

    def close(self) -> None:
        """Take and give no more keys; waiting workers get `ShutDown`."""
        self._closed = True
        self._alarm.set()
        while self._waiting:
            self._wake_one()

    async def drained(self) -> None:
        """Return once no key is in work."""
        await self._idle.wait()

    async def keep_time(self) -> None:
        """Queue delayed keys when they are due, until the queue is closed."""
        while not self._closed:
            self._alarm.clear()
            wait = self._promote()
            if wait is None:
                await self._alarm.wait()
                continue
            async with asyncio.TaskGroup() as tasks:
                sleeping = tasks.create_task(self._clock.sleep(wait))
                alarm = tasks.create_task(self._alarm.wait())
                await asyncio.wait({sleeping, alarm}, return_when=asyncio.FIRST_COMPLETED)
                sleeping.cancel()
                alarm.cancel()

    def __len__(self) -> int:
        return len(self._queued)

    @property
    def quiet(self) -> bool:
        """Whether no key is queued or in work (some may be delayed)."""
        return not self._queued and not self._active

    @property
    def active(self) -> dict[Request, float]:
        """The keys in work, and since when."""
        return self._active

    @property
    def delayed(self) -> int:
        """How many keys wait for a time."""
        return len(self._due)

    def _take(self) -> tuple[Request, float]:
        """The next key in line."""
        self._turn += 1
        lines = list(self._lines.items())
        for priority, line in reversed(lines) if self._turn % SHARE == 0 else lines:
            while line:
                key = line.popleft()
                queued = self._queued.get(key)
                if queued is not None and queued[0] == priority:  # else: it has moved to another line, or gone
                    del self._queued[key]
                    now = self._clock.monotonic()
                    self._active[key] = now
                    self._idle.clear()
                    return key, now - queued[1]
        raise AssertionError("a queued key is in no line")

    def _promote(self) -> float | None:
        """Queue what is due; the seconds until the next one is."""
        while self._delayed:
            due, order, key, priority = self._delayed[0]
            if self._due.get(key) != (due, order):
                heapq.heappop(self._delayed)  # superseded
                continue
            now = self._clock.monotonic()
            if due > now:
                return due - now
            heapq.heappop(self._delayed)
            self.add(key, priority)
        return None

    def _wake_one(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
