"""Services as clusters of Envoy, with their ready endpoints. Pure."""

from __future__ import annotations

from sandlane.kube.resource import Key
from sandlane.routing.envoy.encode import ADS, EXTENSION, Config, socket
from sandlane.routing.table import ServiceBackend
from sandlane.world.records import EndpointSlice, ServicePort
from sandlane.world.world import World

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


def cluster(backend: ServiceBackend) -> Config:
    """A cluster whose endpoints come by EDS; requests go on in the protocol in which they came."""
    protocol = {
        "@type": EXTENSION + "upstreams.http.v3.HttpProtocolOptions",
        "use_downstream_protocol_config": {
            "http_protocol_options": {"header_key_format": PRESERVE_CASE},
            "http2_protocol_options": {},
        },
    }
    return {
        "name": backend.name,
        "type": "EDS",
        "connect_timeout": "5s",
        "eds_cluster_config": {"eds_config": ADS},
        "circuit_breakers": UNLIMITED,
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": protocol},
    }


def assignment(world: World, backend: ServiceBackend) -> Config:
    """The ready endpoints of a Service's port; all of them where it publishes those that are not ready."""
    service = world.services.get(Key(backend.namespace, backend.service))
    port = next((p for p in service.spec.ports if p.port == backend.port), None) if service else None
    found: set[tuple[str, int]] = set()
    if service is not None and port is not None:
        for endpoints in world.slices_of(service.metadata.key):
            found |= _addresses(endpoints, port, everybody=service.spec.publish_not_ready_addresses)
    hosts = [
        {"endpoint": {"address": socket(address, number, port.protocol if port else "TCP")}}
        for address, number in sorted(found)
    ]
    return {"cluster_name": backend.name, "endpoints": [{"lb_endpoints": hosts}] if hosts else []}


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
