"""The subresource `scale`: whoever applies it manages the replicas, and is in nobody's way unseen."""

from __future__ import annotations

import msgspec
import pytest

from sandlane.kube.errors import Conflict
from sandlane.kube.resource import DEPLOYMENTS
from sandlane.kube.transport import Request
from sandlane.testing.cluster import FakeCluster
from support.workloads import deployment


def applied(manager: str, replicas: int, *, force: bool = False) -> Request:
    """A server-side apply of a Scale."""
    scale = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "app", "namespace": "rides"}}
    body = msgspec.json.encode({**scale, "spec": {"replicas": replicas}})
    query = (("fieldManager", manager), ("force", str(force).lower()))
    headers = {"content-type": "application/apply-patch+yaml"}
    return Request("PATCH", DEPLOYMENTS.path("rides", "app", "scale"), query, headers, body)


async def test_replicas_have_a_manager() -> None:
    """Another one's replicas are only taken by force; the record names the subresource."""
    async with FakeCluster.with_objects(deployment(replicas=2)) as cluster:
        with pytest.raises(Conflict, match="conflict"):
            await cluster.client.request(applied("autoscaler", 5))
        answer = await cluster.client.request(applied("autoscaler", 5, force=True))
        assert msgspec.json.decode(answer.body)["spec"]["replicas"] == 5
        live = await cluster.client.get(DEPLOYMENTS, "app", "rides")
        assert live["spec"]["replicas"] == 5
        records = [(r["manager"], r["operation"], r.get("subresource")) for r in live["metadata"]["managedFields"]]
        assert ("autoscaler", "Apply", "scale") in records
        with pytest.raises(Conflict, match="autoscaler"):
            await cluster.client.request(applied("other", 7))
