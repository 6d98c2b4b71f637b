"""Services as Envoy resources: where they listen, who serves them, and when nobody does."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.extensions.filters.network.tcp_proxy.v3.tcp_proxy_pb2 import TcpProxy

from sandlane.local.proxy.ports import served_port
from sandlane.local.proxy.translate import CLUSTER, ENDPOINTS, LISTENER, EndpointSlice, Service, merge, translate

READY = {"ready": True}


def service(*ports: dict[str, Any], **spec: Any) -> Service:
    """A Service."""
    ports = ports or ({"name": "http", "port": 80},)
    spec = {"clusterIP": "127.20.32.9", "ports": list(ports), **spec}
    return msgspec.convert({"metadata": {"name": "app", "namespace": "rides"}, "spec": spec}, Service)


def slice_(*endpoints: tuple[str, dict[str, bool]], ports: tuple[dict[str, Any], ...] = ()) -> EndpointSlice:
    """A slice of (address, conditions)."""
    body = {
        "metadata": {"name": "app-1", "namespace": "rides"},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": conditions} for address, conditions in endpoints],
        "ports": list(ports) or [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }
    return msgspec.convert(body, EndpointSlice)


def backends(resources: dict[str, dict[str, bytes]], name: str = "rides/app/tcp/80") -> list[tuple[str, int]]:
    """Who serves a port, as Envoy is told."""
    assignment = ClusterLoadAssignment.FromString(resources[ENDPOINTS][name])
    found = [e.endpoint.address.socket_address for group in assignment.endpoints for e in group.lb_endpoints]
    return [(address.address, address.port_value) for address in found]


def test_a_port_listens_on_the_cluster_ip_and_reaches_ready_endpoints() -> None:
    """The listener is at cluster IP and port, its cluster holds the ready endpoints with their own port."""
    out = translate(service(), [slice_(("127.20.64.1", READY), ("127.20.64.2", {"ready": False}))], 1)
    listener = Listener.FromString(out[LISTENER]["rides/app/tcp/80"])
    at = listener.address.socket_address
    assert (at.address, at.port_value) == ("127.20.32.9", 80)
    proxy = TcpProxy()
    assert listener.filter_chains[0].filters[0].typed_config.Unpack(proxy)
    assert proxy.cluster == "rides/app/tcp/80"
    assert backends(out) == [("127.20.64.1", 8080)]


def test_low_ports_move_up_without_privilege() -> None:
    """Where ports below 1024 may not be bound, port 80 is served at 10080, port 8080 where it is."""
    out = translate(service(), [slice_(("127.20.64.1", READY))], 1024)
    assert Listener.FromString(out[LISTENER]["rides/app/tcp/80"]).address.socket_address.port_value == 10080
    assert served_port(8080, 1024) == 8080
    assert served_port(80, 80) == 80


def test_without_endpoints_nobody_listens() -> None:
    """No ready endpoint: no listener, so that the kernel refuses; the cluster stays, ready for the next endpoint."""
    out = translate(service(), [slice_(("127.20.64.1", {"ready": False}))], 1)
    assert out[LISTENER] == {}
    assert list(out[CLUSTER]) == ["rides/app/tcp/80"]
    assert backends(out) == []


def test_ending_endpoints_serve_only_when_no_other_does() -> None:
    """Endpoints that are going but still serve are the last resort."""
    going = {"ready": False, "serving": True, "terminating": True}
    assert backends(translate(service(), [slice_(("127.20.64.1", going))], 1)) == [("127.20.64.1", 8080)]
    both = [slice_(("127.20.64.1", going), ("127.20.64.2", READY))]
    assert backends(translate(service(), both, 1)) == [("127.20.64.2", 8080)]


def test_ports_meet_by_name_and_protocol() -> None:
    """A Service port uses the slice port of its name and protocol; endpoints of several slices come together."""
    svc = service({"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"})
    slices = [
        slice_(("127.20.64.1", READY), ports=({"name": "http", "port": 8080}, {"name": "dns", "port": 5353})),
        slice_(("127.20.64.2", READY), ports=({"name": "http", "port": 9090},)),
        slice_(("127.20.64.3", READY), ports=({"name": "dns", "port": 5353, "protocol": "UDP"},)),
    ]
    out = translate(svc, slices, 1)
    assert backends(out) == [("127.20.64.1", 8080), ("127.20.64.2", 9090)]
    assert backends(out, "rides/app/udp/53") == [("127.20.64.3", 5353)]
    assert Listener.FromString(out[LISTENER]["rides/app/udp/53"]).listener_filters[0].name.endswith("udp_proxy")


def test_session_affinity_hashes_the_source() -> None:
    """ClientIP affinity uses a consistent hash over the source address."""
    out = translate(service(sessionAffinity="ClientIP"), [slice_(("127.20.64.1", READY))], 1)
    assert Cluster.FromString(out[CLUSTER]["rides/app/tcp/80"]).lb_policy == Cluster.MAGLEV


@pytest.mark.parametrize("spec", [{"clusterIP": "None"}, {"clusterIP": ""}, {"type": "ExternalName"}])
def test_services_without_a_cluster_ip_need_no_proxy(spec: dict[str, str]) -> None:
    """Headless and ExternalName Services give nothing."""
    assert merge([translate(service(**spec), [slice_(("127.20.64.1", READY))], 1)]) == {
        LISTENER: {},
        CLUSTER: {},
        ENDPOINTS: {},
    }


def test_the_same_input_gives_the_same_bytes() -> None:
    """Translation is deterministic: versions are hashes of these bytes."""
    slices = [slice_(("127.20.64.1", READY), ("127.20.64.2", READY))]
    flipped = [slice_(("127.20.64.2", READY), ("127.20.64.1", READY))]
    assert translate(service(), slices, 1) == translate(service(), flipped, 1)
