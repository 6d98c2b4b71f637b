"""Which preview endpoints there are, and where each leads."""

from __future__ import annotations

from typing import Any

import pytest

from sandlane.api.limits import Settings
from sandlane.api.types import Endpoint, EndpointStatus
from sandlane.preview.plan import NO_GATEWAY, previews, problems, statuses
from sandlane.preview.resources import gateway_deployment, gateway_group
from sandlane.routing.resources import RouterOptions
from sandlane.world.world import World
from support.routed import group, sandbox

WEB = {"name": "web", "target": "http://frontend:8080"}


def told(*objects: dict[str, Any]) -> list[tuple[str, str]]:
    """Host names and the clusters behind them."""
    return [(each.host, each.backend.name) for each in previews(World.of(objects))]


def namespace(name: str, allow: str) -> dict[str, Any]:
    """A Namespace that lets others in."""
    metadata = {"name": name, "annotations": {"sandlane.dev/allow-route-groups-from": allow}}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def with_endpoints(name: str, *endpoints: dict[str, str], **spec: Any) -> dict[str, Any]:
    """A group with endpoints."""
    made = group(name, team="x")
    made["spec"] |= {"endpoints": list(endpoints)} | spec
    return made


def test_sandboxes_and_groups_have_endpoints() -> None:
    """Each endpoint has a host name of its name and its owner's key."""
    fork = sandbox("a", defaultRouteGroup={"endpoints": [WEB]})[0]
    assert told(fork, with_endpoints("g", WEB, {"name": "api", "target": "http://api.m:80"}), namespace("m", "n")) == [
        ("api--key-g", "m/api/80"),
        ("web--key-a", "n/frontend/8080"),
        ("web--key-g", "n/frontend/8080"),
    ]


def test_who_is_not_served() -> None:
    """Nothing leads into a namespace that does not consent, nor from an owner that is going or has lost its key."""
    going = with_endpoints("gone", WEB)
    going["metadata"] |= {"deletionTimestamp": "2026-02-01T00:00:00Z", "finalizers": ["x"]}
    younger = with_endpoints("late", WEB, routingKey="key-a")
    younger["metadata"]["creationTimestamp"] = "2026-01-20T00:00:00Z"
    secret = with_endpoints("g", {"name": "db", "target": "http://admin.kube-system:80"})
    assert told(going, younger, secret, sandbox("a")[0], namespace("kube-system", "other")) == []
    endpoints = [Endpoint("db", "http://admin.kube-system:80"), Endpoint("web", "http://frontend:1")]
    wrong = problems(World.of([]), "n", endpoints)
    assert list(wrong) == ["db"]
    assert "does not consent" in wrong["db"]
    assert "is not http" in problems(World.of([]), "n", [Endpoint("x", "ftp://h")])["x"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (Settings(), EndpointStatus("web", "", NO_GATEWAY)),
        (Settings(preview_domain="localhost:7080"), EndpointStatus("web", "http://web--k.localhost:7080")),
        (
            Settings(preview_domain="p.example.com", preview_scheme="https"),
            EndpointStatus("web", "https://web--k.p.example.com"),
        ),
    ],
)
def test_statuses(settings: Settings, expected: EndpointStatus) -> None:
    """The status has the address, or why there is none."""
    assert statuses(settings, "k", [Endpoint("web", "http://frontend:1")], {}) == (expected,)
    if expected.url:
        assert statuses(settings, "k", [Endpoint("web", "http://f.x:1")], {"web": "no"})[0] == EndpointStatus(
            "web", "", "no"
        )


def test_the_gateway_is_no_router() -> None:
    """Its Pods have labels, a certificate and an xDS group of their own."""
    made = gateway_deployment("sandlane-system", RouterOptions("xds", 1), "abc")
    template = made["spec"]["template"]
    assert made["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert "sandlane.dev/router" not in template["metadata"]["labels"]
    (container,) = template["spec"]["containers"]
    assert f'"cluster":"{gateway_group("$(POD_IP)")}"' in container["args"][1]
    assert template["spec"]["volumes"][0]["secret"]["secretName"] == "sandlane-preview-xds"
    assert [port["name"] for port in container["ports"]] == ["ready", "http"]
