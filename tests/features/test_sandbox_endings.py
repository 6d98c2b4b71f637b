"""A sandbox ends in good order whatever ends it: its namespace, a finalizer taken off by hand, a manager that was away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sandlane.api.crd import definitions
from sandlane.kube.resource import DEPLOYMENTS, NAMESPACES, PODS, SANDBOXES, SERVICES, Key, Object
from sandlane.runtime.conditions import is_true
from sandlane.runtime.manager import Manager
from sandlane.runtime.options import ManagerOptions
from sandlane.world.records import Sandbox
from support.sandboxes import NAMESPACE, PretendRoutes, Report, build, deployment, sandbox, service
from support.workloads import DEADLINE, Workloads, workloads


@asynccontextmanager
async def managed(cluster: Workloads, routes: PretendRoutes) -> AsyncIterator[Manager]:
    """The controllers of the product beside those of the cluster."""
    inner = cluster.cluster
    manager = Manager(inner.client, clock=inner.clock, rng=inner.rng, options=ManagerOptions())
    build(manager, routes)
    async with asyncio.TaskGroup() as tasks:
        job = tasks.create_task(manager.run())
        await asyncio.wait_for(manager.ready.wait(), DEADLINE)
        yield manager
        manager.stop()
        await job


async def ready(cluster: Workloads, manager: Manager) -> None:
    """Make a sandbox, and wait until it is ready."""
    await cluster.client.create(SANDBOXES, sandbox())
    store = manager.cache.informer(SANDBOXES, Sandbox).store

    async def check() -> bool:
        found = store.get(Key(NAMESPACE, "new-eta"))
        return found is not None and is_true(found.status.conditions, "Ready")

    await cluster.until(check, "the sandbox is ready")


async def names(cluster: Workloads, *resources: object) -> list[str]:
    """What there is of these kinds."""
    lists: list[list[Object]] = [(await cluster.client.list(each, NAMESPACE)).items for each in resources]  # type: ignore[arg-type]
    return [obj["metadata"]["name"] for found in lists for obj in found]


async def test_a_namespace_can_be_deleted() -> None:
    """Deleting the namespace of a sandbox takes all of it, and nothing stands in the way."""
    async with (
        workloads(*definitions(), deployment(), service()) as cluster,
        managed(cluster, PretendRoutes()) as manager,
    ):
        await ready(cluster, manager)
        await cluster.client.delete(NAMESPACES, NAMESPACE)
        await cluster.gone(NAMESPACES, NAMESPACE)
        assert await names(cluster, SANDBOXES, DEPLOYMENTS, SERVICES, PODS) == []


async def test_a_finalizer_taken_off_by_hand_leaves_nothing() -> None:
    """A sandbox whose end waits for its routes and loses its finalizer is gone; the garbage collector takes the rest."""
    async with workloads(*definitions(), deployment(), service()) as cluster:
        routes = PretendRoutes()
        async with managed(cluster, routes) as manager:
            await ready(cluster, manager)
            routes.say("Sandbox", Key(NAMESPACE, "new-eta"), Report(served=True))
            await cluster.client.delete(SANDBOXES, "new-eta", NAMESPACE)
            patch = {"metadata": {"finalizers": None}}
            await cluster.client.patch(SANDBOXES, "new-eta", patch, namespace=NAMESPACE)
            await cluster.gone(SANDBOXES, "new-eta")

            async def collected() -> bool:
                return await names(cluster, DEPLOYMENTS, SERVICES) == ["route", "route"]

            await cluster.until(collected, "only the baseline is left")


async def test_a_manager_that_was_away_ends_what_was_deleted_meanwhile() -> None:
    """Deleting while no manager runs waits; the next manager finishes it."""
    async with workloads(*definitions(), deployment(), service()) as cluster:
        async with managed(cluster, PretendRoutes()) as manager:
            await ready(cluster, manager)
        await cluster.client.delete(SANDBOXES, "new-eta", NAMESPACE)
        waiting = await cluster.client.get(SANDBOXES, "new-eta", NAMESPACE)
        assert waiting["metadata"]["deletionTimestamp"]
        async with managed(cluster, PretendRoutes()):
            await cluster.gone(SANDBOXES, "new-eta")
            assert await names(cluster, DEPLOYMENTS, SERVICES) == ["route", "route"]
