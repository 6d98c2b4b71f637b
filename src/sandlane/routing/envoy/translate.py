"""From the route table to Envoy's resources for one router. Pure: the same table gives the same bytes.

Per front door: a listener on its port, a route configuration with an exact-match tree over the routing key, and one cluster (with
endpoints from EndpointSlices) for the baseline and for each override's destination.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.access_loggers.stream.v3 import stream_pb2  # noqa: F401 - known to ParseDict
from envoy.extensions.filters.http.lua.v3 import lua_pb2  # noqa: F401
from envoy.extensions.filters.http.router.v3 import router_pb2  # noqa: F401
from envoy.extensions.filters.listener.http_inspector.v3 import http_inspector_pb2  # noqa: F401
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2  # noqa: F401
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2  # noqa: F401
from envoy.extensions.filters.udp.udp_proxy.v3 import route_pb2 as udp_route_pb2  # noqa: F401
from envoy.extensions.filters.udp.udp_proxy.v3 import udp_proxy_pb2  # noqa: F401
from envoy.extensions.http.header_formatters.preserve_case.v3 import preserve_case_pb2  # noqa: F401
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2  # noqa: F401
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2  # noqa: F401
from envoy.type.matcher.v3 import http_inputs_pb2  # noqa: F401
from google.protobuf import json_format
from google.protobuf.message import Message

from sandlane.api.types import OnDisconnect
from sandlane.kube.resource import Key
from sandlane.routing.envoy.delta import CLUSTER, ENDPOINTS, ROUTES
from sandlane.routing.envoy.filter import KEY_HEADER, lua
from sandlane.routing.key import KeySources
from sandlane.routing.names import READY_PORT
from sandlane.routing.table import FrontDoor, Override, ServiceBackend, TunnelBackend
from sandlane.routing.tunnels import (
    DISCONNECTED,
    ID_HEADER,
    INGRESS_PORT,
    PORT_HEADER,
    REASON_HEADER,
    ROUTER_PAIR,
    TRUST,
    Held,
)
from sandlane.world.records import EndpointSlice, ServicePort
from sandlane.world.world import World

Resources = dict[str, dict[str, bytes]]
Config = dict[str, Any]
EXTENSION = "type.googleapis.com/envoy.extensions."
DEBUG_HEADER = "x-sandlane-debug"
"""A request with this header is told in `SERVED_BY` who served it."""
SERVED_BY = "x-sandlane-served-by"
DIGEST = "digest"
_UNLIMITED = {
    "thresholds": [dict.fromkeys(("max_connections", "max_pending_requests", "max_requests", "max_retries"), 1_000_000)]
}
_RETRY = {"retry_on": "connect-failure,refused-stream", "num_retries": 2, "retry_host_predicate": []}


def shared(
    world: World, doors: Iterable[FrontDoor], digest: str, sources: KeySources, held: Held | None = None
) -> Resources:
    """What is the same for all routers of a namespace: clusters, endpoints, routes."""
    clusters: dict[str, bytes] = {}
    endpoints: dict[str, bytes] = {}
    routes: dict[str, bytes] = {}
    for front in doors:
        for backend in (front.baseline, *(override.backend for override in front.overrides.values())):
            if backend.name in clusters:
                continue
            if isinstance(backend, ServiceBackend):
                clusters[backend.name] = _bytes(cluster(backend), cluster_pb2.Cluster())
                hosts = assignment(world, backend)
            else:
                clusters[backend.name] = _bytes(tunnel_cluster(backend), cluster_pb2.Cluster())
                hosts = tunnel_assignment(backend, held or {})
            endpoints[backend.name] = _bytes(hosts, endpoint_pb2.ClusterLoadAssignment())
        if front.protocol in ("http", "sniff"):
            routes[_name(front)] = _bytes(route_configuration(front), route_pb2.RouteConfiguration())
    routes[DIGEST] = _bytes(_digest_routes(digest), route_pb2.RouteConfiguration())
    return {CLUSTER: clusters, ENDPOINTS: endpoints, ROUTES: routes}


def listeners(doors: Iterable[FrontDoor], address: str, sources: KeySources) -> dict[str, bytes]:
    """The listeners of one router, which all listen on its own address."""
    made = {_name(front): listener(front, address, sources) for front in doors}
    made[DIGEST] = _digest_listener(address)
    return {name: _bytes(config, listener_pb2.Listener()) for name, config in made.items()}


def _name(front: FrontDoor) -> str:
    return str(front.door)


def _bytes(config: Config, message: Message) -> bytes:
    return json_format.ParseDict(config, message).SerializeToString(deterministic=True)


# -- clusters and endpoints -------------------------------------------------------------------------------


def cluster(backend: ServiceBackend) -> Config:
    """A cluster whose endpoints come by EDS; requests go on in the protocol in which they came."""
    protocol = {
        "@type": EXTENSION + "upstreams.http.v3.HttpProtocolOptions",
        "use_downstream_protocol_config": {
            "http_protocol_options": {"header_key_format": _PRESERVE_CASE},
            "http2_protocol_options": {},
        },
    }
    return {
        "name": backend.name,
        "type": "EDS",
        "connect_timeout": "5s",
        "eds_cluster_config": {"eds_config": {"ads": {}, "resource_api_version": "V3"}},
        "circuit_breakers": _UNLIMITED,
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": protocol},
    }


_PRESERVE_CASE = {
    "stateful_formatter": {
        "name": "preserve_case",
        "typed_config": {"@type": EXTENSION + "http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig"},
    }
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
        {"endpoint": {"address": _socket(address, number, port.protocol if port else "TCP")}}
        for address, number in sorted(found)
    ]
    return {"cluster_name": backend.name, "endpoints": [{"lb_endpoints": hosts}] if hosts else []}


def tunnel_cluster(backend: TunnelBackend) -> Config:
    """The tunnel servers that hold one laptop's tunnels: HTTP/2 over mTLS, with the routers' certificate."""
    ads = {"ads": {}, "resource_api_version": "V3"}
    names = [{"san_type": "DNS", "matcher": {"exact": "tunnel.sandlane"}}]
    tls = {
        "@type": EXTENSION + "transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": "tunnel.sandlane",
        "common_tls_context": {
            "alpn_protocols": ["h2"],
            "tls_certificate_sds_secret_configs": [{"name": ROUTER_PAIR, "sds_config": ads}],
            "combined_validation_context": {
                "default_validation_context": {"match_typed_subject_alt_names": names},
                "validation_context_sds_secret_config": {"name": TRUST, "sds_config": ads},
            },
        },
    }
    options = {
        "@type": EXTENSION + "upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {
            "http2_protocol_options": {
                "allow_connect": True,
                "connection_keepalive": {"interval": "2s", "timeout": "2s"},
            }
        },
    }
    return {
        "name": backend.name,
        "type": "EDS",
        "connect_timeout": "2s",
        "eds_cluster_config": {"eds_config": ads},
        "circuit_breakers": _UNLIMITED,
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
    }


def tunnel_assignment(backend: TunnelBackend, held: Held) -> Config:
    """The servers that hold the laptop's tunnels now."""
    hosts = [
        {"endpoint": {"address": _socket(address, INGRESS_PORT)}} for address in sorted(held.get(backend.identity, ()))
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


def _socket(address: str, port: int, protocol: str = "TCP") -> Config:
    return {"socket_address": {"address": address, "port_value": port, "protocol": protocol}}


# -- listeners --------------------------------------------------------------------------------------------


def listener(front: FrontDoor, address: str, sources: KeySources) -> Config:
    """A door's listener: HTTP by key, everything else to the baseline untouched."""
    name = _name(front)
    if front.protocol == "udp":
        matcher = {
            "on_no_match": {
                "action": {
                    "name": "route",
                    "typed_config": {
                        "@type": EXTENSION + "filters.udp.udp_proxy.v3.Route",
                        "cluster": front.baseline.name,
                    },
                }
            }
        }
        udp = {"@type": EXTENSION + "filters.udp.udp_proxy.v3.UdpProxyConfig", "stat_prefix": "udp", "matcher": matcher}
        return {
            "name": name,
            "address": _socket(address, front.listener, "UDP"),
            "listener_filters": [{"name": "envoy.filters.udp_listener.udp_proxy", "typed_config": udp}],
        }
    tcp = {
        "filters": [
            {
                "name": "envoy.filters.network.tcp_proxy",
                "typed_config": {
                    "@type": EXTENSION + "filters.network.tcp_proxy.v3.TcpProxy",
                    "stat_prefix": "tcp",
                    "cluster": front.baseline.name,
                    "idle_timeout": "0s",
                },
            }
        ]
    }
    made: Config = {"name": name, "address": _socket(address, front.listener), "stat_prefix": "door"}
    if front.protocol == "tcp":
        return made | {"filter_chains": [tcp]}
    http: Config = {
        "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": _manager(name, sources)}]
    }
    if front.protocol == "http":
        return made | {"filter_chains": [http]}
    sniffer = {
        "name": "envoy.filters.listener.http_inspector",
        "typed_config": {"@type": EXTENSION + "filters.listener.http_inspector.v3.HttpInspector"},
    }
    http["filter_chain_match"] = {"application_protocols": ["http/1.0", "http/1.1", "h2c"]}
    return made | {
        "listener_filters": [sniffer],
        "listener_filters_timeout": "0.3s",
        "continue_on_listener_filters_timeout": True,
        "filter_chains": [http],
        "default_filter_chain": tcp,
    }


