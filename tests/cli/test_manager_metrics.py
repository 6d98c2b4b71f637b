"""The product's own series, beside those of every manager."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import grpc.aio
import msgspec
from envoy.service.discovery.v3 import discovery_pb2

from sandlane.cli.manager import Options, register
from sandlane.kube.clock import SystemClock
from sandlane.routing.envoy.delta import CLUSTER
from sandlane.routing.envoy.metrics import XdsMetrics
from sandlane.routing.envoy.server import SERVICE, XdsServer
from sandlane.runtime.manager import Manager
from sandlane.runtime.metrics import Metrics
from sandlane.testing.cluster import FakeCluster
from sandlane.world.world import decode

LAPTOP = {"sandbox": "a", "from": {"kind": "Deployment", "name": "x"}, "mappings": []}
SERIES = {
    "routes_watchers",
    "sandboxes",
    "tunnels",
    "xds_ack_seconds",
    "xds_nacks_total",
    "xds_pushes_total",
    "xds_streams",
}


async def test_the_products_series_are_these() -> None:
    """Sandboxes by phase, tunnels by state, and what the xDS server counts; phases that nothing is in are 0."""
    async with FakeCluster() as cluster:
        manager = Manager(cluster.client, clock=SystemClock(), rng=random.Random(1))
        before = _names(manager.metrics)
        register(
            manager,
            Options(
                xds_bind_address="127.0.0.1:18000", routes_bind_address="127.0.0.1:0", allow_unchecked_requesters=True
            ),
        )
        for name, phase in (("a", "Ready"), ("b", ""), ("c", "Ready")):
            _put(manager, "sandboxes", name, {}, phase)
        _put(manager, "localworkloads", "laptop", LAPTOP, "Connected")
        text = manager.metrics.text().decode()
    assert _names(manager.metrics) - before == SERIES
    assert 'sandboxes{phase="Ready"} 2.0' in text
    assert 'sandboxes{phase="Pending"} 1.0' in text
    assert 'sandboxes{phase="Failed"} 0.0' in text
    assert 'tunnels{state="Connected"} 1.0' in text
    assert "xds_streams 0.0" in text


async def test_pushes_refusals_and_confirmations_are_counted() -> None:
    """By type of resource; the time to the confirmation counts from the change, also over a refusal."""
    metrics = Metrics()
    server = XdsServer(XdsMetrics(metrics, SystemClock()))
    server.publish("group", {CLUSTER: {"a": b"one"}})
    async with server.listen("127.0.0.1:0") as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        method = channel.stream_stream(
            f"/{SERVICE}/DeltaAggregatedResources",
            request_serializer=discovery_pb2.DeltaDiscoveryRequest.SerializeToString,
            response_deserializer=discovery_pb2.DeltaDiscoveryResponse.FromString,
        )
        call = method()
        first = discovery_pb2.DeltaDiscoveryRequest(type_url=CLUSTER)
        first.node.id, first.node.cluster = "node", "group"
        await call.write(first)
        await _answer(call, await call.read())
        await _until(lambda: not server.behind("group"))
        assert "xds_streams 1.0" in metrics.text().decode()
        server.publish("group", {CLUSTER: {"a": b"two"}})
        await _answer(call, await call.read(), "no such thing")
        await _until(lambda: "xds_nacks_total" in _counted(metrics))
        assert "xds_ack_seconds_count" not in _counted(metrics)
        server.publish("group", {CLUSTER: {"a": b"three"}})
        await _answer(call, await call.read())
        await _until(lambda: "xds_ack_seconds_count" in _counted(metrics))
        call.cancel()
    found = _counted(metrics)
    assert found["xds_pushes_total"] == '{type="Cluster"} 3.0'
    assert found["xds_nacks_total"] == '{type="Cluster"} 1.0'
    assert found["xds_ack_seconds_count"] == " 1.0"


async def _answer(call: Any, response: Any, refusal: str = "") -> None:
    """Confirm a response, or refuse it."""
    request = discovery_pb2.DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)
    if refusal:
        request.error_detail.message = refusal
    await call.write(request)


async def _until(holds: Any) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.005)


def _put(manager: Manager, plural: str, name: str, spec: Any, phase: str) -> None:
    """An object in the cache, as a watch would bring it."""
    informer = next(each for each in manager.cache.informers() if each.resource.plural == plural)
    metadata = {"name": name, "namespace": "d", "uid": name, "resourceVersion": "1"}
    body = {"metadata": metadata, "spec": spec, "status": {"phase": phase}}
    informer.store.set(decode(informer.record_type, msgspec.json.encode(body)))


def _names(metrics: Metrics) -> set[str]:
    return {line.split()[2] for line in metrics.text().decode().splitlines() if line.startswith("# TYPE")}


def _counted(metrics: Metrics) -> dict[str, str]:
    """Series of the xDS server as they are told: name -> labels and value (the last one of each name)."""
    found = {}
    for line in metrics.text().decode().splitlines():
        if line.startswith("xds_") and not line.startswith("xds_ack_seconds_bucket"):
            name = line.split("{")[0].split(" ")[0]
            found[name] = line.removeprefix(name)
    return found
