"""What a LocalWorkload needs before it can stand in for its workload."""

from __future__ import annotations

from typing import Any

import pytest

from sandlane.kube.resource import Key
from sandlane.localworkload.plan import check
from sandlane.world.world import World


def local(**spec: Any) -> dict[str, Any]:
    wanted = {
        "sandbox": "a",
        "from": {"kind": "Deployment", "name": "eta"},
        "mappings": [{"port": 8084, "to": "localhost:1"}],
    }
    return {
        "apiVersion": "sandlane.dev/v1alpha1",
        "kind": "LocalWorkload",
        "metadata": {"name": "l", "namespace": "n", "uid": "u"},
        "spec": wanted | spec,
    }


def sandbox(*forks: str) -> dict[str, Any]:
    return {
        "apiVersion": "sandlane.dev/v1alpha1",
        "kind": "Sandbox",
        "metadata": {"name": "a", "namespace": "n", "uid": "s"},
        "spec": {"forks": [{"forkOf": {"kind": "Deployment", "name": name}} for name in forks]},
    }


def deployment() -> dict[str, Any]:
    containers = [{"name": "eta", "ports": [{"name": "http", "containerPort": 8084}]}]
    labels = {"app": "eta"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "eta", "namespace": "n", "uid": "d"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
        },
    }


@pytest.mark.parametrize(
    ("objects", "reason", "words"),
    [
        ([local(), deployment()], "SandboxNotFound", "there is no Sandbox a"),
        ([local(), sandbox()], "BaselineNotFound", "there is no Deployment eta"),
        ([local(), sandbox("eta"), deployment()], "InvalidSpec", "forks Deployment eta"),
        (
            [local(mappings=[{"port": 1, "to": "x:1"}]), sandbox(), deployment()],
            "InvalidSpec",
            "no container port 1; it has 8084",
        ),
        ([local(mappings=[]), sandbox(), deployment()], "InvalidSpec", "at least one port"),
    ],
)
def test_refused(objects: list[dict[str, Any]], reason: str, words: str) -> None:
    """Each thing in the way is named with its reason and in words."""
    world = World.of(objects)
    found = world.local_workloads.get(Key("n", "l"))
    assert found is not None
    problem = check(world, found)
    assert problem is not None
    assert problem.reason == reason
    assert words in problem.message


def test_accepted() -> None:
    """With its sandbox, its baseline and a port that the baseline has, nothing is in the way."""
    world = World.of([local(), sandbox("other"), deployment()])
    found = world.local_workloads.get(Key("n", "l"))
    assert found is not None
    assert check(world, found) is None
