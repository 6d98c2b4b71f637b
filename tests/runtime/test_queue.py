"""The work queue keeps its promises against a model, whatever the order of calls."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sandlane.kube.resource import Key
from sandlane.runtime.queue import SHARE, Priority, ShutDown, WorkQueue
from sandlane.testing.clock import ManualClock, settle
from support.thorough import cases

KEYS = [Key("d", name) for name in "abcd"]
A, B, C, D = KEYS


async def take(queue: WorkQueue) -> Key:
    """The next key, which must be there."""
    async with asyncio.timeout(5):
        return (await queue.get())[0]


async def test_a_key_is_queued_once() -> None:
    """However often it is asked for."""
    queue = WorkQueue(ManualClock())
    for _ in range(3):
        queue.add(A)
    assert len(queue) == 1
    assert await take(queue) == A
    assert len(queue) == 0


async def test_a_key_in_work_is_given_out_only_when_it_is_done() -> None:
    """Asked for meanwhile, it comes again; but never to two workers."""
    queue = WorkQueue(ManualClock())
    queue.add(A)
    await take(queue)
    queue.add(A)
    queue.add(A)
    assert len(queue) == 0
    queue.done(A)
    assert await take(queue) == A
    queue.done(A)
    assert queue.quiet


async def test_a_users_change_goes_first_but_nothing_starves() -> None:
    """Background keys get every eighth turn; a key that becomes urgent moves up."""
    queue = WorkQueue(ManualClock())
    changes = [Key("d", f"change-{n}") for n in range(20)]
    queue.add(A, Priority.BACKGROUND)
    queue.add(B, Priority.BACKGROUND)
    queue.add(C, Priority.BACKGROUND)
    for key in changes:
        queue.add(key)
    queue.add(B)
    order = [await take(queue) for _ in range(23)]
    assert order[: SHARE - 1] == changes[: SHARE - 1]
    assert order[SHARE - 1] == A
    assert order[2 * SHARE - 1] == C
    assert order.index(B) < 23
    assert sorted(order) == sorted([A, B, C, *changes])


async def test_failures_back_off_per_key_up_to_a_limit() -> None:
    """5 ms, 10 ms, ... 1000 s; another key is not affected; forgetting starts anew."""
    clock = ManualClock()
    queue = WorkQueue(clock, retries_per_second=1e9, retry_burst=1e9)
    waits = []
    for _ in range(20):
        queue.add_rate_limited(A)
        before = clock.monotonic()
        async with asyncio.TaskGroup() as tasks:
            timer = tasks.create_task(queue.keep_time())
            getting = tasks.create_task(take(queue))
            await clock.run_until(getting.done)
            timer.cancel()
        waits.append(clock.monotonic() - before)
        queue.done(A)
    assert waits[:4] == pytest.approx([0.005, 0.01, 0.02, 0.04])
    assert waits[-1] == pytest.approx(1000)
    assert (queue.failures(A), queue.failures(B)) == (20, 0)
    queue.forget(A)
    assert queue.failures(A) == 0


async def test_failures_of_all_keys_share_a_bucket() -> None:
    """A thousand keys that fail at once are tried again at the bucket's rate."""
    clock = ManualClock()
    queue = WorkQueue(clock, retries_per_second=10, retry_burst=100)
    for n in range(300):
        queue.add_rate_limited(Key("d", str(n)))
    async with asyncio.TaskGroup() as tasks:
        timer = tasks.create_task(queue.keep_time())
        await clock.advance(0.01)
        assert len(queue) == 100
        await clock.advance(10)
        assert 195 <= len(queue) <= 201
        timer.cancel()


async def test_delays() -> None:
    """The earlier of two delays counts, and `add` counts before both."""
    clock = ManualClock()
    queue = WorkQueue(clock)
    async with asyncio.TaskGroup() as tasks:
        timer = tasks.create_task(queue.keep_time())
        queue.add_after(A, 10)
        queue.add_after(A, 5)
        queue.add_after(A, 20)
        queue.add_after(B, 7)
        queue.add(B)
        assert await take(queue) == B
        queue.done(B)
        await clock.advance(4.9)
        assert len(queue) == 0
        await clock.advance(0.2)
        assert await take(queue) == A
        queue.done(A)
        await clock.advance(100)
        assert len(queue) == 0
        timer.cancel()


