"""A feed of workload rules that follows a fake cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sandlane.api.crd import definitions
from sandlane.kube.cache import Cache
from sandlane.kube.resource import LOCAL_WORKLOADS, ROUTE_GROUPS, SANDBOXES, Object
from sandlane.routesapi.feed import Event, Feed, Filter
from sandlane.testing.cluster import FakeCluster
from sandlane.world.world import World
from support.workloads import DEADLINE

RESOURCES = {each.kind: each for each in (SANDBOXES, ROUTE_GROUPS, LOCAL_WORKLOADS)}


class Fed:
    """A fake cluster and a feed that follows it. `held` says which laptops are connected."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster, self.client = cluster, cluster.client
        self.held: dict[str, frozenset[str]] = {}
        self.cache = Cache(cluster.client, clock=cluster.clock, rng=cluster.rng, streaming=False)
        self.feed = Feed(self.cache, World.from_cache(self.cache), cluster.clock, lambda: self.held)

    async def write(self, *objects: Object) -> None:
        """Create objects, statuses included; only those of our kinds."""
        for obj in objects:
            if obj["kind"] in RESOURCES:
                await self.cluster.add(obj)

    async def delete(self, kind: str, name: str) -> None:
        """Delete an object of namespace n."""
        await self.client.delete(RESOURCES[kind], name, "n")

    def stream(self, **wanted: str) -> Watching:
        """A watch."""
        return Watching(self.feed.watch(Filter(**wanted)))


class Watching:
    """A watch, read with a deadline."""

    def __init__(self, events: AsyncIterator[Event]) -> None:
        self._events = events
        self.digest = ""

    async def next(self) -> tuple[str, str]:
        """The next event: op, and the rule as KEY>SANDBOX/WORKLOAD."""
        event = await asyncio.wait_for(anext(self._events), DEADLINE)
        self.digest = event.digest
        rule = event.rule
        return event.op, f"{rule.key}>{rule.sandbox}/{rule.workload}" if rule else ""


@asynccontextmanager
async def feeding(*objects: Object) -> AsyncIterator[Fed]:
    """A feed of these objects that has synced."""
    async with FakeCluster.with_objects(*definitions()) as cluster, asyncio.TaskGroup() as tasks:
        await cluster.ensure_namespace("n")
        fed = Fed(cluster)
        await fed.write(*objects)
        ready = asyncio.Event()
        running = [tasks.create_task(fed.cache.run()), tasks.create_task(fed.feed.run(ready))]
        await fed.cache.wait_synced(DEADLINE)
        ready.set()
        await fed.feed.synced.wait()
        try:
            yield fed
        finally:
            for task in running:
                task.cancel()
