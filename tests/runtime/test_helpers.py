"""Conditions, finalizers and owners: the small rules that every controller follows."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from sandlane.kube.errors import Conflict
from sandlane.kube.metadata import ObjectMeta
from sandlane.kube.resource import CONFIG_MAPS
from sandlane.runtime.conditions import find_condition, is_true, set_condition
from sandlane.runtime.finalizers import add_finalizer, remove_finalizer
from sandlane.runtime.owners import controlled_by, controller_reference
from sandlane.testing.clock import START


def test_a_condition_remembers_since_when_it_holds() -> None:
    """The time changes with the status only; reason, message and generation at any time."""
    first = set_condition((), "Ready", False, "Waiting", "for a", 1, START)
    later = set_condition(first, "Ready", False, "Waiting", "for b", 2, START + timedelta(hours=1))
    flipped = set_condition(later, "Ready", True, "AllReady", "", 2, START + timedelta(hours=2))
    assert [c[0].last_transition_time for c in (first, later, flipped)] == [
        "2030-01-01T00:00:00Z",
        "2030-01-01T00:00:00Z",
        "2030-01-01T02:00:00Z",
    ]
    assert (later[0].message, later[0].observed_generation) == ("for b", 2)
    assert is_true(flipped, "Ready")
    assert not is_true(flipped, "Other")


def test_conditions_keep_their_order_and_can_be_unknown() -> None:
    """A type is there once."""
    both = set_condition(set_condition((), "A", None, "Unknown", "", 1, START), "B", True, "Yes", "", 1, START)
    again = set_condition(both, "A", True, "Yes", "", 1, START)
    assert [c.type for c in again] == ["A", "B"]
    found = find_condition(both, "A")
    assert found is not None
    assert found.status == "Unknown"
    assert set_condition(again, "A", True, "Yes", "", 1, START + timedelta(days=1)) == again


async def test_finalizers(rig: Any) -> None:
    """Nothing is sent when nothing changes; others' stay; a stale view conflicts."""
    client = rig.cluster.client
    body = {"metadata": {"name": "a", "namespace": "d", "finalizers": ["example.com/other"]}}
    obj = await client.create(CONFIG_MAPS, {"apiVersion": "v1", "kind": "ConfigMap"} | body)
    before = _meta(obj)
    added = await add_finalizer(client, CONFIG_MAPS, before, "example.com/mine")
    assert added is not None
    assert added["metadata"]["finalizers"] == ["example.com/other", "example.com/mine"]
    assert await add_finalizer(client, CONFIG_MAPS, _meta(added), "example.com/mine") is None
    with pytest.raises(Conflict):
        await add_finalizer(client, CONFIG_MAPS, before, "example.com/third")
    removed = await remove_finalizer(client, CONFIG_MAPS, _meta(added), "example.com/mine")
    assert removed is not None
    assert removed["metadata"]["finalizers"] == ["example.com/other"]
    assert await remove_finalizer(client, CONFIG_MAPS, _meta(removed), "example.com/mine") is None


def test_owners() -> None:
    """This very object, by uid; not another of the same name."""
    owner = ObjectMeta(name="a", namespace="d", uid="u1")
    reference = controller_reference(CONFIG_MAPS, owner)
    owned = msgspec.convert({"name": "b", "ownerReferences": [reference]}, ObjectMeta)
    assert controlled_by(owned, owner)
    assert not controlled_by(owned, ObjectMeta(name="a", namespace="d", uid="u2"))
    assert not controlled_by(ObjectMeta(), owner)


def _meta(obj: Any) -> ObjectMeta:
    return msgspec.convert({k: v for k, v in obj["metadata"].items() if k != "managedFields"}, ObjectMeta)
