"""Services and their EndpointSlices as Envoy listeners, clusters and endpoints at layer 4: a pure translation.

A Service port gets a listener on its cluster IP only while somebody serves it: without one the kernel refuses
connections at once, as kube-proxy does. Envoy's rules for the fields used here: its v3 API reference, `listener`,
`tcp_proxy`, `udp_proxy`, `cluster` and `endpoint`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from envoy.config.cluster.v3 import circuit_breaker_pb2, cluster_pb2
from envoy.config.core.v3 import address_pb2, config_source_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2, udp_listener_config_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.extensions.filters.udp.udp_proxy.v3 import udp_proxy_pb2
from envoy.type.v3 import hash_policy_pb2
from google.protobuf import any_pb2, duration_pb2, wrappers_pb2
from google.protobuf.message import Message

from sandlane.kube.metadata import ObjectMeta
from sandlane.local.proxy.ports import served_port

LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
ENDPOINTS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
SERVICE_NAME = "kubernetes.io/service-name"
_CONNECT_SECONDS = 5
_ATTEMPTS = 3
_UNLIMITED = 1_000_000

Resources = dict[str, dict[str, bytes]]
"""Type URL -> name -> encoded resource."""


class ServicePort(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """A port of a Service."""

    port: int
    name: str = ""
    protocol: str = "TCP"


class ServiceSpec(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """What the proxy needs of a Service's spec."""

    cluster_ip: str = msgspec.field(name="clusterIP", default="")
    type: str = "ClusterIP"
    ports: tuple[ServicePort, ...] = ()
    session_affinity: str = "None"


