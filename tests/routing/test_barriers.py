"""A Service is not turned where NetworkPolicies would then keep its callers from its baseline; and is where they would not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from sandlane.api.labels import ROUTER_PODS
from sandlane.kube.resource import Key, Object
from sandlane.routing.barriers import barrier
from sandlane.world.world import World, original
from support.routed import baseline

ANYONE: Object = {"podSelector": {}}
ANYWHERE: Object = {"namespaceSelector": {}}
BASELINE = {"podSelector": {"matchLabels": {"app": "eta"}}}
CALLER = {"podSelector": {"matchLabels": {"app": "web", "tier": "front"}}}
FRONT = {"podSelector": {"matchExpressions": [{"key": "tier", "operator": "In", "values": ["front", "edge"]}]}}
ROUTER = {"podSelector": {"matchLabels": {"sandlane.dev/router": "true"}}}
MAPS = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "maps"}}}
HERE = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "n"}}}


def policy(name: str, direction: str, selected: Object, *rules: Object, namespace: str = "n") -> Object:
    """A NetworkPolicy of one direction."""
    spec = {"policyTypes": [direction], direction.lower(): list(rules)} | selected
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


def into(selected: Object, *peers: Object, name: str = "in", **rule: Any) -> Object:
    """These may come in."""
    return policy(name, "Ingress", selected, ({"from": list(peers)} if peers else {}) | rule)


def out(selected: Object, *peers: Object, name: str = "out", namespace: str = "n", **rule: Any) -> Object:
    """There they may go."""
    return policy(name, "Egress", selected, ({"to": list(peers)} if peers else {}) | rule, namespace=namespace)


def block(cidr: str, *excepted: str) -> Object:
    """Addresses."""
    return {"ipBlock": {"cidr": cidr} | ({"except": list(excepted)} if excepted else {})}


ROUTER_POD: Object = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "sandlane-router-0", "namespace": "n", "labels": ROUTER_PODS},
    "status": {"podIP": "10.1.0.9"},
}
DENY_IN, DENY_OUT = policy("deny", "Ingress", ANYONE), policy("deny", "Egress", ANYONE)
TO_ROUTER = into(ROUTER, name="router")
DOORS = [{"port": 20000, "endPort": 29999}]
OPEN: dict[str, list[Object]] = {
    "no policy": [],
    "policies about others": [into(CALLER), out(CALLER, CALLER, name="x")],
    "everyone in the namespace": [into(ANYONE, ANYONE)],
    "everyone in the namespace, written otherwise": [into(BASELINE, ANYONE), into(ROUTER, HERE, name="router")],
    "everyone everywhere": [into(ANYONE)],
    "callers reach both": [DENY_IN, into(BASELINE, CALLER, ROUTER), into(ROUTER, CALLER, name="router")],
    "callers reach both, by rules of their own": [
        into(BASELINE, CALLER),
        into(BASELINE, ROUTER, name="r"),
        into(ROUTER, CALLER, name="router"),
    ],
    "wider selectors before the router": [into(BASELINE, CALLER, ROUTER), into(ROUTER, FRONT, name="router")],
    "wider namespaces before the router": [
        into(BASELINE, MAPS | CALLER, ROUTER),
        into(ROUTER, ANYWHERE | FRONT, name="router"),
    ],
    "own namespace by name": [into(BASELINE, HERE | CALLER, ROUTER), into(ROUTER, CALLER, name="router")],
    "own namespace among others": [into(BASELINE, CALLER, ROUTER), into(ROUTER, ANYWHERE | CALLER, name="router")],
    "the router's ports": [into(BASELINE, CALLER, ROUTER), into(ROUTER, CALLER, name="router", ports=DOORS)],
    "wider blocks before the router": [
        into(BASELINE, block("192.0.2.0/25", "192.0.2.7/32"), ROUTER),
        into(ROUTER, block("192.0.2.0/24", "192.0.2.7/32"), name="router"),
    ],
    "the router is in the block": [into(BASELINE, block("10.1.0.0/16")), TO_ROUTER],
    "a port that is not behind the Service": [
        into(BASELINE, CALLER, ports=[{"port": 1}]),
        into(BASELINE, ROUTER, name="r"),
    ],
    "callers go anywhere": [out(CALLER)],
    "callers go to both": [out(CALLER, BASELINE), out(CALLER, ROUTER, name="also")],
    "callers go to the namespace": [out(ANYONE, ANYONE)],
    "callers go to both, one of them by a wider policy": [out(CALLER, BASELINE), out(FRONT, ROUTER, name="also")],
    "callers go elsewhere": [out(CALLER, CALLER, ports=[{"port": 1}])],
    "other namespaces go to both": [out(CALLER, HERE | BASELINE, HERE | ROUTER, namespace="maps")],
    "other namespaces go elsewhere": [
        out(CALLER, HERE | CALLER, namespace="maps"),
        out(CALLER, BASELINE, namespace="a"),
    ],
    "the router goes out": [DENY_OUT, out(ROUTER, BASELINE)],
}
SHUT: dict[str, tuple[str, list[Object]]] = {
    "nobody comes in": ("deny lets no router reach", [DENY_IN]),
    "callers only": ("in lets no router reach", [into(BASELINE, CALLER), TO_ROUTER]),
    "the router at another port": (
        "in lets no router reach",
        [into(BASELINE, CALLER), into(BASELINE, ROUTER, name="r", ports=[{"port": 1}]), TO_ROUTER],
    ),
    "routers of another namespace": ("in lets no router reach", [into(BASELINE, MAPS | ROUTER), TO_ROUTER]),
    "the router is not in the block": ("in lets no router reach", [into(BASELINE, block("192.0.2.0/24")), TO_ROUTER]),
    "the router may not go out": ("deny does not let the router's Pods reach", [DENY_OUT]),
    "the router may go to the internet": (
        "net does not let the router's Pods reach",
        [out(ANYONE, block("0.0.0.0/0", "10.0.0.0/8"), name="net")],
    ),
    "nobody reaches the router": ("in lets callers reach", [DENY_IN, into(BASELINE, CALLER, ROUTER)]),
    "fewer reach the router": (
        "in lets callers reach",
        [into(BASELINE, FRONT, ROUTER), into(ROUTER, CALLER, name="router")],
    ),
    "own ones reach the router": (
        "in lets callers reach",
        [into(BASELINE, MAPS, ROUTER), into(ROUTER, ANYONE, name="r")],
    ),
    "others reach the router": (
        "in lets callers reach",
        [into(BASELINE, CALLER, ROUTER), into(ROUTER, MAPS | CALLER, name="router")],
    ),
    "another namespace reaches the router": (
        "in lets callers reach",
        [into(BASELINE, HERE | CALLER, ROUTER), into(ROUTER, MAPS | CALLER, name="router")],
    ),
    "blocks of another family": (
        "in lets callers reach",
        [into(BASELINE, block("2001:db8::/32"), ROUTER), into(ROUTER, block("0.0.0.0/0"), name="r")],
    ),
    "blocks that are none": ("in lets no router reach", [into(BASELINE, block("nonsense"))]),
    "everyone reached the baseline": ("router lets callers reach", [into(ROUTER, ANYONE, name="router")]),
    "the baseline's port alone": ("in lets callers reach", [into(ANYONE, ANYONE, ports=[{"port": 8084}])]),
    "the baseline's port by name": ("in lets callers reach", [into(ANYONE, ANYONE, ports=[{"port": "http"}])]),
    "blocks alone": (
        "in lets callers reach",
        [into(BASELINE, block("192.0.2.0/24"), ROUTER), into(ROUTER, ANYONE, name="r")],
    ),
    "callers go to the baseline only": ("out lets callers reach", [out(CALLER, BASELINE)]),
    "callers go to one port": ("out lets callers reach", [out(CALLER, ports=[{"port": 8084}])]),
    "callers go to the namespace at one port": (
        "out lets callers reach",
        [out(ANYONE, ANYONE, ports=[{"port": 8084}])],
    ),
    "fewer callers go to the router": ("out lets callers reach", [out(FRONT, BASELINE), out(CALLER, ROUTER, name="r")]),
    "other namespaces go to the baseline only": (
        "maps/out lets callers reach",
        [out(CALLER, HERE | BASELINE, namespace="maps")],
    ),
}


def found(*policies: Object, turned: bool = False) -> str:
    """What is in the way."""
    world = World.of([*baseline(turned=turned), ROUTER_POD, *policies])
    service = world.services.get(Key("n", "eta"))
    assert service is not None
    return barrier(world, original(service))


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("case", OPEN)
def test_services_that_may_be_turned(case: str, turned: bool) -> None:
    """Every caller that reaches the baseline now reaches it through the router, too."""
    assert found(*OPEN[case], turned=turned) == ""


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("case", SHUT)
def test_services_that_must_not_be_turned(case: str, turned: bool) -> None:
    """Some caller would be cut off, or the router would be; the policy at fault is named, and the labels that it lacks."""
    words, policies = SHUT[case]
    why = found(*policies, turned=turned)
    assert f"NetworkPolicy {words}" in why
    assert "Service eta is not turned to the router" in why
    assert "sandlane.dev/router=true" in why


def test_the_documented_policies_open_what_is_denied_by_default() -> None:
    """The policies of the manual let a Service be turned in a namespace that denies everything else."""
    page = (Path(__file__).parents[2] / "docs" / "sandbox.md").read_text()
    text = page[page.index("## NetworkPolicies") :].split("```yaml")[1].split("```")[0]
    shown = list(yaml.safe_load_all(text.replace("namespace: rides", "namespace: n")))
    apart = [DENY_IN, DENY_OUT | {"metadata": {"name": "deny-out", "namespace": "n"}}]
    callers = [into(BASELINE, CALLER, name="in"), out(CALLER, BASELINE, name="out")]
    assert found(*apart, *callers) != ""
    assert found(*apart, *callers, *shown) == ""


def test_pods_of_other_workloads_are_known_by_the_selector() -> None:
    """What is behind a Service may be no Deployment: then a policy that selects by its selector counts."""
    objects = [each for each in baseline(turned=False) if each["kind"] != "Deployment"]
    service = World.of(objects).services.list()[0]
    assert "lets no router reach its Pods" in barrier(World.of([*objects, into(BASELINE, CALLER)]), service)
    assert barrier(World.of([*objects, into(CALLER, CALLER)]), service) == ""
