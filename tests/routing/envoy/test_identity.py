"""Routers show certificates to the xDS server, and get the routes of their own namespace only, whatever they say."""

from __future__ import annotations

import base64
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import grpc.aio
import pytest

from sandlane.api.labels import ROUTER_PODS
from sandlane.kube.apply import NotOwned
from sandlane.kube.clock import Clock, SystemClock
from sandlane.kube.resource import SECRETS, Key
from sandlane.routing.envoy.delta import CLUSTER
from sandlane.routing.envoy.identity import SERVER, identity_in, may_join, secret
from sandlane.routing.envoy.server import XdsServer, credentials
from sandlane.routing.identities import Identities
from sandlane.runtime.certificates import Certificates, renewed
from sandlane.runtime.result import TransientError
from sandlane.runtime.signing import KeyPair
from sandlane.testing.clock import ManualClock
from sandlane.testing.cluster import FakeCluster
from support.xds import channel, stream

KEY = Key("rides", "sandlane-router-xds")


def authority(clock: Clock, old: Certificates | None = None) -> Any:
    """What the server's Secret holds."""
    return SimpleNamespace(held=renewed(old, "xds CA", [SERVER], clock.now()))


def certificate(obj: dict[str, Any]) -> bytes:
    return base64.b64decode(obj["data"]["tls.crt"])


def test_an_identity_opens_its_own_groups_only() -> None:
    """A name that only begins alike is another one; a certificate with no or several identities has none."""
    assert may_join("router/a", "router/a/10.0.0.1")
    assert may_join("sandlane-tunnel", "sandlane-tunnel")
    assert not may_join("router/a", "router/ab/10.0.0.1")
    assert not may_join("", "router/a/10.0.0.1")
    assert identity_in([b"spiffe://sandlane/router/a"]) == "router/a"
    assert identity_in([b"spiffe://other/router/a"]) == ""
    assert identity_in([b"spiffe://sandlane/router/a", b"spiffe://sandlane/router/b"]) == ""
    assert identity_in([]) == ""


async def refused(over: Any, node: tuple[str, str]) -> grpc.aio.AioRpcError:
    """How the server ends a stream."""

    async def served() -> None:
        client = stream(over)
        await client.ask(CLUSTER, node=node)
        await client.next()

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served()
    return caught.value


async def test_only_the_own_namespace_is_served() -> None:
    """A router of `a` gets the resources of `a`, and is told no when it names `b`; so is who has no certificate of ours."""
    clock = SystemClock()
    source = authority(clock)
    server = XdsServer()
    for namespace in ("a", "b"):
        server.publish(f"router/{namespace}/10.0.0.1", {CLUSTER: {f"of-{namespace}": b"x"}})
    async with server.listen("127.0.0.1:0", credentials(source)) as port:
        async with channel(port, source.held, "router/a") as over:
            client = stream(over)
            await client.ask(CLUSTER, node=("pod-1", "router/a/10.0.0.1"))
            assert [each.name for each in (await client.next()).resources] == ["of-a"]
            error = await refused(over, ("pod-1", "router/b/10.0.0.1"))
            assert error.code() is grpc.StatusCode.PERMISSION_DENIED
            assert "router/b/10.0.0.1" in str(error.details())
            for node in (("", "router/a/10.0.0.1"), ("pod-1", ""), ("pod-1", "router/a/" + "x" * 1000)):
                assert (await refused(over, node)).code() is grpc.StatusCode.INVALID_ARGUMENT
        async with channel(port, source.held) as over:
            assert (await refused(over, ("p", "router/a/10.0.0.1"))).code() is grpc.StatusCode.UNAVAILABLE
        stranger = authority(clock).held
        mixed = Certificates(source.held.serving, stranger.ca, source.held.bundle)
        async with channel(port, mixed, "router/a") as over:
            assert (await refused(over, ("p", "router/a/10.0.0.1"))).code() is grpc.StatusCode.UNAVAILABLE
        async with channel(port) as over:
            assert (await refused(over, ("p", "router/a/10.0.0.1"))).code() is grpc.StatusCode.UNAVAILABLE


