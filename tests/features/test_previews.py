"""The preview gateway is there while somebody asks for an endpoint, and the status says where it is reached."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from sandlane.api.crd import definitions
from sandlane.api.labels import ALLOW_ROUTE_GROUPS
from sandlane.api.limits import Settings
from sandlane.kube.errors import NotFound
from sandlane.kube.resource import (
    DEPLOYMENTS,
    NAMESPACES,
    POD_DISRUPTION_BUDGETS,
    PODS,
    ROUTE_GROUPS,
    SANDBOXES,
    SERVICES,
    Key,
    Object,
    Resource,
)
from sandlane.preview.gateway import Gateway
from sandlane.preview.resources import LABELS, NAME, PreviewOptions, gateway_group
from sandlane.preview.translate import PREVIEWS
from sandlane.routing.envoy.delta import LISTENER, ROUTES
from sandlane.routing.resources import RouterOptions
from sandlane.runtime.manager import Manager
from sandlane.runtime.options import ManagerOptions
from sandlane.testing.cluster import FakeCluster
from sandlane.world.world import World
from support.sandboxes import NAMESPACE, PretendRoutes, build, group, sandbox
from support.workloads import DEADLINE

HOME = "sandlane-system"
WEB = {"name": "web", "target": "http://frontend:8080"}


class Published:
    """An xDS server that only remembers."""

    def __init__(self) -> None:
        self.groups: dict[str, Mapping[str, Mapping[str, bytes]]] = {}

    def publish(self, name: str, resources: Mapping[str, Mapping[str, bytes]]) -> None:
        self.groups[name] = resources

    def withdraw(self, name: str) -> None:
        del self.groups[name]


class NoIdentities:
    """Certificates are another matter."""

    async def ensure(self, key: Key, identity: str, labels: Mapping[str, str]) -> str:
        return "fingerprint"

    async def remove(self, key: Key) -> None: ...


class Running:
    """A manager with the gateway, on a fake cluster."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.client, self.xds = cluster.client, Published()
        self.manager = Manager(
            cluster.client, clock=cluster.clock, rng=cluster.rng, options=ManagerOptions(), namespace=HOME
        )
        world = World.from_cache(self.manager.cache)
        options: Any = PreviewOptions("p.example.com")
        build(self.manager, PretendRoutes(), Settings(preview_domain="p.example.com"))
        identities: Any = NoIdentities()
        xds: Any = self.xds
        Gateway(self.manager, world, xds, RouterOptions("xds", 1), identities, options).setup_with_manager(self.manager)

    async def there(self, resource: Resource) -> bool:
        """Whether the gateway's object exists."""
        try:
            await self.client.get(resource, NAME, HOME)
        except NotFound:
            return False
        return True

    async def until(self, check: Any, what: str) -> None:
        """Wait for a condition."""
        try:
            async with asyncio.timeout(DEADLINE):
                while not await check():
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"not so after {DEADLINE:.0f} s: {what}") from None

    async def endpoints(self, resource: Resource = ROUTE_GROUPS, name: str = "both") -> list[Object]:
        """The endpoints in an object's status."""
        found: list[Object] = (await self.client.get(resource, name, NAMESPACE)).get("status", {}).get("endpoints", [])
        return found


def gateway_pod(address: str) -> Object:
    """A Pod of the gateway."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "gateway-1", "namespace": HOME, "labels": dict(LABELS)},
        "spec": {"containers": [{"name": "envoy", "image": "envoy"}]},
        "status": {"podIP": address, "phase": "Running"},
    }


async def test_a_gateway_while_it_is_wanted() -> None:
    """The first endpoint brings the gateway and its configuration, the last one takes them away; consent is asked for."""
    async with FakeCluster.with_objects(*definitions()) as cluster, asyncio.TaskGroup() as tasks:
        for name in (NAMESPACE, HOME, "other"):
            await cluster.ensure_namespace(name)
        running = Running(cluster)
        job = tasks.create_task(running.manager.run())
        await asyncio.wait_for(running.manager.ready.wait(), DEADLINE)
        kinds = (DEPLOYMENTS, SERVICES, POD_DISRUPTION_BUDGETS)
        foreign = {"name": "far", "target": "http://admin.other:80"}
        await running.client.create(ROUTE_GROUPS, group(routingKey="mine", endpoints=[WEB, foreign]))

        async def made() -> bool:
            return all([await running.there(kind) for kind in kinds])

        await running.until(made, "the gateway is made")
        await cluster.add(gateway_pod("10.0.0.9"))

        async def published() -> bool:
            return gateway_group("10.0.0.9") in running.xds.groups

        await running.until(published, "the gateway is configured")
        told = running.xds.groups[gateway_group("10.0.0.9")]
        assert PREVIEWS in told[LISTENER]
        assert b"web--mine.p.example.com" in told[ROUTES][PREVIEWS]
        assert b"far--mine" not in told[ROUTES][PREVIEWS]

        async def refused() -> bool:
            found = await running.endpoints()
            return (
                len(found) == 2
                and found[0] == {"name": "web", "url": "http://web--mine.p.example.com"}
                and "url" not in found[1]
            )

        await running.until(refused, "the status says what is served")
        await running.client.create(SANDBOXES, sandbox("s", defaultRouteGroup={"endpoints": [foreign]}))

        async def told_why() -> bool:
            return "does not consent" in str(await running.endpoints(SANDBOXES, "s"))

        await running.until(told_why, "the sandbox says why, too")
        assert "does not consent" in (await running.endpoints())[1]["message"]
        consent = {"metadata": {"annotations": {ALLOW_ROUTE_GROUPS: NAMESPACE}}}
        await running.client.patch(NAMESPACES, "other", consent)

        async def served() -> bool:
            shown = [each.get("url") for each in await running.endpoints()]
            there = b"far--mine" in running.xds.groups[gateway_group("10.0.0.9")][ROUTES][PREVIEWS]
            return there and shown == ["http://web--mine.p.example.com", "http://far--mine.p.example.com"]

        await running.until(served, "consent is enough")

        async def served_too() -> bool:
            return "http://far--" in str(await running.endpoints(SANDBOXES, "s"))

        await running.until(served_too, "the sandbox hears of it")
        await running.client.delete(SANDBOXES, "s", NAMESPACE)
        await running.client.delete(ROUTE_GROUPS, "both", NAMESPACE)

        async def gone() -> bool:
            return not any([await running.there(kind) for kind in kinds])

        await running.until(gone, "the gateway goes with the last endpoint")
        await running.client.delete(PODS, "gateway-1", HOME)

        async def withdrawn() -> bool:
            return not running.xds.groups

        await running.until(withdrawn, "its configuration is withdrawn")
        running.manager.stop()
        await job
