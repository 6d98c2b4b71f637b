"""Envoy's resources kept in step with a changing world: the same as made at once, and fine for Envoy."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sandlane.kube.resource import Key
from sandlane.routing.build import build
from sandlane.routing.envoy.translate import Translation
from sandlane.routing.live import LiveTable
from sandlane.world.world import World
from support import worlds
from support.thorough import cases

Held = Mapping[str, frozenset[str]]


def touched(world: World, some: list[tuple[bool, Any]]) -> set[Key]:
    """The Services that changes touch, as the publisher finds them."""
    found = set()
    for _, obj in some:
        namespace = obj["metadata"].get("namespace", "")
        if obj["kind"] == "Service":
            found.add(Key(namespace, obj["metadata"]["name"]))
        elif obj["kind"] == "EndpointSlice":
            found |= {Key(namespace, obj["metadata"]["labels"]["kubernetes.io/service-name"])}
    return found


@settings(max_examples=cases(10))
@given(st.lists(st.tuples(worlds.changes, worlds.held), min_size=1, max_size=5))
def test_any_history_gives_the_resources_of_a_fresh_translation(history: list[tuple[list[Any], Held]]) -> None:
    """After any changes the resources of all namespaces are byte for byte those of a translation that starts afresh."""
    world, live, translation = World(), LiveTable(), Translation()
    seen = {namespace: copy.deepcopy(translation.shared(namespace)) for namespace in worlds.NAMESPACES}
    for some, held in [(worlds.base(), {}), *history]:
        table = live.update(world, worlds.apply(world, some), held)
        changed = translation.update(world, table, held, touched(world, some))
        fresh = Translation()
        fresh.update(world, build(world, held), held, set())
        for namespace in worlds.NAMESPACES:
            shared = translation.shared(namespace)
            assert shared == fresh.shared(namespace)
            assert translation.listeners(namespace, "127.0.0.1") == fresh.listeners(namespace, "127.0.0.1")
            for type_url, named in changed.get(namespace, {}).items():
                for name, data in named.items():
                    if data is None:
                        del seen[namespace][type_url][name]
                    else:
                        seen[namespace][type_url][name] = data
            assert shared == seen[namespace]
