"""Whatever goes wrong on the way, a sandbox ends in the same world."""

from __future__ import annotations

from typing import Any

import pytest

from sandlane.api.crd import definitions
from sandlane.kube.client import Client, PatchType
from sandlane.kube.resource import DEPLOYMENTS, SANDBOXES, Object
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


BASE = (*definitions(), deployment(), service(), deployment("driver"), service("driver"))
LOCAL = {"name": "laptop", "from": {"name": "driver"}, "mappings": [{"port": 8083, "to": "localhost:1"}]}
ROWS: dict[str, list[Step]] = {
    "one-fork": [create(sandbox("new-eta", fork(images=[{"image": "rides/route:2"}])))],
    "two-forks-one-removed": [create(sandbox("new-eta", fork(), fork("driver"))), change(forks=[fork()])],
    "changed": [create(sandbox()), change(forks=[fork(env=[{"name": "A", "value": "1"}], replicas=2)])],
    "deleted": [create(sandbox()), delete],
    "suspended": [create(sandbox()), change(suspended=True)],
    "baseline-rolled": [create(sandbox()), roll_baseline],
    "baseline-deleted": [create(sandbox()), delete_baseline],
    "refused-then-right": [create(sandbox("new-eta", fork() | {"preservedLabels": ["app"]})), change(forks=[fork()])],
    "local": [create(sandbox("new-eta", fork(), local=[LOCAL]))],
}


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS)
async def test_ends_in_the_same_world(row: str) -> None:
    """Crashes after every write, failing calls, broken watches and stale restarts change nothing in the end."""
    harness = Harness(build, objects=BASE, steps=ROWS[row], environment=PretendDeployments, limit=24)
    report = await harness.check()
    assert report.writes or row == "nothing"


async def test_the_undisturbed_world_is_the_wanted_one() -> None:
    """The world that all schedules are compared with is the one that the user asked for."""
    harness = Harness(build, objects=BASE, steps=ROWS["one-fork"], environment=PretendDeployments, limit=2)
    report = await harness.check()
    assert report.world[f"Sandbox {NAMESPACE}/new-eta"]["status"]["phase"] == "Ready"
    kinds = [name.split()[0] for name in report.world if "new-eta" in name]
    assert sorted(kinds) == ["Deployment", "Sandbox", "Service"]
