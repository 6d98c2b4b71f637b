"""`Applier.ensure` makes the cluster hold an object, and sends nothing when it does."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from copy import deepcopy
from typing import Any

import pytest

from sandlane.kube.apply import Action, Applier, NotOwned
from sandlane.kube.cache import Cache
from sandlane.kube.client import PatchType
from sandlane.kube.errors import Conflict
from sandlane.kube.metadata import ObjectMeta
from sandlane.kube.resource import CONFIG_MAPS, DEPLOYMENTS, SERVICES, Key, Object
from sandlane.kube.transport import Request
from sandlane.runtime.owners import controller_reference
from sandlane.testing.cluster import FakeCluster

OWNER = ObjectMeta(name="owner", namespace="d", uid="owner-uid")
KEY = Key("d", "a")


def deployment() -> Object:
    """A Deployment with something in each kind of field."""
    container = {
        "name": "c",
        "image": "i",
        "env": [{"name": "A", "value": "b"}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "ports": [{"containerPort": 80}, {"containerPort": 81, "protocol": "UDP"}],
        "resources": {"limits": {"cpu": "1000m", "memory": "1024Mi"}},
        "args": ["x", "y"],
    }
    return {
        "metadata": {
            "name": "a",
            "namespace": "d",
            "labels": {"x": "y"},
            "annotations": {},
            "ownerReferences": [controller_reference(CONFIG_MAPS, OWNER)],
        },
        "spec": {
            "selector": {"matchLabels": {"app": "a"}},
            "template": {
                "metadata": {"labels": {"app": "a"}},
                "spec": {"containers": [container], "volumes": [{"name": "v", "emptyDir": {}}]},
            },
        },
    }


class Bench:
    """A cluster with a running cache, and what each step wrote."""

    def __init__(self, cluster: FakeCluster, cache: Cache) -> None:
        self.cluster, self.cache = cluster, cache
        self.applier = Applier(cluster.client, cache)

    async def ensure(self, desired: Object, **options: Any) -> tuple[Action, int]:
        """What was done, and in how many writes."""
        before = len(self.cluster.writes)
        applied = await self.applier.ensure(DEPLOYMENTS, desired, **options)
        return applied.action, len(self.cluster.writes) - before

    def restart(self) -> None:
        """Forget everything."""
        self.applier = Applier(self.cluster.client, self.cache)

    async def stranger(self, patch: Object, kind: PatchType = PatchType.STRATEGIC) -> None:
        """Somebody else patches the object; the cache has seen it."""
        answer = await self.cluster.client.patch(DEPLOYMENTS, "a", patch, namespace="d", patch_type=kind)
        await self.cache.wait_for(DEPLOYMENTS, KEY, answer["metadata"]["resourceVersion"])

    async def live(self) -> Object:
        """The object in the cluster."""
        return await self.cluster.client.get(DEPLOYMENTS, "a", "d")


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with FakeCluster() as cluster:
        await cluster.ensure_namespace("d")
        cache = Cache(cluster.client, clock=cluster.clock, rng=random.Random(1))
        cache.informer(DEPLOYMENTS)
        async with asyncio.TaskGroup() as tasks:
            job = tasks.create_task(cache.run())
            await cache.wait_synced(10)
            yield Bench(cluster, cache)
            job.cancel()


async def test_created_once_then_nothing_is_sent(bench: Bench) -> None:
    """Neither again at once (not even a read), nor with empty memory (a read tells)."""
    assert await bench.ensure(deployment(), owner=OWNER) == (Action.CREATED, 1)
    assert await bench.ensure(deployment(), owner=OWNER) == (Action.UNCHANGED, 0)
    bench.restart()
    assert await bench.ensure(deployment(), owner=OWNER) == (Action.UNCHANGED, 0)


async def test_a_status_write_of_others_is_no_reason_to_look(bench: Bench) -> None:
    """Kinds with generations are not read again for each status."""
    await bench.ensure(deployment(), owner=OWNER)
    live = await bench.live()
    live["status"] = {"replicas": 1, "observedGeneration": 1}
    answer = await bench.cluster.client.replace(DEPLOYMENTS, live, subresource="status")
    await bench.cache.wait_for(DEPLOYMENTS, KEY, answer["metadata"]["resourceVersion"])
    assert (await bench.applier.ensure(DEPLOYMENTS, deployment(), owner=OWNER)).object is None


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        {"spec": {"replicas": 3}},
        {"spec": {"paused": True}},
        {"spec": {"template": {"spec": {"nodeSelector": {"disk": "ssd"}}}}},
        {"spec": {"template": {"spec": {"containers": [{"name": "side", "image": "s"}]}}}},
        {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "other"}]}}}},
        {"spec": {"template": {"spec": {"containers": [{"name": "c", "env": [{"name": "Z", "value": "z"}]}]}}}},
        {"spec": {"template": {"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1m"}}}]}}}},
        {"metadata": {"labels": {"stranger": "yes"}}},
        {"metadata": {"labels": {"x": "other"}}},
    ],
)
async def test_drift_is_put_back(bench: Bench, change: Object, restarted: bool) -> None:
    """What strangers change or add is undone, in one write, and then there is nothing more to do."""
    await bench.ensure(deployment(), owner=OWNER)
    before = await bench.live()
    await bench.stranger(change)
    if restarted:
        bench.restart()
    action, writes = await bench.ensure(deployment(), owner=OWNER)
    assert action in (Action.UPDATED, Action.CLEANED)
    assert writes == 1
    after = await bench.live()
    assert after["spec"] == before["spec"]
    assert after["metadata"]["labels"] == before["metadata"]["labels"]
    bench.restart()
    assert await bench.ensure(deployment(), owner=OWNER) == (Action.UNCHANGED, 0)


async def test_annotations_and_finalizers_of_others_stay(bench: Bench) -> None:
    """Controllers and people note things there; that is no drift."""
    await bench.ensure(deployment(), owner=OWNER)
    await bench.stranger({"metadata": {"annotations": {"note": "hi"}, "finalizers": ["example.com/x"]}})
    assert await bench.ensure(deployment(), owner=OWNER) == (Action.UNCHANGED, 0)
    assert (await bench.live())["metadata"]["annotations"]["note"] == "hi"


async def test_what_is_no_longer_wanted_goes(bench: Bench) -> None:
    """A field, an item and a label that were applied once are removed."""
    await bench.ensure(deployment(), owner=OWNER)
    less = deepcopy(deployment())
    del less["metadata"]["labels"]["x"]
    container = less["spec"]["template"]["spec"]["containers"][0]
    container["env"].pop()
    del container["args"]
    bench.restart()
    assert await bench.ensure(less, owner=OWNER) == (Action.UPDATED, 1)
    live = await bench.live()
    assert [e["name"] for e in live["spec"]["template"]["spec"]["containers"][0]["env"]] == ["A"]
    assert "args" not in live["spec"]["template"]["spec"]["containers"][0]
    assert await bench.ensure(less, owner=OWNER) == (Action.UNCHANGED, 0)


@pytest.mark.parametrize("held", ["nobody", "another"])
async def test_an_object_of_somebody_else_is_never_touched(bench: Bench, held: str) -> None:
    """Neither adopted nor deleted, also when the cache does not know it yet; the error names the holder."""
    other = deployment() | {"apiVersion": "apps/v1", "kind": "Deployment"}
    del other["metadata"]["ownerReferences"]
    if held == "another":
        reference = controller_reference(CONFIG_MAPS, ObjectMeta(name="rival", uid="rival-uid"))
        other["metadata"]["ownerReferences"] = [reference]
    made = await bench.cluster.add(other)
    expected = "rival" if held == "another" else "nobody"
    with pytest.raises(NotOwned, match=expected):
        await bench.ensure(deployment(), owner=OWNER)
    await bench.cache.wait_for(DEPLOYMENTS, KEY, made["metadata"]["resourceVersion"])
    with pytest.raises(NotOwned):
        await bench.ensure(deployment(), owner=OWNER)
    with pytest.raises(NotOwned):
        await bench.applier.remove(DEPLOYMENTS, KEY, owner=OWNER)
    assert (await bench.live())["metadata"]["uid"] == made["metadata"]["uid"]


async def test_a_write_that_depends_on_a_version_is_refused_when_it_has_changed(bench: Bench) -> None:
    """A stale plan does not win."""
    await bench.ensure(deployment(), owner=OWNER)
    version = (await bench.live())["metadata"]["resourceVersion"]
    await bench.stranger({"spec": {"replicas": 4}})
    with pytest.raises(Conflict):
        await bench.ensure(deployment(), owner=OWNER, resource_version=version)


async def test_a_write_that_is_overtaken_is_refused(bench: Bench) -> None:
    """Whoever looked before another one wrote loses, though nobody asked for it: a former leader's last write."""
    await bench.ensure(deployment(), owner=OWNER)
    overtaken = deployment()
    overtaken["spec"]["paused"] = True
    another = [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "next"}]

    async def overtake(request: Request) -> None:
        if request.method == "PATCH" and "fieldManager" in dict(request.query):
            bench.cluster.transport.intercepts.clear()
            await bench.cluster.client.patch(DEPLOYMENTS, "a", another, namespace="d", patch_type=PatchType.JSON)

    bench.cluster.transport.intercepts.append(overtake)
    with pytest.raises(Conflict):
        await bench.ensure(overtaken, owner=OWNER)
    assert "paused" not in (await bench.live())["spec"]


