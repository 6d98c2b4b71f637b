"""The xDS server with raw clients: shares, storms, slow readers, refusals, reconnects."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import grpc.aio
import pytest

from sandlane.kube.clock import SystemClock
from sandlane.routing.envoy.delta import CLUSTER, LISTENER, ROUTES, SECRETS
from sandlane.routing.envoy.metrics import XdsMetrics
from sandlane.routing.envoy.server import XdsServer
from sandlane.runtime.metrics import Metrics
from support.xds import DEADLINE, channel, stream

ABOVE, OWN = "router/n", "router/n/10.0.0.1"
NODE = ("pod", OWN)


async def eventually(check: object, what: str) -> None:
    """Wait until a callable gives something true."""
    async with asyncio.timeout(DEADLINE):
        while not check():  # type: ignore[operator]
            await asyncio.sleep(0.005)
    assert check(), what  # type: ignore[operator]


async def test_a_client_gets_its_own_and_what_its_neighbours_get() -> None:
    """Its own types and those of the group above; nothing before its own group is published; changes go out alone."""
    server = XdsServer()
    server.publish(ABOVE, {CLUSTER: {"shared": b"1"}})
    async with server.listen("127.0.0.1:0") as port, channel(port) as over:
        client = stream(over)
        await client.ask(CLUSTER, node=NODE)
        await client.ask(LISTENER)
        await eventually(lambda: server.clients(OWN), "it is connected")
        server.publish(OWN, {LISTENER: {"own": b"2"}})
        first = await client.next()
        assert [each.name for each in first.resources] == ["shared"]
        await client.ack(first)
        second = await client.next()
        assert [each.name for each in second.resources] == ["own"]
        await client.ack(second)
        await eventually(lambda: not server.behind(OWN), "it has confirmed everything")
        server.change(ABOVE, {CLUSTER: {"more": b"3"}})
        third = await client.next()
        assert [each.name for each in third.resources] == ["more"]
        assert server.behind(OWN) == ["pod"]
        server.change(ABOVE, {CLUSTER: {"shared": None}})
        await client.ack(third)
        assert list((await client.next()).removed_resources) == ["shared"]


async def test_the_mark_goes_out_when_everything_else_is_confirmed() -> None:
    """Routes come first, then the digest alone; while something is refused the old digest stays."""
    server = XdsServer()
    server.publish(OWN, {ROUTES: {"digest": b"1", "door": b"a", "other": b"b"}})
    async with server.listen("127.0.0.1:0") as port, channel(port) as over:
        client = stream(over)
        await client.ask(ROUTES, ["digest", "door", "other"], node=NODE)
        for names in (["door", "other"], ["digest"]):
            response = await client.next()
            assert [each.name for each in response.resources] == names
            await client.ack(response)
        server.publish(OWN, {ROUTES: {"digest": b"2", "door": b"bad", "other": b"c"}})
        both = await client.next()
        await client.refuse(both, "one of them")
        refused = []
        for _ in range(2):
            single = await client.next()
            (resource,) = single.resources
            if resource.name == "door":
                await client.refuse(single, "it is bad")
                refused.append(resource.name)
            else:
                await client.ack(single)
        await eventually(lambda: server.refusals(OWN), "the refusal is known")
        assert [(each.name, each.error) for each in server.refusals(OWN)] == [("door", "it is bad")]
        server.publish(OWN, {ROUTES: {"digest": b"2", "door": b"a", "other": b"c"}})
        assert [each.name for each in (await client.next()).resources] == ["digest"]
        assert server.refusals(OWN) == [], "back at the version that it has"


async def test_reconnecting_costs_nothing_when_nothing_has_changed() -> None:
    """A client that names what it has is sent nothing of it; after a change, only that."""
    server = XdsServer()
    server.publish(OWN, {CLUSTER: {f"c{n}": b"x" * 100 for n in range(1000)}})
    async with server.listen("127.0.0.1:0") as port, channel(port) as over:
        client = stream(over)
        await client.ask(CLUSTER, node=NODE)
        have = {each.name: each.version for each in (await client.next()).resources}
        again = stream(over)
        await again.ask(CLUSTER, node=NODE, have=have)
        first = await again.next()
        assert (list(first.resources), list(first.removed_resources)) == ([], [])
        await again.ack(first)
        server.change(OWN, {CLUSTER: {"c7": b"y"}})
        assert [each.name for each in (await again.next()).resources] == ["c7"]


async def test_who_does_not_read_holds_up_nobody() -> None:
    """One stream takes nothing; another gets a thousand changes meanwhile, and the first then the last state at once."""
    server = XdsServer()
    big = b"x" * 2_000_000
    server.publish(OWN, {CLUSTER: {"c": big}})
    async with server.listen("127.0.0.1:0") as port, channel(port) as over, channel(port) as other:
        stuck, quick = stream(over), stream(other)
        await stuck.ask(CLUSTER, node=("stuck", OWN))
        await eventually(lambda: server.clients(OWN), "it is connected")
        await quick.ask(CLUSTER, node=("quick", OWN))
        await quick.ack(await quick.next())
        for n in range(1000):
            server.change(OWN, {CLUSTER: {"n": str(n).encode()}})
        seen = b""
        while seen != b"999":
            response = await quick.next()
            seen = response.resources[0].resource.value
            await quick.ack(response)
        first = await stuck.next()
        await stuck.ack(first)
        names = {each.name: each.resource.value for each in first.resources}
        if "n" not in names:
            names |= {each.name: each.resource.value for each in (await stuck.next()).resources}
        assert names["c"] == big
        assert names["n"] == b"999" or names["n"] == b"0"


async def test_hundreds_of_streams_come_back_at_once() -> None:
    """All are served, each what is its own; when they go, nothing of them is left."""
    server, count = XdsServer(), 400
    server.publish(ABOVE, {CLUSTER: {"shared": b"1"}})
    for n in range(count):
        server.publish(f"{ABOVE}/{n}", {LISTENER: {f"own-{n}": b"2"}})
    async with server.listen("127.0.0.1:0") as port:
        async with AsyncExitStack() as stack:
            channels = [await stack.enter_async_context(channel(port)) for _ in range(20)]

            async def come(n: int) -> None:
                client = stream(channels[n % len(channels)])
                await client.ask(LISTENER, node=(f"pod-{n}", f"{ABOVE}/{n}"))
                response = await client.next()
                assert [each.name for each in response.resources] == [f"own-{n}"]
                await client.ack(response)

            await asyncio.gather(*(come(n) for n in range(count)))
            await eventually(lambda: not any(server.behind(f"{ABOVE}/{n}") for n in range(count)), "all confirmed")
        await eventually(lambda: not any(server.clients(f"{ABOVE}/{n}") for n in range(count)), "all gone")
        assert server._clients == {}


async def test_other_types_are_refused() -> None:
    """A type that nobody publishes ends the stream with words, and is not remembered."""
    server = XdsServer()
    server.publish(OWN, {CLUSTER: {}})
    async with server.listen("127.0.0.1:0") as port, channel(port) as over:
        client = stream(over)
        await client.ask("type.googleapis.com/made.up", node=NODE)
        with pytest.raises(grpc.aio.AioRpcError, match=r"made\.up") as caught:
            await client.next()
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_what_is_measured() -> None:
    """Streams, pushes, refusals and the time to the last confirmation are in the metrics, without names."""
    metrics = Metrics()
    server = XdsServer(XdsMetrics(metrics, SystemClock()))
    server.publish(OWN, {CLUSTER: {"c": b"1"}, SECRETS: {"s": b"2"}})
    async with server.listen("127.0.0.1:0") as port, channel(port) as over:
        client = stream(over)
        await client.ask(CLUSTER, node=NODE)
        await client.ack(await client.next())
        await eventually(lambda: not server.behind(OWN), "confirmed")
        server.change(OWN, {CLUSTER: {"c": b"good"}})
        await client.ack(await client.next())
        await eventually(lambda: not server.behind(OWN), "confirmed")
        server.change(OWN, {CLUSTER: {"c": b"bad"}})
        await client.refuse(await client.next(), "no")
        await eventually(lambda: server.refusals(OWN), "refused")
        text = metrics.text().decode()
    assert "xds_streams 1.0" in text
    assert 'xds_pushes_total{type="Cluster"} 3.0' in text
    assert 'xds_nacks_total{type="Cluster"} 1.0' in text
    assert "xds_ack_seconds_count 1.0" in text
    assert "10.0.0.1" not in text
