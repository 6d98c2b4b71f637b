"""Whatever goes wrong on the way, a sandbox ends in the same world."""

from __future__ import annotations

from typing import Any

import pytest

from sandlane.api.crd import definitions
from sandlane.api.labels import SANDBOX
from sandlane.kube.client import Client, PatchType
from sandlane.kube.resource import DEPLOYMENTS, SANDBOXES, SERVICES, Object
from sandlane.testing.harness import Harness, Step
from support.sandboxes import NAMESPACE, PretendDeployments, build, deployment, fork, sandbox, service


def create(obj: Object) -> Step:
    """A user applies something."""
    return lambda client: client.create(SANDBOXES, obj)


def change(**spec: Any) -> Step:
    """A user edits the sandbox."""
    return lambda client: client.patch(SANDBOXES, "new-eta", {"spec": spec}, namespace=NAMESPACE)


async def delete(client: Client) -> None:
    """A user deletes the sandbox."""
    await client.delete(SANDBOXES, "new-eta", NAMESPACE)


async def roll_baseline(client: Client) -> None:
    """Somebody deploys a new version of the baseline."""
    patch = [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "rides/route:7"}]
    await client.patch(DEPLOYMENTS, "route", patch, namespace=NAMESPACE, patch_type=PatchType.JSON)


async def delete_baseline(client: Client) -> None:
    """Somebody deletes the baseline."""
    await client.delete(DEPLOYMENTS, "route", NAMESPACE)


async def redeploy_baseline(client: Client) -> None:
    """Somebody deletes the baseline and makes another one of the same name."""
    await client.delete(DEPLOYMENTS, "route", NAMESPACE)
    await client.create(DEPLOYMENTS, deployment(minReadySeconds=3))


async def fork_of(client: Client) -> Object:
    """The only fork's Deployment."""
    live = (await client.list(DEPLOYMENTS, NAMESPACE, label_selector=f"{SANDBOX}=new-eta")).items
    assert len(live) == 1
    return live[0]


async def meddle(client: Client) -> None:
    """Somebody edits the fork and adds to it, and deletes its Service."""
    name = (await fork_of(client))["metadata"]["name"]
    patch = {"metadata": {"labels": {"stranger": "x"}}, "spec": {"replicas": 5}}
    await client.patch(DEPLOYMENTS, name, patch, namespace=NAMESPACE)
    for each in (await client.list(SERVICES, NAMESPACE, label_selector=f"{SANDBOX}=new-eta")).items:
        await client.delete(SERVICES, each["metadata"]["name"], NAMESPACE)


async def disown(client: Client) -> None:
    """Somebody takes the fork's Deployment for theirs."""
    patch = [{"op": "remove", "path": "/metadata/ownerReferences"}]
    name = (await fork_of(client))["metadata"]["name"]
    await client.patch(DEPLOYMENTS, name, patch, namespace=NAMESPACE, patch_type=PatchType.JSON)


async def strip_finalizer(client: Client) -> None:
    """Somebody takes our finalizer off a sandbox that lives on."""
    await client.patch(SANDBOXES, "new-eta", {"metadata": {"finalizers": []}}, namespace=NAMESPACE)


async def open_service(client: Client) -> None:
    """The owner of the Service adds a port."""
    ports = [{"name": "http", "port": 80, "targetPort": "http"}, {"name": "admin", "port": 81, "targetPort": 9000}]
    await client.patch(SERVICES, "route", {"spec": {"ports": ports}}, namespace=NAMESPACE)


BASE = (*definitions(), deployment(), service(), deployment("driver"), service("driver"))
BAD = {"op": "replace", "path": "/spec/none", "value": 1}
LOCAL = {"name": "laptop", "from": {"name": "driver"}, "mappings": [{"port": 8083, "to": "localhost:1"}]}
MADE = create(sandbox())
"""The first step of most rows; `one-fork` has it, too."""
ROWS: dict[str, list[Step]] = {
    "one-fork": [create(sandbox("new-eta", fork(images=[{"image": "rides/route:2"}])))],
    "two-forks-one-removed": [create(sandbox("new-eta", fork(), fork("driver"))), change(forks=[fork()])],
    "changed": [MADE, change(forks=[fork(env=[{"name": "A", "value": "1"}], replicas=2)])],
    "deleted": [MADE, delete],
    "suspended": [MADE, change(suspended=True)],
    "baseline-rolled": [MADE, roll_baseline],
    "baseline-deleted": [MADE, delete_baseline],
    "refused-then-right": [create(sandbox("new-eta", fork() | {"preservedLabels": ["app"]})), change(forks=[fork()])],
    "baseline-made-again": [MADE, redeploy_baseline],
    "service-changed": [MADE, open_service],
    "drift": [MADE, meddle],
    "not-owned": [MADE, disown],
    "finalizer-taken-off": [MADE, strip_finalizer],
    "patch-that-does-not-fit": [MADE, change(forks=[fork(patch={"type": "json", "value": [BAD]})])],
    "resumed": [create(sandbox("new-eta", fork(), suspended=True)), change(suspended=False)],
    "local": [create(sandbox("new-eta", fork(), local=[LOCAL]))],
}


SCHEDULES = 6


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS)
async def test_ends_in_the_same_world(row: str) -> None:
    """Crashes after every write, failing calls, broken watches and stale restarts change nothing in the end."""
    known = 1 if ROWS[row][0] is MADE else 0
    seed = list(ROWS).index(row)
    harness = Harness(
        build, objects=BASE, steps=ROWS[row], environment=PretendDeployments, limit=SCHEDULES, known=known, seed=seed
    )
    report = await harness.check()
    assert report.writes or row == "nothing"


async def test_the_undisturbed_world_is_the_wanted_one() -> None:
    """The world that all schedules are compared with is the one that the user asked for."""
    world = await Harness(build, objects=BASE, steps=ROWS["one-fork"], environment=PretendDeployments).undisturbed()
    assert world[f"Sandbox {NAMESPACE}/new-eta"]["status"]["phase"] == "Ready"
    kinds = [name.split()[0] for name in world if "new-eta" in name]
    assert sorted(kinds) == ["Deployment", "Sandbox", "Service"]
