"""What `sandlane connect` makes is removed by the last client that holds it, and by nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from sandlane.api.crd import definitions
from sandlane.kube.resource import LOCAL_WORKLOADS, SANDBOXES, Object
from sandlane.laptop.errors import ConnectError
from sandlane.laptop.inbound import LocalTarget
from sandlane.laptop.joining import Joining
from sandlane.laptop.plan import Joined
from sandlane.testing.clock import ManualClock
from sandlane.testing.cluster import FakeCluster

V1 = "sandlane.dev/v1alpha1"


def sandbox(**spec: object) -> Object:
    return {
        "apiVersion": V1,
        "kind": "Sandbox",
        "metadata": {"name": "a", "namespace": "n"},
        "spec": {"forks": [], **spec},
    }


def deployment() -> Object:
    labels = {"app": "eta"}
    container = {"name": "eta", "image": "i", "ports": [{"containerPort": 8084}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "eta", "namespace": "n"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


@pytest.fixture
async def cluster() -> AsyncIterator[FakeCluster]:
    """A cluster with a sandbox and a baseline."""
    async with FakeCluster.with_objects(*definitions(), sandbox(), deployment()) as made:
        yield made


async def connect(cluster: FakeCluster, *, keep: bool = False) -> tuple[Joining, Joined]:
    joining = Joining(cluster.client, ManualClock(), keep=keep)
    [held] = await joining.sandbox("n", "a", "eta", [LocalTarget(8084, "127.0.0.1", 1)], "Fail")
    return joining, held


async def there(cluster: FakeCluster) -> list[str]:
    return [obj["metadata"]["name"] for obj in (await cluster.client.list(LOCAL_WORKLOADS, "n")).items]


async def test_who_takes_over_removes_it_at_the_end(cluster: FakeCluster) -> None:
    """The first client leaves it to the second one."""
    first, held = await connect(cluster)
    second, same = await connect(cluster)
    assert held == same
    first.spare(held)
    assert await first.leave() == []
    second.adopt(held)
    second.adopt(held)
    assert await second.leave() == ["LocalWorkload n/a-eta"]
    assert await there(cluster) == []


async def test_who_never_held_it_leaves_it_alone(cluster: FakeCluster) -> None:
    """A client that was refused removes nothing; the one that made it does."""
    first, _ = await connect(cluster)
    second, _ = await connect(cluster)
    assert await second.leave() == []
    assert await there(cluster) == ["a-eta"]
    assert await first.leave() == ["LocalWorkload n/a-eta"]
    assert await first.leave() == []


async def test_what_is_to_stay_stays(cluster: FakeCluster) -> None:
    """What was made to stay is no later client's to remove."""
    await connect(cluster, keep=True)
    second, held = await connect(cluster)
    second.adopt(held)
    assert await second.leave() == []
    assert await there(cluster) == ["a-eta"]


async def test_a_file_with_a_sandbox(cluster: FakeCluster) -> None:
    """One that is there with another spec is not touched; one that another client has made goes with its LocalWorkload."""
    local = {
        "name": "l",
        "from": {"kind": "Deployment", "name": "eta"},
        "mappings": [{"port": 8084, "to": "localhost:1"}],
    }
    document = sandbox(local=[local])
    with pytest.raises(ConnectError, match=r"Sandbox n/a is there already with another spec\.local"):
        await Joining(cluster.client, ManualClock()).documents([document])
    await cluster.client.delete(SANDBOXES, "a", "n")
    first, second = Joining(cluster.client, ManualClock()), Joining(cluster.client, ManualClock())
    await first._create(document)
    await second._create(document)
    held = Joined("n", "l", "u", "a", "eta", ())
    first.spare(held)
    second.adopt(held)
    assert (await first.leave(), await second.leave()) == ([], ["Sandbox n/a"])