class Service(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """A Service as the proxy sees it."""

    metadata: ObjectMeta
    spec: ServiceSpec


class Conditions(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """Conditions of an endpoint; unset means ready and serving (the API's own rule)."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class Endpoint(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """An endpoint of a slice."""

    addresses: tuple[str, ...]
    conditions: Conditions = Conditions()


class SlicePort(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """A port of a slice."""

    port: int | None = None
    name: str | None = None
    protocol: str | None = None


class EndpointSlice(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """An EndpointSlice as the proxy sees it."""

    metadata: ObjectMeta
    address_type: str = "IPv4"
    endpoints: tuple[Endpoint, ...] | None = None
    ports: tuple[SlicePort, ...] | None = None


def translate(service: Service, slices: Iterable[EndpointSlice], first_port: int) -> Resources:
    """The Envoy resources of one Service; `first_port` is the lowest port that Envoy may bind."""
    out: Resources = {LISTENER: {}, CLUSTER: {}, ENDPOINTS: {}}
    spec = service.spec
    if not spec.cluster_ip or spec.cluster_ip == "None" or ":" in spec.cluster_ip or spec.type == "ExternalName":
        return out
    slices = [s for s in slices if s.address_type == "IPv4"]
    sticky = spec.session_affinity == "ClientIP"
    for port in spec.ports:
        if port.protocol not in ("TCP", "UDP"):
            continue
        addresses = backends(port, slices)
        name = f"{service.metadata.namespace}/{service.metadata.name}/{port.protocol.lower()}/{port.port}"
        out[CLUSTER][name] = _encode(_cluster(name, sticky))
        out[ENDPOINTS][name] = _encode(_assignment(name, addresses, port.protocol))
        if addresses:
            at = _address(spec.cluster_ip, served_port(port.port, first_port), port.protocol)
            make = _udp_listener if port.protocol == "UDP" else _tcp_listener
            out[LISTENER][name] = _encode(make(name, at, sticky))
    return out


def backends(port: ServicePort, slices: Sequence[EndpointSlice]) -> list[tuple[str, int]]:
    """Who serves a Service port: the ready endpoints, or, if there is none, those that end but still serve
    (KEP-1669)."""
    ready: set[tuple[str, int]] = set()
    ending: set[tuple[str, int]] = set()
    for slice_ in slices:
        numbers = [
            p.port
            for p in slice_.ports or ()
            if p.port and (p.name or "") == port.name and (p.protocol or "TCP") == port.protocol
        ]
        for endpoint in slice_.endpoints or ():
            is_ready, is_serving = _state(endpoint.conditions)
            chosen = ready if is_ready else ending if is_serving else None
            if chosen is not None:
                chosen.update((address, number) for address in endpoint.addresses[:1] for number in numbers)
    return sorted(ready or ending)


def _state(conditions: Conditions) -> tuple[bool, bool]:
    ready = conditions.ready is not False
    return ready, bool(conditions.terminating) and (ready if conditions.serving is None else conditions.serving)


def merge(parts: Iterable[Resources]) -> Resources:
    """The resources of all Services together."""
    out: Resources = {LISTENER: {}, CLUSTER: {}, ENDPOINTS: {}}
    for part in parts:
        for type_url, resources in part.items():
            out[type_url].update(resources)
    return out


def _encode(message: Message) -> bytes:
    encoded: bytes = message.SerializeToString(deterministic=True)
    return encoded


def _any(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message, deterministic=True)
    return packed


def _address(host: str, port: int, protocol: str) -> address_pb2.Address:
    kind = address_pb2.SocketAddress.UDP if protocol == "UDP" else address_pb2.SocketAddress.TCP
    return address_pb2.Address(socket_address=address_pb2.SocketAddress(address=host, port_value=port, protocol=kind))


def _cluster(name: str, sticky: bool) -> cluster_pb2.Cluster:
    limits = circuit_breaker_pb2.CircuitBreakers.Thresholds(
        max_connections=wrappers_pb2.UInt32Value(value=_UNLIMITED),
        max_pending_requests=wrappers_pb2.UInt32Value(value=_UNLIMITED),
    )
    return cluster_pb2.Cluster(
        name=name,
        type=cluster_pb2.Cluster.EDS,
        connect_timeout=duration_pb2.Duration(seconds=_CONNECT_SECONDS),
        lb_policy=cluster_pb2.Cluster.MAGLEV if sticky else cluster_pb2.Cluster.ROUND_ROBIN,
        eds_cluster_config=cluster_pb2.Cluster.EdsClusterConfig(
            eds_config=config_source_pb2.ConfigSource(
                ads=config_source_pb2.AggregatedConfigSource(), resource_api_version=config_source_pb2.V3
            )
        ),
        circuit_breakers=circuit_breaker_pb2.CircuitBreakers(thresholds=[limits]),
    )


def _assignment(name: str, addresses: Iterable[tuple[str, int]], protocol: str) -> endpoint_pb2.ClusterLoadAssignment:
    endpoints = [
        endpoint_components_pb2.LbEndpoint(
            endpoint=endpoint_components_pb2.Endpoint(address=_address(host, port, protocol))
        )
        for host, port in addresses
    ]
    groups = [endpoint_components_pb2.LocalityLbEndpoints(lb_endpoints=endpoints)] if endpoints else []
    return endpoint_pb2.ClusterLoadAssignment(cluster_name=name, endpoints=groups)


def _tcp_listener(name: str, address: address_pb2.Address, sticky: bool) -> listener_pb2.Listener:
    proxy = tcp_proxy_pb2.TcpProxy(
        stat_prefix="service",
        cluster=name,
        idle_timeout=duration_pb2.Duration(),  # zero: connections live as long as both ends want
        max_connect_attempts=wrappers_pb2.UInt32Value(value=_ATTEMPTS),
    )
    if sticky:
        proxy.hash_policy.append(hash_policy_pb2.HashPolicy(source_ip=hash_policy_pb2.HashPolicy.SourceIp()))
    filter_ = listener_components_pb2.Filter(name="envoy.filters.network.tcp_proxy", typed_config=_any(proxy))
    return listener_pb2.Listener(
        name=name, address=address, filter_chains=[listener_components_pb2.FilterChain(filters=[filter_])]
    )


def _udp_listener(name: str, address: address_pb2.Address, sticky: bool) -> listener_pb2.Listener:
    proxy = udp_proxy_pb2.UdpProxyConfig(stat_prefix="service", cluster=name)
    if sticky:
        proxy.hash_policies.append(udp_proxy_pb2.UdpProxyConfig.HashPolicy(source_ip=True))
    filter_ = listener_components_pb2.ListenerFilter(
        name="envoy.filters.udp_listener.udp_proxy", typed_config=_any(proxy)
    )
    return listener_pb2.Listener(
        name=name,
        address=address,
        listener_filters=[filter_],
        udp_listener_config=udp_listener_config_pb2.UdpListenerConfig(),
    )
