"""A manager over a FakeCluster with a manual clock, and ways to let it come to rest."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sandlane.kube.resource import CONFIG_MAPS, Object
from sandlane.runtime.manager import Manager
from sandlane.runtime.options import ManagerOptions
from sandlane.testing.clock import ManualClock
from sandlane.testing.cluster import FakeCluster


class Rig:
    """A cluster, a clock, and managers."""

    def __init__(self, cluster: FakeCluster, clock: ManualClock) -> None:
        self.cluster, self.clock = cluster, clock

    def manager(self, *, identity: str = "one", **options: Any) -> Manager:
        """A manager that has not started; each has a client of its own."""
        client = self.cluster.client.unguarded()
        rng = random.Random(identity)
        return Manager(client, clock=self.clock, rng=rng, options=ManagerOptions(**options), identity=identity)

    @asynccontextmanager
    async def running(self, *managers: Manager) -> AsyncIterator[None]:
        """The managers run meanwhile, and end in good order."""
        async with asyncio.TaskGroup() as tasks:
            for manager in managers:
                tasks.create_task(manager.run())
            await self.until(lambda: all(m.ready.is_set() for m in managers))
            yield
            for manager in managers:
                manager.stop()
            await self.clock.advance(1)

    async def until(self, holds: Callable[[], bool], within: float = 600) -> None:
        """Move the clock until something holds."""
        await self.clock.run_until(holds, within=within)

    async def rest(self, *managers: Manager) -> None:
        """Let the managers do what there is to do."""
        await self.until(lambda: all(m.idle for m in managers))

    async def config_map(self, name: str, **data: str) -> Object:
        """Make a ConfigMap."""
        return await self.cluster.client.create(CONFIG_MAPS, config_map(name, **data))


def config_map(name: str, **data: str) -> Object:
    """A ConfigMap in the namespace d."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "d"}, "data": data}


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    clock = ManualClock()
    async with FakeCluster(clock=clock) as cluster:
        await cluster.ensure_namespace("d")
        yield Rig(cluster, clock)
