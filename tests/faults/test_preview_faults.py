"""Whatever goes wrong on the way, the preview gateway is there while somebody asks for an endpoint, and gone afterwards."""

from __future__ import annotations

from typing import Any

import pytest

from sandlane.api.crd import definitions
from sandlane.kube.client import Client
from sandlane.kube.resource import ROUTE_GROUPS, Object
from sandlane.preview.gateway import Gateway
from sandlane.preview.resources import NAME, PreviewOptions
from sandlane.routing.envoy.server import XdsServer
from sandlane.routing.identities import Identities
from sandlane.routing.resources import RouterOptions
from sandlane.runtime.manager import Manager
from sandlane.testing.harness import Harness, Step
from sandlane.world.world import World
from support.routers import AUTHORITY
from support.sandboxes import NAMESPACE, group

WEB = {"name": "web", "target": "http://frontend:8080"}


def build(manager: Manager) -> None:
    """The gateway alone."""
    identities, options = Identities(manager.client, manager.clock, AUTHORITY), PreviewOptions("p.example.com")
    gateway = Gateway(
        manager, World.from_cache(manager.cache), XdsServer(), RouterOptions("xds", 1), identities, options
    )
    gateway.setup_with_manager(manager)


async def ask(client: Client) -> None:
    """Somebody wants an endpoint."""
    await client.create(ROUTE_GROUPS, group(routingKey="mine", endpoints=[WEB]))


async def ask_no_more(client: Client) -> None:
    """Nobody does any more."""
    await client.delete(ROUTE_GROUPS, "both", NAMESPACE)


def normalise(obj: Object) -> Object | None:
    """Certificates are made anew."""
    return {**obj, "data": sorted(obj["data"])} if obj["kind"] == "Secret" else obj


@pytest.mark.parametrize(
    ("steps", "there"),
    [
        ([ask], {"Deployment", "Service", "PodDisruptionBudget", "Secret"}),
        ([ask, ask_no_more], set[str]()),
    ],
    ids=["asked for", "no more"],
)
async def test_ends_in_the_same_world(steps: list[Step], there: set[str]) -> None:
    """Crashes after every write, failing calls, broken watches and stale restarts change nothing in the end."""
    namespace: Any = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    known = max(0, len(steps) - 1)
    harness = Harness(
        build, objects=[*definitions(), namespace], steps=steps, normalise=normalise, limit=6, known=known
    )
    report = await harness.check()
    assert report.writes
    assert {name.split()[0] for name in report.world if NAME in name} == there
