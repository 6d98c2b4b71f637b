"""The incremental route table equals a fresh build, whatever happened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sandlane.kube.resource import Key
from sandlane.routing.build import build, overrides
from sandlane.routing.live import LiveTable
from sandlane.world.world import World
from support import worlds
from support.thorough import cases


@settings(max_examples=cases(25))
@given(st.lists(st.tuples(worlds.changes, worlds.held), min_size=1, max_size=6))
def test_any_history_gives_the_table_of_a_fresh_build(
    history: list[tuple[list[Any], Mapping[str, frozenset[str]]]],
) -> None:
    """After any changes, also several at once, the table and its digests are those of a fresh build of the world."""
    world, live = World(), LiveTable()
    for some, held in [(worlds.base(), {}), *history]:
        table = live.update(world, worlds.apply(world, some), held)
        fresh = build(world, held)
        assert table == fresh
        assert table.digest == fresh.digest
        wanted = overrides(world, held)
        assert {Key(d.namespace, d.service) for d in wanted} == {
            Key(n, s) for n in worlds.NAMESPACES for s in worlds.SERVICES if live.has_overrides(Key(n, s))
        }
        for key in {key for some_keys in wanted.values() for key in some_keys}:
            assert live.routes(key) == {door: found[key] for door, found in wanted.items() if key in found}
