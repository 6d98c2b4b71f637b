"""NetworkPolicies that cut off a fork from its router, or from what its baseline may reach, are recognised; others are not."""

from __future__ import annotations

from typing import Any

import pytest

from sandlane.kube.resource import Object
from sandlane.sandbox.plan import make_plan
from sandlane.sandbox.traffic import blocked, cut_off
from sandlane.world.world import World
from support.sandboxes import NAMESPACE, deployment, fork, sandbox, service

ROUTER = {"podSelector": {"matchLabels": {"sandlane.dev/router": "true"}}}
FORKS = {"podSelector": {"matchLabels": {"app.kubernetes.io/managed-by": "sandlane"}}}
FRONTEND = {"podSelector": {"matchLabels": {"app": "frontend"}}}
ROUTE = {"podSelector": {"matchLabels": {"app": "route"}}}
ANYONE: Object = {"podSelector": {}}
DATABASE = {"podSelector": {"matchLabels": {"app": "database"}}}


def policy(name: str, direction: str, selected: Object, *rules: Object) -> Object:
    """A NetworkPolicy of one direction."""
    spec = {"policyTypes": [direction], direction.lower(): list(rules)} | selected
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


def into(selected: Object, *peers: Object, name: str = "in", ports: Any = None) -> Object:
    """These may come in."""
    rule: Object = ({"from": list(peers)} if peers else {}) | ({"ports": ports} if ports else {})
    return policy(name, "Ingress", selected, rule)


def out(selected: Object, *peers: Object, name: str = "out", ports: Any = None) -> Object:
    """There they may go."""
    rule: Object = ({"to": list(peers)} if peers else {}) | ({"ports": ports} if ports else {})
    return policy(name, "Egress", selected, rule)


def found(*policies: Object, kept: str = "^none$", **spec: Any) -> tuple[str, str]:
    """What blocks the requests, and what the fork is cut off from, each as the policy's name."""
    obj = sandbox("new-eta", fork() | {"preservedLabels": [kept]})
    obj["metadata"]["uid"] = "u"
    labels = {"metadata": {"labels": {"app": "route", "team": "eta"}}}
    base = deployment(template=deployment()["spec"]["template"] | labels)
    world = World.of([obj, base, service(**spec), *policies])
    own = world.sandboxes.list()[0]
    plan = make_plan(world, own)
    problems = [blocked(world, own, plan), cut_off(world, own, plan)]
    blocking, cutting = (problem.message.split()[1] if problem else "" for problem in problems)
    assert all(problem is None or problem.reason == "PolicyBlocksTraffic" for problem in problems)
    return blocking, cutting


PORTS = [{"port": 8083}]
DENY_IN, DENY_OUT = policy("deny", "Ingress", ANYONE), policy("deny", "Egress", ANYONE)
CASES: dict[str, tuple[list[Object], tuple[str, str]]] = {
    "none": ([], ("", "")),
    "nobody comes in": ([DENY_IN], ("deny", "")),
    "the router reaches forks": ([DENY_IN, into(FORKS, ROUTER)], ("", "")),
    "the router reaches forks at another port": ([DENY_IN, into(FORKS, ROUTER, ports=[{"port": 1}])], ("deny", "")),
    "the router reaches forks at a named port": ([DENY_IN, into(FORKS, ROUTER, ports=[{"port": "http"}])], ("", "")),
    "routers of elsewhere": (
        [DENY_IN, into(FORKS, ROUTER | {"namespaceSelector": {"matchLabels": {"a": "b"}}})],
        ("deny", ""),
    ),
    "the router may not go out": ([policy("shut", "Egress", ROUTER)], ("shut", "")),
    "the router may go to forks": ([DENY_OUT, out(ROUTER, FORKS)], ("", "")),
    "the fork may not go out": ([DENY_OUT, out(ROUTER, name="r"), out(ROUTE, DATABASE, name="db")], ("", "db")),
    "the fork may go out": (
        [DENY_OUT, out(FORKS, name="all"), out(ROUTER, name="r"), out(ROUTE, DATABASE, name="db")],
        ("", ""),
    ),
    "others let the baseline in only": ([into(DATABASE, ROUTE, name="db")], ("", "db")),
    "others let everyone in": ([into(DATABASE, ANYONE, name="db")], ("", "")),
    "others let both in": ([into(DATABASE, ROUTE, name="db"), into(DATABASE, FORKS, name="forks")], ("", "")),
    "others let everyone in beside": ([into(DATABASE, ROUTE, name="db"), into(ANYONE, ANYONE, name="all")], ("", "")),
    "other ports": ([into(ROUTE, FRONTEND, ports=[{"port": 1}]), into(FORKS, ROUTER, name="r")], ("", "")),
}


@pytest.mark.parametrize("case", CASES)
def test_policies(case: str) -> None:
    """Which policy keeps requests from the fork, and which keeps the fork from what its baseline may reach."""
    policies, expected = CASES[case]
    assert found(*policies) == expected


def test_a_kept_label_helps() -> None:
    """A fork that keeps the label that a policy goes by is not cut off."""
    team = {"podSelector": {"matchLabels": {"team": "eta"}}}
    assert found(into(DATABASE, team, name="db")) == ("", "db")
    assert found(into(DATABASE, team, name="db"), kept="^team$") == ("", "")


def test_ports_that_no_request_with_a_key_comes_through_do_not_matter() -> None:
    """Where no router ever sends the fork anything, a policy that keeps routers out is in nobody's way."""
    raw = [{"name": "raw", "port": 81, "targetPort": 9000, "appProtocol": "tcp"}]
    assert found(DENY_IN)[0] == "deny"
    assert found(DENY_IN, ports=raw)[0] == ""
    assert found(DENY_IN, clusterIP="None")[0] == ""
    assert found(DENY_IN, into(FORKS, ROUTER, ports=PORTS), ports=[*raw, {"port": 80, "targetPort": "http"}])[0] == ""
