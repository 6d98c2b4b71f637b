"""Whatever goes wrong on the way, a route group ends in the same world."""

from __future__ import annotations

from typing import Any

import pytest

from sandlane.api.crd import definitions
from sandlane.kube.client import Client
from sandlane.kube.resource import ROUTE_GROUPS, SANDBOXES, Object, Resource
from sandlane.testing.harness import Harness, Step
from support.sandboxes import NAMESPACE, PretendDeployments, build, deployment, fork, group, sandbox, service


def create(*objects: Object) -> Step:
    """A user applies something. Sandboxes come first of all: names of what they own depend on their uids."""

    async def step(client: Client) -> None:
        for obj in objects:
            await client.create(SANDBOXES if obj["kind"] == "Sandbox" else ROUTE_GROUPS, obj)

    return step


def change(**spec: Any) -> Step:
    """A user edits the group."""
    return lambda client: client.patch(ROUTE_GROUPS, "both", {"spec": spec}, namespace=NAMESPACE)


def label(name: str, value: str) -> Step:
    """A user labels a sandbox."""
    patch = {"metadata": {"labels": {"feature": value}}}
    return lambda client: client.patch(SANDBOXES, name, patch, namespace=NAMESPACE)


def delete(resource: Resource, name: str) -> Step:
    """A user deletes something."""

    async def step(client: Client) -> None:
        await client.delete(resource, name, NAMESPACE)

    return step


BASE = (*definitions(), deployment(), service(), deployment("driver"), service("driver"))
ONE = sandbox("one", fork(), labels={"feature": "x1"}, routingKey="one")
TWO = sandbox("two", fork("driver"), labels={"feature": "x2"}, routingKey="two")
RIVAL = sandbox("two", fork(), labels={"feature": "x2"}, routingKey="two")
GROUP = group(routingKey="both")
ROWS: dict[str, list[Step]] = {
    "label-comes-and-goes": [create(ONE), create(GROUP), label("one", "y"), label("one", "x9")],
    "conflict": [create(ONE, RIVAL), create(GROUP)],
    "match-changed": [
        create(ONE, TWO),
        create(GROUP),
        change(match={"any": None, "label": {"key": "feature", "value": "x2"}}),
    ],
    "deleted": [create(ONE), create(GROUP), delete(SANDBOXES, "one"), delete(ROUTE_GROUPS, "both")],
    "key-taken": [create(), create(group("a", routingKey="k")), create(group(routingKey="k"))],
}


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS)
async def test_ends_in_the_same_world(row: str) -> None:
    """Crashes after every write, failing calls, broken watches and stale restarts change nothing in the end."""
    seed = list(ROWS).index(row)
    known = 1  # the first step makes sandboxes: what can go wrong in that is shown elsewhere
    harness = Harness(
        build, objects=BASE, steps=ROWS[row], environment=PretendDeployments, limit=5, seed=seed, known=known
    )
    report = await harness.check()
    assert report.writes
    if row == "match-changed":
        status = report.world[f"RouteGroup {NAMESPACE}/both"]["status"]
        assert [each["name"] for each in status["matchedSandboxes"]] == ["two"]
