"""A RouteGroup against an API server over HTTPS: the embedded one, or the one that SANDLANE_TEST_KUBECONFIG names."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from sandlane.api.crd import definitions
from sandlane.cli.crds import install
from sandlane.kube.client import Client
from sandlane.kube.clock import SystemClock
from sandlane.kube.config import load_config
from sandlane.kube.errors import Invalid, NotFound
from sandlane.kube.http import HttpTransport
from sandlane.kube.resource import NAMESPACES, ROUTE_GROUPS, SANDBOXES, Object, Resource
from sandlane.runtime.manager import Manager
from sandlane.runtime.options import ManagerOptions
from support.sandboxes import build, group
from support.workloads import DEADLINE


async def there(client: Client, resource: Resource, name: str, namespace: str) -> bool:
    """Whether an object exists."""
    try:
        await client.get(resource, name, namespace)
    except NotFound:
        return False
    return True


async def test_a_group_lives_in_a_cluster(kubeconfig: Path) -> None:
    """The definition's schema, status, finalizer and the controller work over HTTPS, from creation to the end."""
    clock, rng = SystemClock(), random.Random(1)
    client = Client(HttpTransport(load_config(kubeconfig)), clock=clock, rng=rng)
    await install(client, clock, definitions())
    namespace = (await client.create(NAMESPACES, {"metadata": {"generateName": "groups-"}}))["metadata"]["name"]

    def here(obj: Object) -> Object:
        return obj | {"metadata": obj["metadata"] | {"namespace": namespace}}

    manager = Manager(client, clock=clock, rng=rng, options=ManagerOptions(watch_namespaces=(namespace,)))
    build(manager)
    async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as tasks:
        job = tasks.create_task(manager.run())
        await manager.ready.wait()
        with pytest.raises(Invalid, match="match"):
            await client.create(ROUTE_GROUPS, here(group("bad") | {"spec": {"match": {}}}))
        await client.create(ROUTE_GROUPS, here(group(routingKey="mine")))
        empty = {"apiVersion": SANDBOXES.api_version, "kind": "Sandbox", "spec": {}}
        await client.create(SANDBOXES, here(empty | {"metadata": {"name": "one", "labels": {"feature": "x1"}}}))
        while True:
            found = await client.get(ROUTE_GROUPS, "both", namespace)
            status = found.get("status", {})
            if status.get("matchedSandboxes") == [{"name": "one", "ready": True}] and status["phase"] == "Ready":
                break
            await asyncio.sleep(0.02)
        assert status["routingKey"] == "mine"
        assert [each["type"] for each in status["conditions"]] == [
            "Accepted", "Conflicted", "SandboxesReady", "RoutesProgrammed", "Ready",
        ]  # fmt: skip
        with pytest.raises(Invalid, match="routingKey"):
            await client.patch(ROUTE_GROUPS, "both", {"spec": {"routingKey": "other"}}, namespace=namespace)
        await client.delete(ROUTE_GROUPS, "both", namespace)
        await client.delete(SANDBOXES, "one", namespace)
        for resource, name in ((ROUTE_GROUPS, "both"), (SANDBOXES, "one")):
            while await there(client, resource, name, namespace):
                await asyncio.sleep(0.02)
        manager.stop()
        await job
    await client.delete(NAMESPACES, namespace)
    await client.close()
