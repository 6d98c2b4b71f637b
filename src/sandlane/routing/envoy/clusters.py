"""Services as clusters of Envoy, with their ready endpoints. Pure.

A fork with one ready endpoint, which nearly all have, needs no cluster of its own: its route names the endpoint in a header that one
of a few shared clusters obeys. That keeps a router with ten thousand forks as small as one with ten.
"""

from __future__ import annotations

from sandlane.kube.resource import Key
from sandlane.routing.envoy.encode import ADS, EXTENSION, Config, socket
from sandlane.routing.table import ServiceBackend
from sandlane.world.records import EndpointSlice, ServicePort
from sandlane.world.world import World

TO_HEADER = "x-envoy-max-retries"
"""Set by a fork's route: the endpoint that shall have the request. One of Envoy's own headers, because its router takes those out by itself
once it has a host; it means something only for requests that are tried again, which these are not. (A name of up to 22 characters is kept
in place: each fork's route has one.)"""
FORK_CLUSTERS = 8
UNLIMITED: Config = {
    "thresholds": [dict.fromkeys(("max_connections", "max_pending_requests", "max_requests", "max_retries"), 1_000_000)]
}
"""No limit of ours comes before the application's own."""
PRESERVE_CASE = {
    "stateful_formatter": {
        "name": "preserve_case",
        "typed_config": {"@type": EXTENSION + "http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig"},
    }
}
AS_IT_CAME: Config = {
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": EXTENSION + "upstreams.http.v3.HttpProtocolOptions",
        "use_downstream_protocol_config": {
            "http_protocol_options": {"header_key_format": PRESERVE_CASE},
            "http2_protocol_options": {"allow_connect": True},
        },
    }
}
"""Requests go on in the protocol in which they came."""


def cluster(backend: ServiceBackend, *, sticky: bool = False) -> Config:
    """A cluster whose endpoints come by EDS."""
    made = {
        "name": backend.name,
        "type": "EDS",
        "connect_timeout": "5s",
        "eds_cluster_config": {"eds_config": ADS},
        "circuit_breakers": UNLIMITED,
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "typed_extension_protocol_options": AS_IT_CAME,
    }
    if sticky:
        made |= {"lb_policy": "RING_HASH", "ring_hash_lb_config": {"minimum_ring_size": 256}}
    return made


def forks_cluster(shard: int) -> str:
    """The name of the shared cluster for forks with one endpoint whose keys are in a shard."""
    return f"forks/{shard % FORK_CLUSTERS}"


def fork_clusters() -> list[Config]:
    """The shared clusters: each sends a request to the endpoint that `TO_HEADER` names."""
    return [
        {
            "name": forks_cluster(number),
            "type": "ORIGINAL_DST",
            "lb_policy": "CLUSTER_PROVIDED",
            "connect_timeout": "5s",
            "cleanup_interval": "60s",
            "original_dst_lb_config": {"use_http_header": True, "http_header_name": TO_HEADER},
            "circuit_breakers": UNLIMITED,
            "typed_extension_protocol_options": AS_IT_CAME,
        }
        for number in range(FORK_CLUSTERS)
    ]


def addresses(world: World, backend: ServiceBackend) -> list[tuple[str, int]]:
    """The ready endpoints of a Service's port, in order; all of them where it publishes those that are not ready."""
    service = world.services.get(backend.key)
    port = _port(world, backend)
    if service is None or port is None:
        return []
    found: set[tuple[str, int]] = set()
    for endpoints in world.slices_of(service.metadata.key):
        found |= _addresses(endpoints, port, everybody=service.spec.publish_not_ready_addresses)
    return sorted(found)


def is_sticky(world: World, backend: ServiceBackend) -> bool:
    """Whether a Service wants a client to stay at one endpoint."""
    service = world.services.get(backend.key)
    return service is not None and service.spec.session_affinity == "ClientIP"


def assignment(world: World, backend: ServiceBackend) -> Config:
    """The endpoints of a cluster."""
    port = _port(world, backend)
    protocol = port.protocol if port else "TCP"
    hosts = [{"endpoint": {"address": socket(*address, protocol)}} for address in addresses(world, backend)]
    return {"cluster_name": backend.name, "endpoints": [{"lb_endpoints": hosts}] if hosts else []}


def _port(world: World, backend: ServiceBackend) -> ServicePort | None:
    service = world.services.get(Key(backend.namespace, backend.service))
    return next((port for port in service.spec.ports if port.port == backend.port), None) if service else None


def _addresses(endpoints: EndpointSlice, port: ServicePort, *, everybody: bool) -> set[tuple[str, int]]:
    numbers = [
        each.port
        for each in endpoints.ports or ()
        if (each.name or "") == port.name and each.port is not None and each.protocol == port.protocol
    ]
    return {
        (address, number)
        for endpoint in endpoints.endpoints or ()
        if everybody or endpoint.conditions.ready is not False
        for address in endpoint.addresses
        for number in numbers
    }
