"""What a LocalWorkload needs before it can stand in for its workload."""

from __future__ import annotations

from typing import Any

import pytest

from sandlane.kube.resource import Key
from sandlane.localworkload.plan import check
from sandlane.world.records import LocalWorkload
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


def test_a_port_of_a_sidecar_is_one_of_the_workload() -> None:
    """An init container that keeps running has ports like any container; one that ends has none."""
    baseline = deployment()
    baseline["spec"]["template"]["spec"]["initContainers"] = [
        {"name": "proxy", "restartPolicy": "Always", "ports": [{"containerPort": 8085}]},
        {"name": "once", "ports": [{"containerPort": 8086}]},
    ]
    for port, accepted in ((8085, True), (8086, False)):
        world = World.of([local(mappings=[{"port": port, "to": "localhost:1"}]), sandbox(), baseline])
        assert (check(world, found_in(world)) is None) is accepted


def tcp_service(**port: Any) -> dict[str, Any]:
    ports = [{"port": 5432, "targetPort": "http", "protocol": "TCP"} | port]
    spec = {"selector": {"app": "eta"}, "ports": ports}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "db", "namespace": "n", "uid": "v"},
        "spec": spec,
    }


@pytest.mark.parametrize("port", [{"name": "postgres"}, {"name": "x", "appProtocol": "tcp"}])
def test_plain_tcp_has_to_be_meant(port: dict[str, Any]) -> None:
    """A port whose connections carry no key is refused, unless the mapping says that it takes everybody's."""
    objects = [sandbox(), deployment(), tcp_service(**port)]
    world = World.of([local(), *objects])
    problem = check(world, found_in(world))
    assert problem is not None
    assert "Service db (port 5432)" in problem.message
    world = World.of([local(mappings=[{"port": 8084, "to": "localhost:1", "allConnections": True}]), *objects])
    assert check(world, found_in(world)) is None


def found_in(world: World) -> LocalWorkload:
    found = world.local_workloads.get(Key("n", "l"))
    assert found is not None
    return found
