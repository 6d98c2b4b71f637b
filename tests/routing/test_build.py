"""The route table that a world gives: the truth table of the routing contract."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sandlane.api.labels import EDGE
from sandlane.kube.resource import Key
from sandlane.routing.build import ALWAYS, ON_DEMAND, build, listeners, mode, overrides, protocol
from sandlane.routing.names import LISTENERS, SHADOW_OF, shadow_name
from sandlane.routing.overrides import SHARDS, Overrides, shard_of
from sandlane.routing.table import Door, Override, ServiceBackend, TunnelBackend
from sandlane.world.records import ServicePort
from sandlane.world.world import World

DOOR = Door("n", "eta", 80)
UID = "11111111-2222-3333-4444-555555555555"


def meta(name: str, uid: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "namespace": "n", "uid": uid, "creationTimestamp": "2026-01-01T00:00:00Z"} | more


def sandbox(name: str, *, ready: bool = True, created: str = "2026-01-01T00:00:00Z", **spec: Any) -> dict[str, Any]:
    fork = {
        "baseline": {"kind": "Deployment", "name": "eta", "uid": "d", "generation": 1},
        "workload": f"eta-{name}",
        "everReady": ready,
        "services": [{"from": "eta", "to": f"eta-{name}", "ports": [{"port": 80, "name": "http"}]}],
    }
    return {
        "apiVersion": "sandlane.dev/v1alpha1",
        "kind": "Sandbox",
        "metadata": meta(name, f"uid-{name}", labels={"team": name}) | {"creationTimestamp": created},
        "spec": {"routingKey": f"key-{name}", "forks": [{"forkOf": {"kind": "Deployment", "name": "eta"}}]} | spec,
        "status": {"forks": [fork]},
    }


def baseline() -> list[dict[str, Any]]:
    labels = {"app": "eta"}
    ports = [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}]
    owner = {"apiVersion": "v1", "kind": "Service", "name": "eta", "uid": "s", "controller": True}
    container = {"name": "eta", "ports": [{"name": "http", "containerPort": 8084}]}
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta("eta", "s"),
            "spec": {"selector": labels, "ports": ports},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta(
                shadow_name("eta"),
                "shadow",
                labels={"app.kubernetes.io/managed-by": "sandlane"},
                annotations={LISTENERS: json.dumps({"80": 20000}), SHADOW_OF: "eta"},
                ownerReferences=[owner],
            ),
            "spec": {"selector": labels, "ports": ports},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": meta("eta", "d"),
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            },
        },
    ]


def local(on_disconnect: str = "Fail") -> dict[str, Any]:
    return {
        "apiVersion": "sandlane.dev/v1alpha1",
        "kind": "LocalWorkload",
        "metadata": meta("l", UID),
        "spec": {
            "sandbox": "a",
            "from": {"kind": "Deployment", "name": "eta"},
            "mappings": [{"port": 8084, "to": "localhost:1"}],
            "onDisconnect": on_disconnect,
        },
    }


def test_a_ready_fork_has_its_key() -> None:
    """The fork takes its sandbox's key, and everything else stays with the shadow's endpoints."""
    front = build(World.of([*baseline(), sandbox("a")])).doors[DOOR]
    assert front.baseline == ServiceBackend("n", shadow_name("eta"), 80)
    assert (front.listener, front.protocol) == (20000, "http")
    assert {key: override.backend for key, override in front.overrides.items()} == {
        "key-a": ServiceBackend("n", "eta-a", 80)
    }


@pytest.mark.parametrize(
    "changed",
    [
        sandbox("a", ready=False),
        sandbox("a", suspended=True),
        sandbox("a", forks=[]),
        sandbox("a") | {"metadata": meta("a", "uid-a", deletionTimestamp="2026-01-01T00:00:00Z")},
    ],
    ids=["never ready", "suspended", "no longer forked", "going"],
)
def test_no_route(changed: dict[str, Any]) -> None:
    """A fork that was never ready, is suspended, no longer asked for, or going gets no request."""
    assert build(World.of([*baseline(), changed])).doors[DOOR].overrides == {}


def test_a_group_joins_sandboxes_and_the_older_wins() -> None:
    """A group's key reaches what it matches; of two forks of one baseline the older one has the route."""
    group = {
        "apiVersion": "sandlane.dev/v1alpha1",
        "kind": "RouteGroup",
        "metadata": meta("g", "uid-g"),
        "spec": {"routingKey": "key-g", "match": {"any": [{"label": {"key": "team", "value": "*"}}]}},
    }
    world = World.of([*baseline(), sandbox("b"), sandbox("a", created="2026-01-02T00:00:00Z"), group])
    found = build(world).doors[DOOR].overrides
    assert {key: override.sandbox for key, override in found.items()} == {"key-a": "a", "key-b": "b", "key-g": "b"}


def test_a_key_belongs_to_the_older() -> None:
    """Two sandboxes that claim one key never share it."""
    world = World.of(
        [*baseline(), sandbox("b", routingKey="k"), sandbox("a", routingKey="k", created="2026-01-02T00:00:00Z")]
    )
    assert overrides(world)[DOOR]["k"].sandbox == "b"


