"""The runtime against an API server over HTTPS: the embedded one, or the one that SANDLANE_TEST_KUBECONFIG names."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from guestbook import GUESTBOOKS, GuestbookController

from sandlane.kube.apply import Action, Applier
from sandlane.kube.cache import Cache
from sandlane.kube.client import Client, PatchType
from sandlane.kube.clock import SystemClock
from sandlane.kube.config import load_config
from sandlane.kube.errors import AlreadyExists, Conflict, Gone, Invalid, NotFound
from sandlane.kube.http import HttpTransport
from sandlane.kube.resource import CONFIG_MAPS, CUSTOM_RESOURCE_DEFINITIONS, DEPLOYMENTS, LEASES, NAMESPACES, Key
from sandlane.runtime.manager import Manager
from sandlane.runtime.options import ManagerOptions
from sandlane.testing.events import captured_events

GUESTBOOK = Path(__file__).resolve().parent.parent.parent / "examples" / "guestbook-controller"
SECONDS = 60


@asynccontextmanager
async def connected(kubeconfig: Path) -> AsyncIterator[Client]:
    """A client of its own."""
    client = Client(HttpTransport(load_config(kubeconfig)), clock=SystemClock(), rng=random.Random())
    try:
        yield client
    finally:
        await client.close()


@pytest.fixture
async def client(kubeconfig: Path) -> AsyncIterator[Client]:
    async with connected(kubeconfig) as client:
        yield client


@pytest.fixture
async def namespace(client: Client) -> AsyncIterator[str]:
    """A namespace for one test."""
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "runtime-"}}
    name = (await client.create(NAMESPACES, body))["metadata"]["name"]
    yield name
    await client.delete(NAMESPACES, name)


async def until(holds: Callable[[], Any]) -> None:
    """Wait for a condition, plain or awaitable."""
    async with asyncio.timeout(SECONDS):
        while True:
            result = holds()
            if await result if hasattr(result, "__await__") else result:
                return
            await asyncio.sleep(0.02)


async def test_verbs_and_errors(client: Client, namespace: str) -> None:
    """Each verb does what it says, and each refusal is the error of its kind."""
    obj = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "a", "namespace": namespace},
        "data": {"x": "1"},
    }
    made = await client.create(CONFIG_MAPS, obj)
    with pytest.raises(AlreadyExists):
        await client.create(CONFIG_MAPS, obj)
    changed = await client.patch(CONFIG_MAPS, "a", {"data": {"x": "2"}}, namespace=namespace)
    with pytest.raises(Conflict):
        await client.replace(CONFIG_MAPS, made)
    patch = [{"op": "replace", "path": "/data/x", "value": "3"}]
    await client.patch(CONFIG_MAPS, "a", patch, namespace=namespace, patch_type=PatchType.JSON, dry_run=True)
    assert (await client.get(CONFIG_MAPS, "a", namespace))["data"] == {"x": "2"}
    with pytest.raises(Conflict):
        await client.apply(CONFIG_MAPS, obj, field_manager="other", force=False)
    await client.apply(CONFIG_MAPS, obj, field_manager="other")
    with pytest.raises(Invalid):
        await client.create(CONFIG_MAPS, obj | {"metadata": {"name": "Not_A_Name", "namespace": namespace}})
    with pytest.raises(Conflict):
        await client.delete(CONFIG_MAPS, "a", namespace, uid="another")
    await client.delete(CONFIG_MAPS, "a", namespace, uid=changed["metadata"]["uid"])
    with pytest.raises(NotFound):
        await client.get(CONFIG_MAPS, "a", namespace)


async def test_pages(client: Client, namespace: str) -> None:
    """A list in pages is the whole list."""
    for n in range(25):
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"c{n:02}", "namespace": namespace}}
        await client.create(CONFIG_MAPS, body | {"data": {"n": str(n)}})
    found = await client.list(CONFIG_MAPS, namespace, limit=10)
    names = [item["metadata"]["name"] for item in found.items if item["metadata"]["name"].startswith("c")]
    assert names == [f"c{n:02}" for n in range(25)]


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_cache_follows(client: Client, namespace: str, streaming: bool) -> None:
    """By streaming lists and by plain ones; own writes are there at once."""
    cache = Cache(client, clock=SystemClock(), rng=random.Random(), namespaces=[namespace], streaming=streaming)
    store = cache.informer(CONFIG_MAPS, label_selector="mine=yes").store
    body = {"apiVersion": "v1", "kind": "ConfigMap"}

    def metadata(name: str) -> dict[str, Any]:
        return {"metadata": {"name": name, "namespace": namespace, "labels": {"mine": "yes"}}}

    await client.create(CONFIG_MAPS, body | metadata("before"))
    async with asyncio.TaskGroup() as tasks:
        job = tasks.create_task(cache.run())
        await cache.wait_synced(SECONDS)
        assert [record.metadata.name for record in store.list()] == ["before"]
        made = await client.create(CONFIG_MAPS, body | metadata("after"))
        cache.observe(CONFIG_MAPS, made)
        assert store.get(Key(namespace, "after")) is not None
        await cache.wait_for(CONFIG_MAPS, Key(namespace, "after"), made["metadata"]["resourceVersion"], timeout=SECONDS)
        await client.patch(CONFIG_MAPS, "before", {"metadata": {"labels": {"mine": "no"}}}, namespace=namespace)
        await until(lambda: store.get(Key(namespace, "before")) is None)
        job.cancel()


async def test_an_old_version_is_gone(client: Client) -> None:
    """410, as a status or as an event, is what an old version gets."""
    assert await _watch_from(client, "1") in (410, None)  # None: this server still knows its first version


async def test_applying_twice_sends_once(client: Client, namespace: str) -> None:
    """Also with empty memory."""
    container = {"name": "c", "image": "i", "resources": {"limits": {"cpu": "1000m"}}}
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container]}}
    desired = {
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": template},
    }
    cache = Cache(client, clock=SystemClock(), rng=random.Random(), namespaces=[namespace])
    cache.informer(DEPLOYMENTS)
    async with asyncio.TaskGroup() as tasks:
        job = tasks.create_task(cache.run())
        await cache.wait_synced(SECONDS)
        actions = [(await Applier(client, cache).ensure(DEPLOYMENTS, desired)).action for _ in range(3)]
        job.cancel()
    assert actions == [Action.CREATED, Action.UNCHANGED, Action.UNCHANGED]


async def test_the_guestbook(kubeconfig: Path, client: Client, namespace: str) -> None:
    """The example, on a server: two managers, one leads; the other takes over; Deployment, status and Event are there."""
    crd = yaml.safe_load((GUESTBOOK / "crd.yaml").read_text())
    await client.apply(CUSTOM_RESOURCE_DEFINITIONS, crd)
    await until(lambda: _served(client, namespace))
    managers = []
    async with connected(kubeconfig) as one, connected(kubeconfig) as two, asyncio.TaskGroup() as tasks:
        for each in (one, two):
            options = ManagerOptions(leader_elect=True, leader_election_id="guestbook", watch_namespaces=(namespace,))
            manager = Manager(each, clock=SystemClock(), rng=random.Random(), options=options, namespace=namespace)
            GuestbookController(manager)
            managers.append(manager)
            tasks.create_task(manager.run())
        await until(lambda: any(manager.leading.is_set() for manager in managers))
        leader = next(manager for manager in managers if manager.leading.is_set())
        standby = next(manager for manager in managers if manager is not leader)
        book = {"apiVersion": "example.com/v1", "kind": "Guestbook", "metadata": {"name": "g", "namespace": namespace}}
        await client.create(GUESTBOOKS, book)
        await until(lambda: _there(client, "g", namespace))
        leader.stop()
        await until(standby.leading.is_set)
        lease = await client.get(LEASES, "guestbook", namespace)
        assert lease["spec"]["holderIdentity"] == standby.identity
        await client.delete(DEPLOYMENTS, "g", namespace)
        await until(lambda: _there(client, "g", namespace))
        await until(lambda: _event(client, namespace))
        standby.stop()


async def _watch_from(client: Client, version: str) -> int | None:
    """The failure that a watch from a version meets, if any."""
    try:
        async with client.watch(CONFIG_MAPS, resource_version=version, timeout_seconds=1) as lines:
            async for line in lines:
                event = yaml.safe_load(line)
                if event["type"] == "ERROR":
                    return int(event["object"]["code"])
    except Gone as error:
        return error.status
    return None


async def _served(client: Client, namespace: str) -> bool:
    try:
        await client.list(GUESTBOOKS, namespace)
    except NotFound:
        return False
    return True


async def _there(client: Client, name: str, namespace: str) -> bool:
    try:
        return not (await client.get(DEPLOYMENTS, name, namespace))["metadata"].get("deletionTimestamp")
    except NotFound:
        return False


async def _event(client: Client, namespace: str) -> bool:
    return any(event.startswith("Guestbook/g: Created") for event in await captured_events(client, namespace))
