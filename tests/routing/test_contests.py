"""A Service that somebody keeps writing is complained of and then left to them; a router that goes closes its doors in time."""

from __future__ import annotations

import asyncio

from sandlane.kube.resource import Key
from sandlane.routing.contests import FIRST, GIVE_UP, WINDOW, Contests, last_writer
from sandlane.routing.departures import Departures
from sandlane.testing.clock import ManualClock
from sandlane.world.world import World

ETA = Key("rides", "eta")


async def test_a_contest_is_lost_for_a_while_and_longer_the_next_time() -> None:
    """Six repairs within a minute lose it for five minutes, the next six for ten; slow ones never do."""
    clock = ManualClock()
    contests = Contests(clock)
    for _ in range(3 * GIVE_UP):
        assert contests.repaired(ETA, "person") < GIVE_UP
        await clock.advance(WINDOW / 2)
    await clock.advance(2 * WINDOW)
    for pause in (FIRST, 2 * FIRST):
        assert [contests.repaired(ETA, "gitops") for _ in range(GIVE_UP)] == list(range(1, GIVE_UP + 1))
        assert contests.lost_to(ETA) == ("gitops", pause)
        await clock.advance(pause + 1)
        assert contests.lost_to(ETA) == ("", 0.0)


def test_the_last_writer_is_named() -> None:
    """The newest field manager of selector or ports that is not ours."""

    def entry(manager: str, time: str, *fields: str) -> dict[str, object]:
        return {"manager": manager, "time": time, "fieldsV1": {"f:spec": {f"f:{field}": {} for field in fields}}}

    entries = [
        entry("helm", "2026-01-01T00:00:01Z", "selector"),
        entry("argocd", "2026-01-01T00:00:02Z", "ports"),
        entry("kubectl", "2026-01-01T00:00:03Z", "type"),
        entry("sandlane", "2026-01-01T00:00:04Z", "selector"),
    ]
    assert last_writer({"metadata": {"managedFields": entries}}, "sandlane") == "argocd"
    assert last_writer({"metadata": {}}, "sandlane") == ""


async def test_a_router_that_goes_is_told_of_when_nobody_calls_it_any_more() -> None:
    """Its doors stay open for the settling time, then its namespace is told, once."""
    metadata = {"name": "r", "namespace": "n", "uid": "u", "deletionTimestamp": "2026-01-01T00:00:00Z"}
    pod = next(iter(World.of([{"apiVersion": "v1", "kind": "Pod", "metadata": metadata}]).pods))
    clock, told = ManualClock(), list[str]()
    departures = Departures(clock, 5.0, told.append)
    task = asyncio.ensure_future(departures.run())
    assert not departures.closed(pod)
    await clock.advance(4.9)
    assert (departures.closed(pod), told) == (False, [])
    await clock.advance(0.2)
    assert (departures.closed(pod), told) == (True, ["n"])
    await clock.advance(60)
    assert told == ["n"]
    departures.forget({"u"})
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
