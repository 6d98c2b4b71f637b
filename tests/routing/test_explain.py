"""Who serves a request, why, and what is said when the question makes no sense."""

from __future__ import annotations

from typing import Any

import pytest

from sandlane.api.labels import MANAGED_BY, MANAGER
from sandlane.routing.explain import Answer, UnknownTarget, explain, find_target
from sandlane.routing.key import Found, find_key
from sandlane.routing.names import shadow_name
from sandlane.world.world import World
from support.routed import baseline, sandbox, service

OBJECTS = [*baseline(), *baseline("drivers", turned=False), *sandbox("a"), *sandbox("b", ready=False)]


def ask(target: str, key: str | None = None, objects: list[dict[str, Any]] | None = None) -> Answer:
    world = World.of(objects or OBJECTS)
    return explain(world, find_target(world, target, "n"), Found(key, "option --key") if key else None)


@pytest.mark.parametrize(
    ("target", "key", "served_by", "rule", "words"),
    [
        ("eta", "key-a", "a/eta-a", "sandbox", "leads to a/eta-a"),
        ("eta", None, "baseline", "no-key", "carries no routing key"),
        ("eta", "nope", "baseline", "unknown-key", "no Sandbox or RouteGroup has the key nope"),
        ("eta", "key-b", "baseline", "not-active", "PodsNotReady"),
        ("drivers", "key-a", "baseline", "none", "no fork of what Service drivers selects"),
        ("eta-a", "key-b", "a/eta-a", "not-by-key", "the fork's own"),
    ],
)
def test_the_rules(target: str, key: str | None, served_by: str, rule: str, words: str) -> None:
    """Each row of the contract's truth table has its answer, with the rule that decided."""
    answer = ask(target, key)
    assert (answer.served_by, answer.rule) == (served_by, rule)
    assert words in " ".join(answer.why)
    assert answer.ready_endpoints == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "the routers of namespace n decide"),
        ({"clusterIP": "None"}, "cannot be routed by key: it is headless"),
        ({"selector": {"app": "eta"}}, "somebody has written it since"),
    ],
)
def test_how_requests_get_there(change: dict[str, Any], words: str) -> None:
    """Whether the routers decide, or why they do not."""
    objects = baseline()
    objects[1]["spec"] |= change
    assert words in " ".join(ask("eta", None, objects).why)


def test_ports_without_keys_are_said() -> None:
    """At a port that is no HTTP keys are not looked for."""
    why = ask("eta", None, baseline(port={"name": "tcp-db"})).why
    assert "port 80 is tcp: keys are not looked for" in " ".join(why)


def test_services_of_ours_serve_whatever_the_key() -> None:
    """A shadow is the baseline; what else belongs to Sandlane has its own Pods."""
    shadow = ask(shadow_name("eta"), "key-a")
    assert (shadow.served_by, shadow.rule) == ("baseline", "not-by-key")
    assert "is the shadow of eta" in " ".join(shadow.why)
    other = service("ours", turned=False)
    owner = {"apiVersion": "sandlane.dev/v1alpha1", "kind": "Sandbox", "name": "z", "uid": "z"}
    other[0]["metadata"] |= {"labels": {MANAGED_BY: MANAGER}, "ownerReferences": [owner]}
    assert "belongs to Sandlane" in " ".join(ask("ours", "key-a", [*OBJECTS, *other]).why)


def test_other_keys() -> None:
    """The answer lists what every other known key would give."""
    assert [(rule.key, rule.served_by) for rule in ask("eta", "key-a").other_keys] == [("key-b", "baseline")]
    assert [rule.key for rule in ask("eta").other_keys] == ["key-a", "key-b"]


def test_nobody_is_ready() -> None:
    """A baseline without ready Pods is said to fail."""
    objects = service(turned=False)
    objects[1]["endpoints"] = []
    answer = ask("eta", None, objects)
    assert answer.ready_endpoints == 0
    assert "no Pod behind Service eta is ready" in answer.why[-1]


@pytest.mark.parametrize(
    ("text", "door"),
    [
        ("eta", "n/eta:80"),
        ("eta.n", "n/eta:80"),
        ("eta.n:80", "n/eta:80"),
        ("http://eta/x?y", "n/eta:80"),
        ("http://eta.n.svc.cluster.local:10080/", "n/eta:80"),
        ("http://127.9.1.1", "n/eta:80"),
    ],
)
def test_targets(text: str, door: str) -> None:
    """Names, DNS names, URLs, cluster IPs and shifted ports mean the same Service port."""
    objects = service()
    objects[0]["spec"]["clusterIP"] = "127.9.1.1"
    found = find_target(World.of(objects), text, "n", lambda port: port + 10_000)
    assert str(found.door) == door


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("etta", r"no Service etta in namespace n; did you mean eta"),
        ("zzz", r"there are: drivers, eta"),
        ("eta.m", r"no Service eta in namespace m; did you mean eta.n\?"),
        ("eta:81", r"n/eta has no port 81; it has: 80 \(http\)"),
        ("https://eta", r"has no port 443"),
        ("http://10.9.9.9", r"no Service has the cluster IP 10.9.9.9"),
        ("eta:x", r"eta:x: "),
    ],
)
def test_what_is_not_there(text: str, words: str) -> None:
    """A wrong name or port is answered with what there is."""
    with pytest.raises(UnknownTarget, match=words):
        find_target(World.of(OBJECTS), text, "n")


def test_several_ports() -> None:
    """Without a number a Service with several ports is ambiguous."""
    objects = service(turned=False)
    objects[0]["spec"]["ports"].append({"name": "grpc", "port": 90})
    with pytest.raises(UnknownTarget, match=r"has several ports: say which; it has: 80 \(http\), 90 \(grpc\)"):
        find_target(World.of(objects), "eta", "n")


def test_where_the_key_was_found() -> None:
    """The header and the member that carried the key are named."""
    sent = [("Baggage", "a=b , sandlane-routing-key = k%20x;p=1")]
    assert find_key(sent) == Found("k x", "baggage member sandlane-routing-key")
    assert find_key([("tracestate", "sandlane-routing-key=k")]) == Found("k", "tracestate member sandlane-routing-key")
    assert find_key([("x-key", "k")]) is None