async def test_delays_that_are_superseded_take_no_room() -> None:
    """A key that asks for tomorrow in each of a hundred thousand passes is one entry; it still comes tomorrow."""
    clock = ManualClock()
    queue = WorkQueue(clock)
    for n in range(100_000):
        queue.add_after(A, 86_400)
        queue.add_after(B, 86_000)
        queue.add(A)
        assert await take(queue) == A
        queue.done(A)
        assert len(queue._delayed) < 200, n
    queue.add_after(A, 86_400)
    clock.freeze_past(86_500)
    assert {await take(queue), await take(queue)} == {A, B}


async def test_closing_wakes_everybody() -> None:
    """Waiting workers and the clock task end; later adds are ignored; work under way can end."""
    queue = WorkQueue(ManualClock())
    queue.add(A)
    await take(queue)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(queue.keep_time())
        waiting = [tasks.create_task(_ended(queue)) for _ in range(3)]
        await settle()
        queue.close()
    assert [task.result() for task in waiting] == [True] * 3
    queue.add(B)
    assert len(queue) == 0
    drained = asyncio.ensure_future(queue.drained())
    await settle()
    assert not drained.done()
    queue.done(A)
    await drained


async def test_a_worker_that_is_cancelled_while_it_is_woken_loses_no_key() -> None:
    """Its wake-up goes to another one."""
    queue = WorkQueue(ManualClock())
    first = asyncio.ensure_future(take(queue))
    second = asyncio.ensure_future(take(queue))
    await settle()
    queue.add(A)
    first.cancel()
    assert await second == A
    assert first.cancelled()


async def _ended(queue: WorkQueue) -> bool:
    try:
        await queue.get()
    except ShutDown:
        return True
    return False


class QueueMachine(RuleBasedStateMachine):
    """Random calls against a model: which keys must come, and which must not be out twice."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = ManualClock()
        self.queue = WorkQueue(self.clock)
        self.queued: set[Key] = set()
        self.active: set[Key] = set()
        self.dirty: set[Key] = set()
        self.due: dict[Key, float] = {}

    def teardown(self) -> None:
        self.loop.close()

    def _asked(self, key: Key) -> None:
        self.due.pop(key, None)
        (self.dirty if key in self.active else self.queued).add(key)

    def _time_passes(self) -> None:
        for key, due in sorted(self.due.items(), key=lambda item: item[1]):
            if due <= self.clock.monotonic():
                self._asked(key)

    @rule(key=st.sampled_from(KEYS), urgent=st.booleans())
    def add(self, key: Key, urgent: bool) -> None:
        self.queue.add(key, Priority.CHANGE if urgent else Priority.BACKGROUND)
        self._asked(key)

    @rule(key=st.sampled_from(KEYS), seconds=st.integers(0, 5))
    def add_after(self, key: Key, seconds: int) -> None:
        self.queue.add_after(key, seconds)
        if key not in self.queued:
            due = self.clock.monotonic() + seconds
            self.due[key] = min(due, self.due.get(key, due))

    @rule(seconds=st.integers(1, 4))
    def wait(self, seconds: int) -> None:
        self.loop.run_until_complete(self.clock.advance(seconds))

    @precondition(
        lambda self: (
            self.queued or any(d <= self.clock.monotonic() and k not in self.active for k, d in self.due.items())
        )
    )
    @rule()
    def get(self) -> None:
        self._time_passes()
        key, waited = self.loop.run_until_complete(asyncio.wait_for(self.queue.get(), 5))
        assert key in self.queued
        assert key not in self.active
        assert waited >= 0
        self.queued.discard(key)
        self.active.add(key)

    @precondition(lambda self: self.active)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.active)))
        self.queue.done(key)
        self.active.discard(key)
        if key in self.dirty:
            self.dirty.discard(key)
            self._asked(key)

    @invariant()
    def agrees(self) -> None:
        promised = self.queued | {key for key, due in self.due.items() if due <= self.clock.monotonic()}
        assert len(self.queue) <= len(promised) + len(self.due)
        assert set(self.queue.active) == self.active
        assert self.queue.delayed <= len(self.due)


QueueMachine.TestCase.settings = settings(max_examples=cases(30), stateful_step_count=40)
TestAnyOrderOfCalls = QueueMachine.TestCase
