"""Laptops as clusters and routes of Envoy: over the tunnel servers that hold their tunnels. Pure."""

from __future__ import annotations

from collections.abc import Callable

from sandlane.api.types import OnDisconnect
from sandlane.routing.envoy.clusters import UNLIMITED
from sandlane.routing.envoy.encode import ADS, EXTENSION, Config, socket
from sandlane.routing.table import FrontDoor, Override, TunnelBackend
from sandlane.routing.tunnels import (
    ANY,
    BROKEN,
    DISCONNECTED,
    ID_HEADER,
    INGRESS_PORT,
    PORT_HEADER,
    REASON_HEADER,
    ROUTER_PAIR,
    STAND_IN_HEADER,
    TRUST,
    WINDOWS,
    Held,
)

BRIDGE = 8
"""How often a request is tried again that found no tunnel."""
INSTEAD = "instead"
"""A router's listener inside of itself, and the cluster that leads there: see `instead`."""
Route = Callable[[str, str], list[Config]]
"""Makes the routes to one cluster, given its name and who serves there."""


def tunnel_cluster(backend: TunnelBackend) -> Config:
    """The tunnel servers that hold one laptop's tunnels: HTTP/2 over mTLS, with the routers' certificate."""
    names = [{"san_type": "DNS", "matcher": {"exact": "tunnel.sandlane"}}]
    tls = {
        "@type": EXTENSION + "transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": "tunnel.sandlane",
        "common_tls_context": {
            "alpn_protocols": ["h2"],
            "tls_certificate_sds_secret_configs": [{"name": ROUTER_PAIR, "sds_config": ADS}],
            "combined_validation_context": {
                "default_validation_context": {"match_typed_subject_alt_names": names},
                "validation_context_sds_secret_config": {"name": TRUST, "sds_config": ADS},
            },
        },
    }
    options = {
        "@type": EXTENSION + "upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {
            "http2_protocol_options": {
                "allow_connect": True,
                "connection_keepalive": {"interval": "2s", "timeout": "4s"},
                **WINDOWS,
            }
        },
    }
    return {
        "name": backend.name,
        "type": "EDS",
        "connect_timeout": "2s",
        "eds_cluster_config": {"eds_config": ADS},
        "circuit_breakers": UNLIMITED,
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
    }


def tunnel_assignment(backend: TunnelBackend, held: Held) -> Config:
    """The servers that hold the laptop's tunnels now; while none does, all of them: each answers why, and knows first when it is back."""
    servers = held.get(backend.identity) or held.get(ANY, frozenset())
    hosts = [{"endpoint": {"address": socket(address, INGRESS_PORT)}} for address in sorted(servers)]
    return {"cluster_name": backend.name, "endpoints": [{"lb_endpoints": hosts}] if hosts else []}


def or_baseline(backend: TunnelBackend) -> Config:
    """The same, and after `BRIDGE` attempts there the baseline."""
    clusters = {
        "@type": EXTENSION + "clusters.aggregate.v3.ClusterConfig",
        "clusters": [backend.name, INSTEAD],
    }
    return {
        "name": or_baseline_name(backend),
        "connect_timeout": "2s",
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": {"name": "envoy.clusters.aggregate", "typed_config": clusters},
        "circuit_breakers": UNLIMITED,
    }


def or_baseline_name(backend: TunnelBackend) -> str:
    """The name of that cluster."""
    return f"{backend.name}/or-baseline"


