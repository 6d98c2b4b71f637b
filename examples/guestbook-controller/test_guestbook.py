"""How to test a controller: what it does for its user, and that nothing that goes wrong changes the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from guestbook import GUESTBOOKS, GuestbookController

from sandlane.kube.client import Client, PatchType
from sandlane.kube.resource import DEPLOYMENTS, Key, Object
from sandlane.runtime.result import Result
from sandlane.testing import FakeCluster, Harness, captured_events

CRD = yaml.safe_load((Path(__file__).parent / "crd.yaml").read_text())
BOOK: Object = {
    "apiVersion": "example.com/v1",
    "kind": "Guestbook",
    "metadata": {"name": "visitors", "namespace": "default"},
    "spec": {"size": 2},
}


async def test_one_reconcile() -> None:
    """A new Guestbook: a Deployment that it owns, as large as it says."""
    async with FakeCluster.with_objects(CRD, BOOK) as cluster:
        manager = cluster.manager()
        controller = GuestbookController(manager)
        async with cluster.synced(manager):
            assert await controller.reconcile(Key("default", "visitors")) == Result.done()
        made = await cluster.client.get(DEPLOYMENTS, "visitors", "default")
    assert made["spec"]["replicas"] == 2
    assert [owner["kind"] for owner in made["metadata"]["ownerReferences"]] == ["Guestbook"]
    assert [request.method for request in cluster.writes] == ["PATCH"]


async def pods_become_ready(client: Client) -> None:
    """What the Deployment's controller would report."""
    live = await client.get(DEPLOYMENTS, "visitors", "default")
    status = {"replicas": 2, "readyReplicas": 2, "availableReplicas": 2}
    await client.replace(DEPLOYMENTS, live | {"status": status}, subresource="status")


async def somebody_scales(client: Client) -> None:
    """Drift."""
    patch = {"spec": {"replicas": 7, "template": {"spec": {"nodeSelector": {"disk": "ssd"}}}}}
    await client.patch(DEPLOYMENTS, "visitors", patch, namespace="default", patch_type=PatchType.STRATEGIC)


async def new_image(client: Client) -> None:
    """The user changes the Guestbook."""
    await client.patch(GUESTBOOKS, "visitors", {"spec": {"image": "guestbook:2"}}, namespace="default")


async def test_whatever_goes_wrong_it_ends_in_the_same_world() -> None:
    """A Deployment as the Guestbook says, its status, one Event; drift is put back, changes are followed."""
    events: list[str] = []

    async def look(client: Client) -> None:
        events[:] = await captured_events(client, "default")

    steps: list[Any] = [look, pods_become_ready, somebody_scales, new_image]
    report = await Harness(GuestbookController, objects=[CRD, BOOK], steps=steps, limit=30).check()
    deployment = report.world["Deployment default/visitors"]
    assert deployment["spec"]["replicas"] == 2
    assert "nodeSelector" not in deployment["spec"]["template"]["spec"]
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "guestbook:2"
    assert report.world["Guestbook default/visitors"]["status"] == {"ready": 2}
    assert "Guestbook/visitors: Created" in events
    assert len(report.writes) == 5