def test_a_laptop_takes_its_sandboxs_key() -> None:
    """A mapped container port is found behind the Service's named targetPort; the connection is the data plane's word."""
    world = World.of([*baseline(), sandbox("a", forks=[]), local()])
    for held, connected in (({}, False), ({UID: frozenset({"10.0.0.1"})}, True)):
        backend = build(world, held).doors[DOOR].overrides["key-a"].backend
        assert backend == TunnelBackend("n", "l", UID, 8084, connected)


def test_a_laptop_takes_the_port_of_a_sidecar() -> None:
    """A named targetPort may be that of an init container that keeps running; of two with one name the container's counts."""
    service, shadow, deployment = baseline()
    sidecar = {
        "name": "proxy",
        "restartPolicy": "Always",
        "ports": [{"name": "proxy", "containerPort": 8085}, {"name": "http", "containerPort": 1}],
    }
    once = {"name": "once", "ports": [{"name": "proxy", "containerPort": 2}]}
    deployment["spec"]["template"]["spec"]["initContainers"] = [once, sidecar]
    for target, number in (("proxy", 8085), ("http", 8084)):
        service["spec"]["ports"][0]["targetPort"] = target
        laptop = local()
        laptop["spec"]["mappings"][0]["port"] = number
        table = build(World.of([service, shadow, deployment, sandbox("a", forks=[]), laptop]), {})
        assert table.doors[DOOR].overrides["key-a"].backend == TunnelBackend("n", "l", UID, number, connected=False)


def test_the_digest_is_of_the_content() -> None:
    """The same world gives the same digest; another route another one."""
    world = World.of([*baseline(), sandbox("a")])
    assert build(world).digest == build(World.of([sandbox("a"), *baseline()])).digest
    assert build(world).digest != build(World.of([*baseline(), sandbox("b")])).digest


@pytest.mark.parametrize(
    ("port", "wanted"),
    [
        (ServicePort(80, "http"), "http"),
        (ServicePort(80, "grpc-api"), "http"),
        (ServicePort(80, "web", app_protocol="kubernetes.io/h2c"), "http"),
        (ServicePort(80, "tcp-db"), "tcp"),
        (ServicePort(80, "web", app_protocol="https"), "tcp"),
        (ServicePort(80, "web"), "sniff"),
        (ServicePort(53, "dns", protocol="UDP"), "udp"),
    ],
)
def test_protocol(port: ServicePort, wanted: str) -> None:
    """appProtocol, then the port's name, then a look at what arrives."""
    assert protocol(port) == wanted


@pytest.mark.parametrize(("value", "edge"), [(None, False), ("none", False), ("strip", True), ("stirp", True)])
def test_the_edge_always_goes_through_a_router(value: str | None, edge: bool) -> None:
    """A Service whose keys shall be taken off is routed without any override; a typing error is on the safe side."""
    objects = baseline()
    if value is not None:
        objects[0]["metadata"]["annotations"] = {EDGE: value}
    world = World.of(objects)
    assert build(world).doors[DOOR].edge is edge
    service = world.services.get(Key("n", "eta"))
    assert service is not None
    assert mode(service) == (ALWAYS if edge else ON_DEMAND)


def test_what_one_change_leaves_alone_is_shared() -> None:
    """A new version of the table has the very pieces of the old one, but for those with a change; digests follow the content."""
    one = Override(ServiceBackend("n", "eta-a", 80), "a", "Sandbox n/a")
    before = Overrides.of({f"key-{number}": one for number in range(1000)})
    after = before.changed({"key-1": None, "key-1000": one})
    changed = {shard_of("key-1"), shard_of("key-1000")}
    assert {shard for shard in range(SHARDS) if before.piece(shard) is not after.piece(shard)} == changed
    assert dict(after.differences(before)) == {"key-1": None, "key-1000": one}
    again = after.changed({"key-1": one, "key-1000": None})
    assert again == before
    assert (again.digest, len(again)) == (before.digest, 1000)
    assert after.digest != before.digest


@pytest.mark.parametrize(
    ("name", "value"), [(SHADOW_OF, "another"), (LISTENERS, "no JSON"), (LISTENERS, '{"80": "x"}'), (LISTENERS, None)]
)
def test_a_shadow_that_is_none_remembers_nothing(name: str, value: str | None) -> None:
    """Ports of the router are read from the Service's own shadow, as we write it; otherwise it has no door."""
    objects = baseline()
    shadow = next(each for each in objects if each["metadata"]["name"] == shadow_name("eta"))
    service = next(each for each in World.of(objects).services if each.metadata.name == "eta")
    assert listeners(World.of(objects), service)
    shadow["metadata"]["annotations"] |= {name: value}
    if value is None:
        del shadow["metadata"]["annotations"][name]
    assert listeners(World.of(objects), service) == {}
    assert not build(World.of(objects)).doors