def _manager(routes: str, sources: KeySources) -> Config:
    """HTTP as it comes: no header added, removed or recased beyond the documented list, no time limit."""
    return {
        "@type": EXTENSION + "filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "door",
        "codec_type": "AUTO",
        "rds": {"route_config_name": routes, "config_source": {"ads": {}, "resource_api_version": "V3"}},
        "generate_request_id": False,
        "preserve_external_request_id": True,
        "server_header_transformation": "PASS_THROUGH",
        "skip_xff_append": True,
        "use_remote_address": False,
        "stream_idle_timeout": "0s",
        "request_timeout": "0s",
        "max_request_headers_kb": 96,
        "normalize_path": False,
        "http_protocol_options": {"header_key_format": _PRESERVE_CASE, "accept_http_10": True},
        "http2_protocol_options": {"allow_connect": True},
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "access_log": [_access_log()],
        "http_filters": [
            {
                "name": "envoy.filters.http.lua",
                "typed_config": {
                    "@type": EXTENSION + "filters.http.lua.v3.Lua",
                    "default_source_code": {"inline_string": lua(sources)},
                },
            },
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": EXTENSION + "filters.http.router.v3.Router", "suppress_envoy_headers": True},
            },
        ],
    }


def _access_log() -> Config:
    """One line per request that an override served, or that failed here."""
    line = (
        "%START_TIME% %REQ(:METHOD)% %REQ(:AUTHORITY)%%REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %DURATION%ms "
        "door=%ROUTE_NAME% to=%UPSTREAM_CLUSTER%\n"
    )
    return {
        "name": "envoy.access_loggers.stdout",
        "filter": {"response_flag_filter": {}},
        "typed_config": {
            "@type": EXTENSION + "access_loggers.stream.v3.StdoutAccessLog",
            "log_format": {"text_format_source": {"inline_string": line}},
        },
    }


