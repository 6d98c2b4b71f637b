"""What holds for every baseline, whatever it looks like."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sandlane.kube.resource import Object
from sandlane.sandbox.plan import Plan, make_plan
from sandlane.world.records import Service
from sandlane.world.world import World
from support.thorough import cases

NAMES = st.from_regex(r"[a-z]([-a-z0-9]{0,60}[a-z0-9])?", fullmatch=True)
LABELS = st.dictionaries(
    st.sampled_from(["app", "tier", "version", "part-of", "team"]), st.sampled_from("abc"), min_size=1
)
PORTS = st.lists(
    st.fixed_dictionaries(
        {"containerPort": st.integers(1, 65535)},
        optional={"name": st.sampled_from(["http", "grpc", "web"]), "protocol": st.sampled_from(["TCP", "UDP"])},
    ),
    max_size=3,
)
UNKNOWN = st.dictionaries(
    st.from_regex(r"x[a-z]{3,8}", fullmatch=True),
    st.recursive(st.booleans() | st.integers(-5, 5) | st.text(max_size=5), lambda inner: st.lists(inner, max_size=2)),
    max_size=3,
)


@st.composite
def containers(draw: st.DrawFn, names: list[str]) -> list[Object]:
    """Containers with ports, env and fields that nobody knows."""
    found = []
    for name in names:
        env = draw(
            st.lists(st.fixed_dictionaries({"name": st.sampled_from("ABC"), "value": st.text(max_size=3)}), max_size=3)
        )
        found.append({"name": name, "image": f"{name}:1", "ports": draw(PORTS), "env": env} | draw(UNKNOWN))
    return found


@st.composite
def worlds(draw: st.DrawFn) -> list[Object]:
    """A sandbox that forks one or two Deployments, with Services that select by their labels."""
    names = draw(st.lists(NAMES, min_size=1, max_size=2, unique=True))
    objects: list[Object] = []
    for name in names:
        labels = draw(LABELS) | {"own": name[:63]}
        template = {
            "metadata": {"labels": labels},
            "spec": {"containers": draw(containers(draw(st.sampled_from([["main"], ["main", "side"]]))))}
            | draw(UNKNOWN),
        }
        spec = {"selector": {"matchLabels": labels}, "template": template}
        objects.append(_object("apps/v1", "Deployment", name, spec))
    for index in range(draw(st.integers(0, 3))):
        ports = [
            {"name": f"p{port}", "port": port, "targetPort": draw(st.sampled_from(["http", "grpc", 80, 8080]))}
            for port in draw(st.lists(st.integers(1, 99), min_size=1, max_size=3, unique=True))
        ]
        selector = draw(st.one_of(LABELS, st.sampled_from([{"own": name[:63]} for name in names])))
        objects.append(_object("v1", "Service", f"s{index}", {"selector": selector, "ports": ports}))
    kept = draw(st.lists(st.sampled_from(["^app$", "tier", "team|version"]), max_size=2, unique=True))
    env = draw(
        st.lists(
            st.fixed_dictionaries({"name": st.sampled_from("ABCD"), "value": st.text(max_size=3)}),
            max_size=2,
            unique_by=lambda e: e["name"],
        )
    )
    forks = [{"forkOf": {"name": name}, "customizations": {"env": env}, "preservedLabels": kept} for name in names]
    sandbox = _object(
        "sandlane.dev/v1alpha1",
        "Sandbox",
        draw(st.from_regex(r"[a-z][-a-z0-9]{0,28}[a-z0-9]", fullmatch=True)),
        {"forks": forks},
    )
    return [sandbox, *objects]


def _object(api: str, kind: str, name: str, spec: Any) -> Object:
    metadata = {"name": name, "namespace": "rides", "uid": f"uid-{kind}-{name}", "generation": 1}
    return {"apiVersion": api, "kind": kind, "metadata": metadata, "spec": spec}


def planned(objects: list[Object]) -> tuple[World, Plan]:
    """The world and the plan of its sandbox."""
    world = World.of(objects)
    return world, make_plan(world, world.sandboxes.list()[0])


def selected(service: Service, labels: dict[str, str]) -> bool:
    """Whether a Service selects Pods, by Kubernetes' own rule."""
    return bool(service.spec.selector) and all(labels.get(k) == v for k, v in (service.spec.selector or {}).items())


@given(worlds())
@settings(max_examples=cases(20))
def test_no_baseline_service_selects_a_fork(objects: list[Object]) -> None:
    """No Service of the baseline selects the Pods of a fork, and each fork's Service selects that fork only."""
    world, plan = planned(objects)
    for _, obj in plan.objects:
        if obj["kind"] != "Deployment":
            continue
        labels = obj["spec"]["template"]["metadata"]["labels"]
        assert not [service.metadata.name for service in world.services if selected(service, labels)]
        assert obj["spec"]["selector"]["matchLabels"].items() <= labels.items()
    selectors = [json.dumps(obj["spec"]["selector"]) for _, obj in plan.objects if obj["kind"] == "Deployment"]
    assert len(set(selectors)) == len(selectors)


@given(worlds())
@settings(max_examples=cases(20))
def test_names_are_short_and_unique(objects: list[Object]) -> None:
    """Every name is a DNS label of at most 63 characters, and no two objects of a kind share one."""
    _, plan = planned(objects)
    names = [(obj["kind"], obj["metadata"]["name"]) for _, obj in plan.objects]
    assert len(set(names)) == len(names)
    for _, name in names:
        assert len(name) <= 63
        assert name[0].isalpha()
        assert name[-1].isalnum()
        assert name == name.lower()
    values = [value for _, obj in plan.objects for value in obj["metadata"]["labels"].values()]
    assert all(len(value) <= 63 for value in values)


def shuffled(value: Any) -> Any:
    """The same value with the keys of all maps in another order."""
    if isinstance(value, dict):
        return {key: shuffled(value[key]) for key in sorted(value, reverse=True)}
    return [shuffled(each) for each in value] if isinstance(value, list) else value


@given(worlds())
@settings(max_examples=cases(20))
def test_the_plan_is_a_function_of_the_world(objects: list[Object]) -> None:
    """Neither the order of keys nor that of objects nor planning again changes anything."""
    _, plan = planned(objects)
    _, again = planned(objects)
    _, other = planned([shuffled(each) for each in reversed(objects)])
    assert plan.objects == again.objects == other.objects


@given(worlds())
@settings(max_examples=cases(20))
def test_what_nobody_knows_survives(objects: list[Object]) -> None:
    """Fields of the Pod template that Sandlane does not know are copied."""
    _, plan = planned(objects)
    templates = {o["metadata"]["name"]: o["spec"]["template"]["spec"] for o in objects if o["kind"] == "Deployment"}
    for fork in plan.forks:
        if fork.deployment is None:
            continue
        baseline, copy = templates[fork.reference.name], fork.deployment["spec"]["template"]["spec"]
        for key, value in baseline.items():
            if key.startswith("x"):
                assert copy[key] == value
        for before, after in zip(baseline["containers"], copy["containers"], strict=True):
            assert {k: v for k, v in before.items() if k.startswith("x")}.items() <= after.items()
