"""The manual clock moves only when it is told, and wakes sleepers in order."""

from __future__ import annotations

import asyncio

import pytest

from sandlane.kube.clock import SystemClock, within
from sandlane.testing.clock import ManualClock


async def test_sleepers_wake_in_order_at_their_times() -> None:
    """Each sleeper sees the time it asked for, also one that sleeps again on the way."""
    clock, woken = ManualClock(), []

    async def sleeper(name: str, *naps: float) -> None:
        for nap in naps:
            await clock.sleep(nap)
            woken.append((name, clock.monotonic()))

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(sleeper("a", 3, 3))
        tasks.create_task(sleeper("b", 2, 2, 1))
        await clock.advance(5)
        assert woken == [("b", 2), ("a", 3), ("b", 4), ("b", 5)]
        await clock.advance(1)
    assert woken[-1] == ("a", 6)


async def test_a_jump_changes_the_time_of_day_only() -> None:
    """NTP moves `now`, never `monotonic`."""
    clock = ManualClock()
    before = clock.now()
    clock.jump(-3600)
    assert (clock.now() - before).total_seconds() == -3600
    assert clock.monotonic() == 0


async def test_run_until_says_why_it_gave_up() -> None:
    """A condition that never holds is a TimeoutError at once, not a hang."""
    with pytest.raises(TimeoutError, match="nobody sleeps"):
        await ManualClock().run_until(lambda: False)


async def test_a_deadline_of_a_manual_clock() -> None:
    """`within` ends work that is late, gives what is in time, and passes errors on as they are."""
    clock = ManualClock()

    async def fail() -> None:
        raise KeyError("as it is")

    async with asyncio.TaskGroup() as tasks:
        late = tasks.create_task(_outcome(within(clock, 2, clock.sleep(3))))
        good = tasks.create_task(_outcome(within(clock, 2, asyncio.sleep(0, "done"))))
        bad = tasks.create_task(_outcome(within(clock, 2, fail())))
        real = tasks.create_task(_outcome(within(SystemClock(), 10, asyncio.sleep(0, "done"))))
        await clock.advance(2)
    assert isinstance(late.result(), TimeoutError)
    assert (good.result(), real.result()) == ("done", "done")
    assert isinstance(bad.result(), KeyError)


async def _outcome(work: object) -> object:
    try:
        return await work  # type: ignore[misc]
    except Exception as error:
        return error