def tunnel_routes(front: FrontDoor, override: Override, backend: TunnelBackend, route: Route) -> list[Config]:
    """The routes to a laptop, or what stands in for it while it is not connected (the baseline does by itself)."""
    if not backend.connected and override.on_disconnect is OnDisconnect.FAIL:
        return [_disconnected(override)]
    headers = {ID_HEADER: backend.identity, PORT_HEADER: str(backend.port)}
    retry = _again(override.hold_seconds if override.on_disconnect is OnDisconnect.HOLD else 0)
    name = backend.name
    if override.on_disconnect is OnDisconnect.BASELINE:
        name, retry = or_baseline_name(backend), retry | _AT_LAST
        headers[STAND_IN_HEADER] = front.baseline.name
    routes = route(name, f"{override.sandbox}/local")
    for each in routes:
        each["request_headers_to_add"] = [
            {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
            for key, value in headers.items()
        ]
        each["route"] = {**each["route"], "retry_policy": retry}
    return routes


def own_replies() -> Config:
    """Says why on a 503 of the router itself to a request that was meant for a laptop: no tunnel server took it, or one broke off."""
    unavailable = {"comparison": {"op": "EQ", "value": {"default_value": 503, "runtime_key": "none"}}}
    meant = [
        {"status_code_filter": unavailable},
        {"header_filter": {"header": {"name": PORT_HEADER, "present_match": True}}},
    ]
    never = {"response_flag_filter": {"flags": ["UF", "UH"]}}

    def mapper(reason: str, *filters: Config) -> Config:
        header = {"header": {"key": REASON_HEADER, "value": reason}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
        return {"filter": {"and_filter": {"filters": [*meant, *filters]}}, "headers_to_add": [header]}

    return {"mappers": [mapper(DISCONNECTED, never), mapper(BROKEN)]}


def whole_connections(front: FrontDoor) -> Config:
    """What a door's TCP proxy does otherwise when a laptop takes whole connections: each is a CONNECT into the tunnel."""
    found = front.overrides.whole
    if found is None or not isinstance(backend := found[1].backend, TunnelBackend):
        return {}
    override = found[1]
    if not backend.connected and override.on_disconnect is OnDisconnect.BASELINE:
        return {}
    headers = ((ID_HEADER, backend.identity), (PORT_HEADER, str(backend.port)))
    attempts = override.hold_seconds * 8 if override.on_disconnect is OnDisconnect.HOLD else BRIDGE
    return {
        "cluster": backend.name,
        "tunneling_config": {
            "hostname": f"{backend.local_workload}:{backend.port}",
            "headers_to_add": [
                {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
                for key, value in headers
            ],
        },
        "max_connect_attempts": attempts,
        "backoff_options": {"base_interval": "0.25s", "max_interval": "0.25s"},
    }


def _disconnected(override: Override) -> Config:
    """The 503 that says why."""
    text = f"the laptop that stands in for this workload in sandbox {override.sandbox} is not connected\n"
    return {
        "name": f"{override.sandbox}/local",
        "match": {"prefix": "/"},
        "direct_response": {"status": 503, "body": {"inline_string": text}},
        "response_headers_to_add": [
            {"header": {"key": REASON_HEADER, "value": DISCONNECTED}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
        ],
    }


def _again(hold: int) -> Config:
    """Try a request again that no laptop has seen, at another tunnel server first: for about a second, which bridges a tunnel that
    broke or a server that goes; or for `hold` seconds. Envoy waits a random time up to the interval, half of it on average."""
    return {
        "retry_on": "connect-failure,refused-stream,reset-before-request,retriable-headers",
        "retriable_headers": [{"name": REASON_HEADER, "string_match": {"exact": DISCONNECTED}}],
        "num_retries": max(BRIDGE, hold * 8),
        "retry_back_off": {"base_interval": "0.05s" if not hold else "0.25s", "max_interval": "0.25s"},
        "retry_host_predicate": [{"name": "envoy.retry_host_predicates.previous_hosts", "typed_config": _PREVIOUS}],
        "host_selection_retry_max_attempts": 2,
    }


_AT_LAST = {
    "num_retries": BRIDGE + 2,
    "retry_priority": {
        "name": "envoy.retry_priorities.previous_priorities",
        "typed_config": {
            "@type": EXTENSION + "retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
            "update_frequency": BRIDGE,
        },
    },
}
_PREVIOUS = {"@type": EXTENSION + "retry.host.previous_hosts.v3.PreviousHostsPredicate"}
