"""The rules that a feed follows are those of a fresh computation, whatever happened."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sandlane.kube.known import Change
from sandlane.kube.resource import Resource
from sandlane.routesapi.feed import Digest, Feed, Filter
from sandlane.routing.workloads import workload_rules
from sandlane.testing.clock import ManualClock
from sandlane.world.world import KINDS, World
from support import worlds
from support.thorough import cases


class Informers:
    """Keeps who wants to hear of changes."""

    def __init__(self) -> None:
        self.handlers: dict[Resource, Callable[[Change[Any]], None]] = {}

    def informer(self, resource: Resource, record: type[Any]) -> Any:
        """An informer of which only `add_handler` is used."""
        handlers = self.handlers

        class Informer:
            def add_handler(self, handler: Callable[[Change[Any]], None]) -> None:
                handlers[resource] = handler

        return Informer()


@settings(max_examples=cases(20))
@given(st.lists(st.tuples(worlds.changes, worlds.held), min_size=1, max_size=6))
def test_any_history_gives_fresh_rules(history: list[tuple[list[Any], Mapping[str, frozenset[str]]]]) -> None:
    """After any changes, also several at once, and laptops that come and go."""
    asyncio.run(follow(history))


async def follow(history: list[tuple[list[Any], Mapping[str, frozenset[str]]]]) -> None:
    """Change a world step by step, and compare."""
    world, informers, held = World(), Informers(), dict[str, frozenset[str]]()
    feed = Feed(informers, world, ManualClock(), lambda: held)  # type: ignore[arg-type]
    for some, connected in [(worlds.base(), {}), *history]:
        before = {kind: {each.metadata.key: each for each in getattr(world, kind)} for kind in KINDS}
        for changed in worlds.apply(world, some):
            handler = informers.handlers.get(KINDS[changed.kind][0])
            old, new = before[changed.kind].get(changed.key), getattr(world, changed.kind).get(changed.key)
            if handler is not None and old is not new:
                handler(Change(old, new))
        held.clear()
        held.update(connected)
        feed.held_changed()
        feed._take_in()
        fresh = workload_rules(world, held)
        assert feed.rules(Filter()) == fresh
        assert feed.digest == str(Digest(fresh))
