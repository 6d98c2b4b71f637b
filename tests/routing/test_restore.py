"""Services are given back to their owners, however they were left behind."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sandlane.api.labels import ORIGINAL
from sandlane.kube.resource import SERVICES
from sandlane.routing.resources import ROUTER_SELECTOR
from sandlane.routing.restore import NotRestored, restore
from sandlane.testing.cluster import FakeCluster

PORTS = [{"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"}]


def turned(name: str, original: str) -> dict[str, Any]:
    """A Service that is turned to a router, without its shadow."""
    ports = [{**PORTS[0], "targetPort": 20_001}]
    metadata = {"name": name, "namespace": "default", "annotations": {ORIGINAL: original}}
    spec = {"selector": dict(ROUTER_SELECTOR), "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


async def test_a_service_without_its_shadow_is_given_back() -> None:
    """The ports of the router are recognised by themselves; the owner's are put in their place."""
    async with FakeCluster() as cluster:
        original = json.dumps({"selector": {"app": "a"}, "ports": PORTS})
        await cluster.client.create(SERVICES, turned("a", original))
        assert [said async for said in restore(cluster.client)] == ["Service default/a turned back"]
        found = await cluster.client.get(SERVICES, "a", "default")
        assert (found["spec"]["selector"], found["spec"]["ports"]) == ({"app": "a"}, PORTS)
        assert ORIGINAL not in found["metadata"].get("annotations", {})
        assert [said async for said in restore(cluster.client)] == []


@pytest.mark.parametrize("original", ["no JSON", "{}", "[]", '{"selector": {"a": "b"}}'])
async def test_a_damaged_annotation_stops_nobody_else(original: str) -> None:
    """What cannot be given back is named with what to do, after all others were."""
    async with FakeCluster() as cluster:
        await cluster.client.create(SERVICES, turned("bad", original))
        whole = json.dumps({"selector": {"app": "a"}, "ports": PORTS})
        await cluster.client.create(SERVICES, turned("good", whole))
        restoring = restore(cluster.client)
        assert await anext(restoring) == "Service default/good turned back"
        with pytest.raises(NotRestored, match=r"default/bad.*damaged.*remove the annotation"):
            await anext(restoring)
