"""ResourceQuota and LimitRange in the write pipeline."""

from __future__ import annotations

from typing import Any

import pytest

from sandlane.kube.errors import Forbidden
from sandlane.kube.resource import CONFIG_MAPS, PODS, SERVICES, Resource
from sandlane.testing.cluster import FakeCluster


def made(kind: str, name: str, **fields: Any) -> dict[str, Any]:
    """An object of the core group in the namespace `rides`."""
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "rides"}, **fields}


def pod(name: str, **resources: Any) -> dict[str, Any]:
    """A Pod with one container."""
    return made("Pod", name, spec={"containers": [{"name": "c", "image": "i", "resources": resources}]})


async def test_quota_refuses_what_is_over_it() -> None:
    """An object over a quota is refused with what was asked for, used and allowed; other namespaces are free."""
    quota = made("ResourceQuota", "q", spec={"hard": {"pods": "1", "count/configmaps": "0", "services.nodeports": "0"}})
    async with FakeCluster.with_objects(quota) as cluster:
        await cluster.client.create(PODS, pod("one"))
        with pytest.raises(Forbidden) as caught:
            await cluster.client.create(PODS, pod("two"))
        assert caught.value.message == (
            'pods "two" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1'
        )
        with pytest.raises(Forbidden, match="count/configmaps=1"):
            await cluster.client.create(CONFIG_MAPS, made("ConfigMap", "c"))
        await cluster.client.delete(PODS, "one", "rides", grace_seconds=0)
        await cluster.client.create(PODS, pod("two"))
        service = await cluster.client.create(SERVICES, made("Service", "s", spec={"ports": [{"port": 80}]}))
        service["spec"]["type"] = "NodePort"
        with pytest.raises(Forbidden, match=r"services\.nodeports=1"):
            await cluster.client.replace(SERVICES, service)
        elsewhere = made("ConfigMap", "c")
        elsewhere["metadata"]["namespace"] = "default"
        await cluster.client.create(CONFIG_MAPS, elsewhere)


async def test_limit_range_sets_and_refuses() -> None:
    """A Pod gets a range's defaults before its quota is asked, and is refused above the range's maximum."""
    limit = {"type": "Container", "default": {"memory": "64Mi"}, "max": {"memory": "128Mi"}}
    range_ = made("LimitRange", "l", spec={"limits": [limit]})
    quota = made("ResourceQuota", "q", spec={"hard": {"limits.memory": "1Gi"}})
    async with FakeCluster.with_objects(range_, quota) as cluster:
        small = await cluster.client.create(PODS, pod("small"))
        resources = small["spec"]["containers"][0]["resources"]
        assert resources == {"limits": {"memory": "64Mi"}, "requests": {"memory": "64Mi"}}
        with pytest.raises(Forbidden, match="maximum memory usage per Container is 128Mi, but limit is 1Gi"):
            await cluster.client.create(PODS, pod("large", limits={"memory": "1Gi"}))


async def test_the_classes_of_the_system_are_there() -> None:
    """Manifests of parts of a cluster name them, and tools look for them."""
    classes = Resource("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", False)
    async with FakeCluster() as cluster:
        found = {each["metadata"]["name"]: each["value"] for each in (await cluster.client.list(classes)).items}
    assert found == {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}