async def test_removing(bench: Bench) -> None:
    """Gone is gone; with a finalizer it takes longer; nothing is made meanwhile."""
    assert await bench.applier.remove(DEPLOYMENTS, KEY, owner=OWNER)
    held = deployment()
    held["metadata"]["finalizers"] = ["example.com/wait"]
    await bench.ensure(held, owner=OWNER)
    assert not await bench.applier.remove(DEPLOYMENTS, KEY, owner=OWNER)
    bench.restart()
    assert (await bench.ensure(held, owner=OWNER))[0] is Action.WAITING
    await bench.cluster.client.patch(DEPLOYMENTS, "a", {"metadata": {"finalizers": []}}, namespace="d")
    await asyncio.wait_for(_gone(bench), 10)
    assert await bench.ensure(deployment(), owner=OWNER) == (Action.CREATED, 1)
    assert await bench.applier.remove(DEPLOYMENTS, KEY, owner=OWNER)
    assert bench.cache.known(DEPLOYMENTS, KEY) is None


async def test_kinds_without_generations(bench: Bench) -> None:
    """Services and ConfigMaps: defaults and allocations of the server are no drift."""
    service = {
        "metadata": {"name": "s", "namespace": "d"},
        "spec": {"selector": {"a": "b"}, "ports": [{"port": 80, "name": "http"}, {"port": 81, "name": "other"}]},
    }
    config = {"metadata": {"name": "c", "namespace": "d"}, "data": {"a": "1"}}
    for resource, desired in ((SERVICES, service), (CONFIG_MAPS, config)):
        assert (await bench.applier.ensure(resource, desired)).action is Action.CREATED
        writes = len(bench.cluster.writes)
        assert (await bench.applier.ensure(resource, desired)).action is Action.UNCHANGED
        assert len(bench.cluster.writes) == writes
    await bench.cluster.client.patch(CONFIG_MAPS, "c", {"data": {"b": "2"}}, namespace="d")
    assert (await bench.applier.ensure(CONFIG_MAPS, config)).action is Action.CLEANED
    assert (await bench.cluster.client.get(CONFIG_MAPS, "c", "d"))["data"] == {"a": "1"}


async def _gone(bench: Bench) -> None:
    while bench.cache.known(DEPLOYMENTS, KEY) is not None:
        await asyncio.sleep(0.01)