# -- routes -----------------------------------------------------------------------------------------------


def route_configuration(front: FrontDoor) -> Config:
    """A door's routes: an exact-match tree over the key, the baseline where it has no entry."""
    baseline = _route(front.baseline.name, "baseline")
    host: Config = {"name": "all", "domains": ["*"]}
    entries = {key: {"action": _list(_override(front, o))} for key, o in sorted(front.overrides.items())}
    if entries:
        host["matcher"] = {
            "matcher_tree": {
                "input": {
                    "name": "key",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput",
                        "header_name": KEY_HEADER,
                    },
                },
                "exact_match_map": {"map": entries},
            },
            "on_no_match": {"action": _list(baseline)},
        }
    else:  # Envoy refuses an empty map
        host["routes"] = baseline
    return {"name": _name(front), "virtual_hosts": [host], "request_headers_to_remove": [KEY_HEADER]}


def _list(routes: list[Config]) -> Config:
    return {
        "name": "routes",
        "typed_config": {"@type": "type.googleapis.com/envoy.config.route.v3.RouteList", "routes": routes},
    }


def _override(front: FrontDoor, override: Override) -> list[Config]:
    backend = override.backend
    if isinstance(backend, ServiceBackend):
        return _route(backend.name, f"{override.sandbox}/{override.workload}")
    if not backend.connected and override.on_disconnect is OnDisconnect.BASELINE:
        return _route(front.baseline.name, "baseline")
    if not backend.connected and override.on_disconnect is OnDisconnect.FAIL:
        return [_disconnected(override)]
    routes = _route(backend.name, f"{override.sandbox}/local")
    for route in routes:
        route["request_headers_to_add"] = [
            {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
            for key, value in ((ID_HEADER, backend.identity), (PORT_HEADER, str(backend.port)))
        ]
        if override.on_disconnect is OnDisconnect.HOLD:
            route["route"] = {**route["route"], "retry_policy": _hold(override.hold_seconds)}
    return routes


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


def _hold(seconds: int) -> Config:
    """Try again, four times a second, for as long as a disconnected laptop is waited for."""
    return {
        "retry_on": "connect-failure,refused-stream,reset-before-request,retriable-headers,retriable-status-codes",
        "retriable_headers": [{"name": REASON_HEADER, "string_match": {"exact": DISCONNECTED}}],
        "num_retries": max(1, seconds * 4),
        "retry_back_off": {"base_interval": "0.25s", "max_interval": "0.25s"},
    }


def _route(cluster_name: str, served_by: str) -> list[Config]:
    """To one cluster; the answer names it for those who ask."""
    action = {
        "cluster": cluster_name,
        "timeout": "0s",
        "idle_timeout": "0s",
        "retry_policy": _RETRY,
        "max_stream_duration": {"max_stream_duration": "0s"},
    }
    asked = {"prefix": "/", "headers": [{"name": DEBUG_HEADER, "present_match": True}]}
    named = {"header": {"key": SERVED_BY, "value": served_by}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
    return [
        {"name": served_by, "match": asked, "route": action, "response_headers_to_add": [named]},
        {"name": served_by, "match": {"prefix": "/"}, "route": action},
    ]


# -- the digest -------------------------------------------------------------------------------------------


def _digest_listener(address: str) -> Config:
    manager = {
        "@type": EXTENSION + "filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "digest",
        "rds": {"route_config_name": DIGEST, "config_source": {"ads": {}, "resource_api_version": "V3"}},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": EXTENSION + "filters.http.router.v3.Router"},
            }
        ],
    }
    return {
        "name": DIGEST,
        "address": _socket(address, READY_PORT),
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }


def _digest_routes(digest: str) -> Config:
    route = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": digest}}}
    return {"name": DIGEST, "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]}
