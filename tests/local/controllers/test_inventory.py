"""The inventory of every object of every kind."""

from __future__ import annotations

import asyncio
from typing import Any

from sandlane.kube.cache import Cache, Change
from sandlane.kube.resource import CUSTOM_RESOURCE_DEFINITIONS, Resource
from sandlane.kube.store import Record
from sandlane.kube.transport import Request, Response
from sandlane.local.controllers.inventory import Inventory
from sandlane.testing.cluster import FakeCluster


def definition(plural: str, kind: str) -> dict[str, Any]:
    """A custom kind without a namespace."""
    schema = {"openAPIV3Schema": {"type": "object"}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.example.test"},
        "spec": {
            "group": "example.test",
            "scope": "Cluster",
            "names": {"plural": plural, "kind": kind},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }


async def test_a_kind_that_is_never_listed_holds_nothing_up() -> None:
    """A kind whose list fails, and that goes before it succeeds, does not keep later kinds from being seen."""
    async with FakeCluster() as cluster:

        async def fail(request: Request) -> Response | None:
            return Response(404, (), b"404 page not found") if request.path.endswith("/v1/ghosts") else None

        cluster.transport.intercepts.append(fail)
        cache = Cache(cluster.client, clock=cluster.clock, rng=cluster.rng)
        inventory = Inventory(cluster.client, cache, cluster.clock, cluster.rng)
        heard, seen = asyncio.Event(), asyncio.Event()

        def listen(resource: Resource, change: Change[Record]) -> None:
            if change.new is not None and change.new.metadata.name == "visible":
                heard.set()
            if change.new is not None and change.new.metadata.name == "ghosts.example.test":
                seen.set()

        inventory.add_listener(listen)
        inventory.prepare()
        await cluster.add(definition("ghosts", "Ghost"))
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(cache.run()), tasks.create_task(inventory.run())]
            await seen.wait()
            assert not inventory.complete.is_set()
            await cluster.client.delete(CUSTOM_RESOURCE_DEFINITIONS, "ghosts.example.test")
            await cluster.add(definition("things", "Thing"))
            await cluster.add({"apiVersion": "example.test/v1", "kind": "Thing", "metadata": {"name": "visible"}})
            await heard.wait()
            await inventory.complete.wait()
            for task in running:
                task.cancel()
