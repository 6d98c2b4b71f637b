"""Of every valid Deployment with every sort of Service the plan is valid too, and a true copy."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandlane.kube.resource import Object
from sandlane.sandbox.plan import Plan, make_plan
from sandlane.world.world import World
from support.thorough import cases
from support.valid import deployment, problems, service

REWRITTEN = ("containers", "initContainers", "affinity", "topologySpreadConstraints")
KEPT = ["^own$", "^team$", "^tier$", "^app"]


@st.composite
def worlds(draw: st.DrawFn) -> list[Object]:
    """A sandbox of one or two of two Deployments, with Services around them."""
    names = ["route", "driver"]
    objects = [
        draw(deployment(name, namespace="rides", uid=f"uid-{name}", generation=1, labels={"argocd": "x"}))
        for name in names
    ]
    for index in range(draw(st.integers(0, 3))):
        objects.append(draw(service(f"s{index}", draw(st.sampled_from(names)), namespace="rides")))
    forks = []
    for name in names[: draw(st.integers(1, 2))]:
        fork: Object = {"forkOf": {"name": name}}
        fork["preservedLabels"] = draw(st.lists(st.sampled_from(KEPT), max_size=1))
        image = {"container": "main", "image": "registry.test/new:2"}
        env = [{"name": "A", "value": "2"}, {"name": "B", "operation": "delete"}]
        fork["customizations"] = {"images": [image], "env": env, "replicas": draw(st.integers(0, 2))}
        fork["resources"] = {"limits": {"cpu": "2"}, "requests": {"memory": "32Mi"}}
        forks.append(fork)
    metadata = {"name": "new-eta", "namespace": "rides", "uid": "u", "generation": 1}
    return [
        {"apiVersion": "sandlane.dev/v1alpha1", "kind": "Sandbox", "metadata": metadata, "spec": {"forks": forks}},
        *objects,
    ]


def planned(objects: list[Object]) -> Plan:
    """The plan of the only sandbox."""
    world = World.of(objects)
    return make_plan(world, world.sandboxes.list()[0])


def turned(value: Any) -> Any:
    """The same with the keys of all maps in another order."""
    if isinstance(value, dict):
        return {key: turned(value[key]) for key in reversed(value)}
    return [turned(each) for each in value] if isinstance(value, list) else value


@given(worlds())
@settings(max_examples=cases(20), suppress_health_check=[HealthCheck.too_slow])
def test_plans_of_valid_manifests(objects: list[Object]) -> None:
    """What is planned is valid, selected by no Service but its own, a function of the world, and a copy in all that stays."""
    assert not [problem for obj in objects[1:] for problem in problems(obj)]
    plan = planned(objects)
    names = [(obj["kind"], obj["metadata"]["name"]) for _, obj in plan.objects]
    assert len(set(names)) == len(names)
    assert all(len(name) <= 63 for _, name in names)
    assert planned(objects).objects == plan.objects == planned([turned(obj) for obj in reversed(objects)]).objects
    services = [obj for obj in objects if obj["kind"] == "Service"]
    for _, obj in plan.objects:
        assert problems(obj) == []
        if obj["kind"] == "Deployment":
            labels = obj["spec"]["template"]["metadata"]["labels"]
            for other in services:
                selector = other["spec"].get("selector")
                if other["spec"].get("type") != "ExternalName" and selector:
                    assert not selector.items() <= labels.items()
    baselines = {obj["metadata"]["name"]: obj["spec"] for obj in objects if obj["kind"] == "Deployment"}
    for fork in plan.forks:
        if fork.deployment is not None:
            check_copy(baselines[fork.reference.name]["template"]["spec"], fork.deployment["spec"]["template"]["spec"])


def check_copy(before: Object, after: Object) -> None:
    """The copied Pod has everything of the baseline's, but what is its own."""
    for field in before.keys() - {*REWRITTEN}:
        assert after[field] == before[field], field
    assert set(after) == set(before)
    for kind in ("containers", "initContainers"):
        for old, new in zip(before.get(kind, []), after.get(kind, []), strict=True):
            for field in old.keys() - {"image", "env", "ports", "resources"}:
                assert new[field] == old[field], field
            numbers = [(port["name"], port["containerPort"], port["protocol"]) for port in old.get("ports", [])]
            assert [(port["name"], port["containerPort"], port["protocol"]) for port in new.get("ports", [])] == numbers
            assert [each["name"] for each in new["env"][:3]] == [
                "SANDLANE_SANDBOX",
                "SANDLANE_ROUTING_KEY",
                "SANDLANE_BASELINE",
            ]
            assert not [port for port in new.get("ports", []) if "hostPort" in port]