async def test_a_renewed_server_certificate_is_served_without_restart() -> None:
    """New connections get it, also from clients that trust the next authority only; open streams go on."""
    clock = SystemClock()
    source = authority(clock)
    server = XdsServer()
    server.publish("router/a/1", {CLUSTER: {"one": b"x"}})
    async with (
        server.listen("127.0.0.1:0", credentials(source)) as port,
        channel(port, source.held, "router/a") as over,
    ):
        first = stream(over)
        await first.ask(CLUSTER, node=("p", "router/a/1"))
        await first.ack(await first.next())
        fresh = authority(clock).held
        source.held = Certificates(fresh.serving, fresh.ca, fresh.bundle + source.held.bundle)
        async with channel(port, fresh, "router/a") as other:
            second = stream(other)
            await second.ask(CLUSTER, node=("p", "router/a/1"))
            await second.next()
        server.publish("router/a/1", {CLUSTER: {"one": b"y"}})
        assert [each.name for each in (await first.next()).resources] == ["one"]


async def test_the_secret_is_made_once_renewed_and_removed() -> None:
    """A good certificate stays; one that is due, damaged or trusts another authority is made anew."""
    clock = ManualClock()
    async with FakeCluster.with_objects(clock=clock) as cluster:
        await cluster.ensure_namespace(KEY.namespace)
        source = authority(clock)
        identities = Identities(cluster.client, clock, source)
        await identities.ensure(KEY, "router/rides", ROUTER_PODS)
        first = await cluster.client.get(SECRETS, KEY.name, KEY.namespace)
        assert first["metadata"]["labels"] == ROUTER_PODS
        await Identities(cluster.client, clock, source).ensure(KEY, "router/rides", ROUTER_PODS)
        assert await cluster.client.get(SECRETS, KEY.name, KEY.namespace) == first, "another leader leaves it alone"

        await clock.advance(timedelta(days=61).total_seconds())
        await identities.ensure(KEY, "router/rides", ROUTER_PODS)
        second = await cluster.client.get(SECRETS, KEY.name, KEY.namespace)
        assert certificate(second) != certificate(first), "after two thirds of its life"

        await cluster.client.patch(SECRETS, KEY.name, {"data": {"tls.crt": "eA=="}}, namespace=KEY.namespace)
        await clock.advance(61)
        await identities.ensure(KEY, "router/rides", ROUTER_PODS)
        third = await cluster.client.get(SECRETS, KEY.name, KEY.namespace)
        assert KeyPair(certificate(third), b"").parsed

        source.held = authority(clock).held
        await identities.ensure(KEY, "router/rides", ROUTER_PODS)
        fourth = await cluster.client.get(SECRETS, KEY.name, KEY.namespace)
        assert base64.b64decode(fourth["data"]["ca.crt"]) == source.held.bundle

        await identities.remove(KEY)
        await identities.remove(KEY)
        assert not (await cluster.client.list(SECRETS)).items


async def test_a_strangers_secret_is_left_alone() -> None:
    """`NotOwned`, and nothing is written; before there is an authority, the answer is to come again."""
    clock = ManualClock()
    pair = authority(clock).held.serving
    theirs = secret(KEY.namespace, KEY.name, {}, pair, b"x")
    async with FakeCluster.with_objects(theirs, clock=clock) as cluster:
        with pytest.raises(NotOwned):
            await Identities(cluster.client, clock, authority(clock)).ensure(KEY, "router/rides", ROUTER_PODS)
        with pytest.raises(TransientError):
            await Identities(cluster.client, clock, SimpleNamespace(held=None)).ensure(  # type: ignore[arg-type]
                KEY, "router/rides", ROUTER_PODS
            )
