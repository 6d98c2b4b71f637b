"""What two managers know of one router, which is connected to one of them only."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sandlane.api import reasons
from sandlane.api.crd import definitions
from sandlane.api.labels import ROUTER_PODS
from sandlane.kube.cache import Cache
from sandlane.kube.clock import SystemClock
from sandlane.kube.resource import SANDBOXES, Key, Object
from sandlane.routing.envoy.delta import CLUSTER, ENDPOINTS, LISTENER, ROUTES
from sandlane.routing.envoy.digest import DIGEST
from sandlane.routing.envoy.routes import shard_name
from sandlane.routing.envoy.server import XdsServer
from sandlane.routing.names import router_group, shadow_name
from sandlane.routing.overrides import shard_of
from sandlane.routing.publisher import Publisher
from sandlane.routing.report import RouteReport, RouteReports
from sandlane.testing.cluster import FakeCluster
from sandlane.world.world import World
from support.routed import NAMESPACE, baseline, sandbox
from support.service_proxy import until
from support.xds import RawClient, channel, stream

ADDRESS = "10.9.9.9"


@dataclass
class Replica:
    """One manager's side of routing."""

    publisher: Publisher
    reports: RouteReports
    server: XdsServer

    def report(self) -> RouteReport | None:
        return self.reports.sandbox(Key(NAMESPACE, "a"))


@asynccontextmanager
async def replica(cluster: FakeCluster, serves: dict[str, str]) -> AsyncIterator[Replica]:
    """A running one; the router answers what is in `serves`."""
    cache = Cache(cluster.client, clock=SystemClock(), rng=random.Random(0))
    world, server, synced = World.from_cache(cache), XdsServer(), asyncio.Event()
    publisher = Publisher(cache, world, server, SystemClock())

    async def ask(address: str) -> str:
        return serves[address]

    publisher.served._ask = ask
    synced.set()
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(cache.run())
        await cache.wait_synced()
        running = [tasks.create_task(publisher.run(synced)), tasks.create_task(publisher.served.run())]
        await publisher.published.wait()
        yield Replica(publisher, RouteReports(world, publisher), server)
        for task in (following, *running):
            task.cancel()


async def fill(cluster: FakeCluster) -> None:
    """A turned Service, a sandbox whose fork was never ready, and a router; owners by the uids that they were given."""
    metadata: Object = {"name": "router", "namespace": NAMESPACE, "labels": dict(ROUTER_PODS)}
    status = {"phase": "Running", "podIP": ADDRESS, "conditions": [{"type": "Ready", "status": "True"}]}
    spec = {"containers": [{"name": "envoy", "image": "envoy"}]}
    pod: Object = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status}
    uids: dict[str, str] = {}
    for obj in [*baseline(), *sandbox("a", ready=False), pod]:
        for owner in obj["metadata"].get("ownerReferences", ()):
            owner["uid"] = uids.get(f"{owner['kind']} {owner['name']}", owner["uid"])
        made = await cluster.add(obj)
        uids[f"{obj['kind']} {obj['metadata']['name']}"] = made["metadata"]["uid"]


async def follow(client: RawClient, refused: str, serves: dict[str, str], reason: str) -> None:
    """A router that confirms everything but one resource, once that has its route; what its listener says beside the digest is in `serves`."""
    await client.ask(CLUSTER, node=("router", router_group(NAMESPACE, ADDRESS)))
    await client.ask(ENDPOINTS, [f"{NAMESPACE}/{shadow_name('eta')}/80"])
    await client.ask(LISTENER)
    await client.ask(ROUTES, [refused])
    while True:
        response = await client.next()
        for each in response.resources:
            if each.name == DIGEST:
                said = re.search(rb'{"but_for".*}', each.resource.value)
                serves[ADDRESS] = serves[ADDRESS].partition("\n")[0] + (
                    f"\n{said[0].decode()}".replace("%%", "%") if said else ""
                )
        if any(each.name == refused and b"eta-a" in each.resource.value for each in response.resources):
            await client.refuse(response, reason)
        else:
            await client.ack(response)


async def test_a_refusal_is_told_by_every_manager() -> None:
    """The manager that a router is connected to has it say what it refuses, and all others report that in the same words; what
    has nothing to do with it is programmed."""
    serves = {ADDRESS: ""}
    async with FakeCluster.with_objects(*definitions()) as cluster:
        await fill(cluster)
        async with replica(cluster, serves) as leader, replica(cluster, serves) as other:
            serves[ADDRESS] = leader.publisher.digest(NAMESPACE)
            assert serves[ADDRESS] == other.publisher.digest(NAMESPACE)
            async with other.server.listen("127.0.0.1:0") as port, channel(port) as over:
                async with asyncio.TaskGroup() as tasks:
                    refused = shard_name(NAMESPACE, shard_of("key-a"))
                    task = tasks.create_task(follow(stream(over), refused, serves, "100% bad\nroute \u00fc"))
                    forks = (await cluster.client.get(SANDBOXES, "a", NAMESPACE))["status"]["forks"]
                    body = {"status": {"forks": [forks[0] | {"everReady": True}]}}
                    await cluster.client.patch_status(SANDBOXES, Key(NAMESPACE, "a"), body)
                    await until(lambda: bool(other.publisher.refusals(NAMESPACE)), "it is refused")
                    assert leader.server.refusals(router_group(NAMESPACE, ADDRESS)) == []
                    await until(lambda: bool(leader.publisher.refusals(NAMESPACE)), "the leader hears of it")
                    heard, told = other.report(), leader.report()
                    await until(lambda: not leader.publisher.behind(NAMESPACE), "everything else is served")
                    task.cancel()
        assert heard is not None
        assert (heard.programmed, heard.reason) == (False, reasons.ROUTES_REJECTED)
        assert heard.message == f"router router refuses {refused}: 100% bad\nroute \u00fc"
        assert told == heard
