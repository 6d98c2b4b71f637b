"""Routers are asked what they serve until they serve what is wanted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sandlane.routing.served import RECHECK, Served
from sandlane.testing.clock import ManualClock
from sandlane.world.records import Pod
from sandlane.world.world import World


def router(name: str, ip: str) -> Pod:
    obj = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "n", "uid": name, "labels": {"sandlane.dev/router": "true"}},
        "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": "True"}]},
    }
    return next(iter(World.of([obj]).pods))


class Rig:
    """Two routers that answer what `serving` says; what `told` heard."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.ready = [router("a", "1"), router("b", "2")]
        self.wanted = "t1"
        self.serving = {"1": "", "2": ""}
        self.asked: list[str] = []
        self.told: list[str] = []
        self.served = Served(self.clock, lambda: self.ready, lambda _: self.wanted, self.told.append, self._ask)

    async def _ask(self, address: str) -> str:
        self.asked.append(address)
        if self.serving[address] == "down":
            raise OSError("connection refused")
        return self.serving[address]

    def late(self) -> list[str]:
        return [why for pod in self.ready if (why := self.served.late(pod))]


@asynccontextmanager
async def rig() -> AsyncIterator[Rig]:
    """A running one."""
    made = Rig()
    task = asyncio.ensure_future(made.served.run())
    made.served.look()
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_each_router_counts_when_it_answers_the_wanted_digest() -> None:
    """One that serves it is asked no more; the other keeps its namespace waiting, and the message names it."""
    async with rig() as it:
        it.serving = {"1": "t1", "2": "old"}
        await it.clock.advance(0.2)
        assert it.late() == ["router b does not serve the last change yet"]
        asked = it.asked.count("1")
        it.serving["2"] = "t1"
        await it.clock.advance(1)
        assert it.late() == []
        assert it.told, "whoever waits is told"
        assert it.asked.count("1") == asked
        quiet = len(it.asked)
        await it.clock.advance(RECHECK / 2)
        assert len(it.asked) == quiet, "nobody is asked without need"


async def test_a_new_table_makes_everybody_late_until_asked() -> None:
    """What was answered for the last table does not count for the next; an ACK makes them be asked at once."""
    async with rig() as it:
        it.serving = {"1": "t1", "2": "t1"}
        await it.clock.advance(1)
        it.wanted = "t2"
        assert len(it.late()) == 2
        it.served.look()
        await it.clock.advance(5)
        assert len(it.late()) == 2
        it.serving = {"1": "t2", "2": "t2"}
        it.served.look()
        await it.clock.advance(0.001)
        assert it.late() == []


async def test_a_router_that_cannot_be_asked_is_late_and_the_reason_is_told() -> None:
    """It does not count until it answers; one that is not ready any more is forgotten."""
    async with rig() as it:
        it.serving = {"1": "t1", "2": "down"}
        await it.clock.advance(1)
        assert it.late() == ["router b cannot be asked at port 15021 what it serves: connection refused"]
        it.ready = it.ready[:1]
        await it.clock.advance(2)
        assert it.late() == []
        quiet = len(it.asked)
        await it.clock.advance(10)
        assert len(it.asked) == quiet
        it.serving["1"] = "lost it"
        await it.clock.advance(RECHECK + 1)
        assert it.late() == ["router a does not serve the last change yet"], "started again without anybody's notice"


async def test_an_answer_from_before_a_change_does_not_count_for_the_same_table_later() -> None:
    """A table that comes back is asked for anew: the router may be about to serve what was wanted in between."""
    async with rig() as it:
        it.serving = {"1": "t1", "2": "t1"}
        await it.clock.advance(1)
        it.wanted = "t2"
        it.served.changed("n")
        it.wanted = "t1"
        it.served.changed("n")
        assert len(it.late()) == 2
        it.served.look()
        await it.clock.advance(1)
        assert it.late() == []
