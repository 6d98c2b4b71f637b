"""Time as an argument: the clock that everything with deadlines and delays is given."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Protocol, TypeVar

_boot = getattr(time, "CLOCK_BOOTTIME", None)
_monotonic: Callable[[], float] = time.monotonic if _boot is None else partial(time.clock_gettime, _boot)

T = TypeVar("T")


class Clock(Protocol):
    """Wall time, a monotonic counter, and waiting."""

    def now(self) -> datetime:
        """The time of day, in UTC."""

    def monotonic(self) -> float:
        """Seconds since some start; never goes back."""

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The time of day, in UTC."""
        return datetime.now(UTC)  # noqa: TID251 - the seam itself

    def monotonic(self) -> float:
        """Seconds since some start; goes on while the machine sleeps, so that a Lease does not outlive a nap."""
        return _monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        await asyncio.sleep(seconds)


class Watchdog:
    """Ends work that has not been heard from for `seconds` of a clock; `feed` says that it has."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self.seconds = seconds
        self._fed = clock.monotonic()

    def feed(self) -> None:
        """The work is alive."""
        self._fed = self._clock.monotonic()

    async def guard(self, work: Awaitable[T]) -> T:
        """What `work` gives. Raises `TimeoutError`, after cancelling it, when nobody has fed the dog."""
        self.feed()
        outcome: list[tuple[T | None, Exception | None]] = []

        async def run() -> None:
            try:
                outcome.append((await work, None))
            except Exception as error:  # handed to the caller as it is, not in a group
                outcome.append((None, error))

        async with asyncio.TaskGroup() as tasks:
            job = tasks.create_task(run())
            timer = tasks.create_task(self._starve())
            await asyncio.wait({job, timer}, return_when=asyncio.FIRST_COMPLETED)
            timer.cancel()
            job.cancel()
        if not outcome:
            raise TimeoutError(f"nothing for {self.seconds:g} s")
        result, failure = outcome[0]
        if failure is not None:
            raise failure
        return result  # type: ignore[return-value]

    async def _starve(self) -> None:
        while (left := self._fed + self.seconds - self._clock.monotonic()) > 0:
            await self._clock.sleep(left)


async def within(clock: Clock, seconds: float, work: Awaitable[T]) -> T:
    """What `work` gives. Raises `TimeoutError` (and cancels it) when it takes longer than `seconds` of this clock."""
    if isinstance(clock, SystemClock):
        async with asyncio.timeout(seconds):
            return await work
    return await Watchdog(clock, seconds).guard(work)


def timestamp(moment: datetime) -> str:
    """A time as `metav1.Time` on the wire: RFC 3339, seconds, `Z`."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def micro_timestamp(moment: datetime) -> str:
    """A time as `metav1.MicroTime` on the wire."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_timestamp(text: str) -> datetime:
    """The inverse of both. Raises `ValueError`."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
