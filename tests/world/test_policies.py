"""What NetworkPolicies let through."""

from __future__ import annotations

from typing import Any

import pytest

from sandlane.kube.resource import Object
from sandlane.world.policies import Party, blocks_egress, blocks_ingress
from sandlane.world.records import ContainerPort
from sandlane.world.world import World

FORK = Party("rides", {"app": "fork"})
ROUTER = Party("rides", {"app": "router"})
PORT = ContainerPort(8080, "http")


def policy(**spec: Any) -> Object:
    """A policy that selects everything, unless told otherwise."""
    metadata = {"name": "p", "namespace": "rides"}
    body = {"podSelector": {}} | spec
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": body}


def pods(**labels: str) -> Object:
    """A peer by Pod labels."""
    return {"podSelector": {"matchLabels": labels}}


NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "rides", "labels": {"team": "a"}}}


@pytest.mark.parametrize(
    ("spec", "blocked"),
    [
        ({"policyTypes": ["Ingress"]}, True),
        ({"policyTypes": ["Egress"]}, False),
        ({}, True),
        ({"podSelector": {"matchLabels": {"app": "other"}}}, False),
        ({"ingress": [{}]}, False),
        ({"ingress": [{"from": [pods(app="router")]}]}, False),
        ({"ingress": [{"from": [pods(app="client")]}]}, True),
        ({"ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"team": "a"}}}]}]}, False),
        ({"ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"team": "b"}}}]}]}, True),
        (
            {"ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "rides"}}}]}]},
            False,
        ),
        ({"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]}, False),
        ({"ingress": [{"ports": [{"port": 8080}]}]}, False),
        ({"ingress": [{"ports": [{"port": "http"}]}]}, False),
        ({"ingress": [{"ports": [{"port": 9090}]}]}, True),
        ({"ingress": [{"ports": [{"port": 8000, "endPort": 8100}]}]}, False),
        ({"ingress": [{"ports": [{"port": 8080, "protocol": "UDP"}]}]}, True),
        ({"ingress": [{"ports": [{}]}]}, False),
        ({"podSelector": {"matchExpressions": [{"key": "app", "operator": "Bad"}]}}, False),
    ],
)
def test_ingress(spec: dict[str, Any], blocked: bool) -> None:
    """Whether a router reaches a fork under one policy."""
    world = World.of([policy(**spec), NAMESPACE])
    assert (blocks_ingress(world, FORK, PORT, ROUTER) is not None) is blocked


def test_one_policy_that_allows_is_enough() -> None:
    """Policies add up."""
    allow = policy(ingress=[{"from": [pods(app="router")]}])
    allow["metadata"] = {"name": "q", "namespace": "rides"}
    world = World.of([policy(), allow])
    assert blocks_ingress(world, FORK, PORT, ROUTER) is None
    assert blocks_ingress(world, FORK, PORT, Party("elsewhere", ROUTER.labels)) is not None


def test_egress() -> None:
    """An egress policy without a rule for the target blocks; one with it does not."""
    closed = World.of([policy(policyTypes=["Egress"])])
    assert blocks_egress(closed, ROUTER, PORT, FORK) is not None
    opened = World.of([policy(egress=[{"to": [pods(app="fork")]}])])
    assert blocks_egress(opened, ROUTER, PORT, FORK) is None
