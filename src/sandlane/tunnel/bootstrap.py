"""The tunnel server's start-up configuration, as plain values for Envoy's `--config-yaml`.

The tunnel server (`sandlane-tunnel`) has three doors: `front` (mTLS; laptops dial it and ask for the upgrade),
`accept` (from the same Pod only; Envoy's reverse-tunnel filter takes over the upgraded connections) and `ingress` (mTLS; routers
send the requests that laptops shall answer, managers ask for the tunnels' state).

TLS ends at `front`, an ordinary HTTP listener: with mTLS on the reverse-tunnel filter itself only the handshake would
be encrypted. `front` overwrites both the node id and the cluster id with the identity in the client certificate,
because a laptop chooses its own headers, and Envoy picks a tunnel by either of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from sandlane.routing.tunnels import BROKEN, DISCONNECTED, INGRESS_PORT, REASON_HEADER, TRUST, WINDOWS

Config = dict[str, Any]

NODE_HEADER = "x-envoy-reverse-tunnel-node-id"
WORKLOAD_HEADER = "x-sandlane-tunnel-workload"
"""At `front`, from the certificate: the LocalWorkload, whoever holds it."""
IDENTITY_HEADER = "x-sandlane-tunnel-identity"
"""Set at `ingress`: the client whose tunnel carries the request."""
STATS = "stats"
"""In place of an identity on a manager's request to `ingress`: the server's own `/stats`."""
STAT_PREFIX = "tunnel"
REPLICA_HEADER = "x-sandlane-tunnel-replica"
"""On the answer to a handshake: which replica holds the tunnel."""
WORKERS_HEADER = "x-sandlane-tunnel-workers"
"""On the answer to a handshake: how many tunnels that replica needs (Envoy keeps tunnels per worker thread)."""
HANDSHAKE_PATH = "/reverse_connections/request"
UPGRADE = "reverse-tunnel"
PING = "ping"
SERVER_NAME = "tunnel.sandlane"
"""The DNS name in the tunnel servers' certificate."""
ROUTER_NAME = "router.sandlane"
"""The DNS name in the routers' certificate; no other may use `ingress`."""
SERVER_PAIR = "tunnel/server"
NODE_CLUSTER = "sandlane-tunnel"
FRONT_ROUTES = "tunnel/front"
INGRESS_ROUTES = "tunnel/ingress"
LAPTOPS_CLUSTER = "laptops"
ACCEPT_CLUSTER = "accept"
ADMIN_CLUSTER = "admin"

_TYPE = "type.googleapis.com/envoy.extensions."
_UNLIMITED = {
    "thresholds": [dict.fromkeys(("max_connections", "max_pending_requests", "max_requests", "max_retries"), 1_000_000)]
}
_KEEPALIVE = {"interval": "2s", "timeout": "4s"}


class ServerOptions(msgspec.Struct, frozen=True):
    """How a tunnel server is reached. Texts may hold `$(VAR)` for Kubernetes to fill in."""

    address: str = "$(POD_IP)"
    replica: str = "$(POD_NAME)"
    front_port: int = 8443
    accept_port: int = 8442
    ingress_port: int = INGRESS_PORT
    workers: int = 1
    """Threads. Envoy keeps tunnels per thread, and tunnels that come back after a break may all land on the same one; requests on the
    others then fail for good. So one, and more servers for more laptops."""
    certificate: str = ""
    key: str = ""
    ca: str = ""
    """Files; by default the certificates come from the xDS server (SDS)."""
    loopback: bool = False
    """Listen for laptops at 127.0.0.1, too: there a port-forward ends in a cluster where each Pod has its own."""
    max_streams: int = 10_000
    """Requests at once over one connection."""
    max_header_kib: int = 96
    max_body: int = 16 << 30
    """Bytes of a request's body, where its length is told."""
    max_tunnels: int = 16
    """Tunnels of one client to one server."""
    buffer: int = 1 << 20
    """Bytes that one connection may hold back in memory before its sender has to wait."""


def server_bootstrap(options: ServerOptions, rds: Mapping[str, Config], extra: Config | None = None) -> Config:
    """The tunnel server. `rds` gives the `config_source` of its two route tables by name; `extra` is merged in at the
    top (admin, dynamic_resources, clusters for the xDS server)."""
    extra = dict(extra or {})
    admin = f"@sandlane-tunnel-admin-{options.replica}"  # an abstract socket: seen from this Pod only, no file
    clusters = [
        _laptops_cluster(options),
        _static_cluster(ACCEPT_CLUSTER, options.address, options.accept_port),
        _static_cluster(ADMIN_CLUSTER, admin, 0),
    ]
    return {
        "admin": {"address": _socket(admin, 0)},
        "node": {"id": options.replica, "cluster": NODE_CLUSTER},
        "bootstrap_extensions": [
            {
                "name": "envoy.bootstrap.reverse_tunnel.upstream_socket_interface",
                "typed_config": {
                    "@type": _TYPE
                    + "bootstrap.reverse_tunnel.upstream_socket_interface.v3.UpstreamReverseConnectionSocketInterface",
                    "stat_prefix": STAT_PREFIX,
                    "enable_detailed_stats": True,
                    "ping_failure_threshold": 2,
                    "max_connections_per_node": options.max_tunnels,
                },
            }
        ],
        "static_resources": {
            "listeners": [_front(options, rds), _accept(options), _ingress(options, rds)],
            "clusters": clusters + extra.pop("clusters", []),
        },
        **extra,
    }


def _front(options: ServerOptions, rds: Mapping[str, Config]) -> Config:
    identity, address = "%DOWNSTREAM_PEER_DNS_SAN%", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"
    manager = _http_manager("front", FRONT_ROUTES, rds)
    manager |= {
        "codec_type": "HTTP1",
        "upgrade_configs": [{"upgrade_type": UPGRADE}],
        "max_request_headers_kb": 16,
        "request_headers_timeout": "5s",
        "early_header_mutation_extensions": [
            {
                "name": "envoy.http.early_header_mutation.header_mutation",
                "typed_config": {
                    "@type": _TYPE + "http.early_header_mutation.header_mutation.v3.HeaderMutation",
                    "mutations": [
                        _overwrite(NODE_HEADER, identity),
                        _overwrite("x-envoy-reverse-tunnel-cluster-id", f"{identity}@{address}"),
                        _overwrite(WORKLOAD_HEADER, "%DOWNSTREAM_PEER_URI_SAN%"),
                        _overwrite("x-envoy-reverse-tunnel-tenant-id", "sandlane"),
                    ],
                },
            }
        ],
    }
    made = _listener("front", options, options.front_port, manager, _server_tls(options))
    if options.loopback:
        made["additional_addresses"] = [{"address": _socket("127.0.0.1", options.front_port)}]
    return made


def _overwrite(name: str, value: str) -> Config:
    return {"append": {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}}


def _accept(options: ServerOptions) -> Config:
    """Whoever gets here needs no certificate: only this Pod does."""
    return {
        "name": "accept",
        "address": _socket(options.address, options.accept_port),
        "filter_chains": [
            {
                "filter_chain_match": {"source_type": "SAME_IP_OR_LOOPBACK"},
                "filters": [
                    {
                        "name": "envoy.filters.network.reverse_tunnel",
                        "typed_config": {
                            "@type": _TYPE + "filters.network.reverse_tunnel.v3.ReverseTunnel",
                            "ping_interval": "2s",
                            "use_http_upgrade": True,
                        },
                    }
                ],
            }
        ],
    }


def _ingress(options: ServerOptions, rds: Mapping[str, Config]) -> Config:
    manager = _http_manager("ingress", INGRESS_ROUTES, rds)
    manager |= {
        "codec_type": "AUTO",
        "http2_protocol_options": {"allow_connect": True, "max_concurrent_streams": options.max_streams, **WINDOWS},
        "max_request_headers_kb": options.max_header_kib,
        "upgrade_configs": [{"upgrade_type": "websocket"}, {"upgrade_type": "CONNECT"}],
        "local_reply_config": {
            "mappers": [
                _own_reply(DISCONNECTED, "the laptop is not connected\n", _flags("UF", "UH", "UO", "NR", "URX")),
                _own_reply(BROKEN, "the connection to the laptop broke before it answered\n"),
            ]
        },
    }
    return _listener(
        "ingress",
        options,
        options.ingress_port,
        manager,
        _server_tls(options, ["h2", "http/1.1"], only_routers=True),
    )


def _flags(*flags: str) -> Config:
    """Envoy never passed the request on."""
    return {"response_flag_filter": {"flags": list(flags)}}


def _own_reply(reason: str, text: str, *also: Config) -> Config:
    """Marks a 503 of ours with its reason, so that nobody takes it for the application's own. One that was never passed on
    may be tried again by a router, whatever its method is."""
    status = {
        "status_code_filter": {"comparison": {"op": "EQ", "value": {"default_value": 503, "runtime_key": "none"}}}
    }
    return {
        "filter": {"and_filter": {"filters": [status, *also]}} if also else status,
        "headers_to_add": [
            {"header": {"key": REASON_HEADER, "value": reason}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
        ],
        "body_format_override": {"text_format_source": {"inline_string": text}},
    }


def _http_manager(name: str, routes: str, rds: Mapping[str, Config]) -> Config:
    return {
        "@type": _TYPE + "filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "stream_idle_timeout": "0s",
        "generate_request_id": False,
        "server_header_transformation": "PASS_THROUGH",
        "skip_xff_append": True,
        "use_remote_address": False,
        "rds": {"route_config_name": routes, "config_source": rds[routes]},
        "http_filters": [_router_filter()],
    }


def _router_filter() -> Config:
    return {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": _TYPE + "filters.http.router.v3.Router", "suppress_envoy_headers": True},
    }


def _listener(name: str, options: ServerOptions, port: int, manager: Config, tls: Config) -> Config:
    return {
        "name": name,
        "address": _socket(options.address, port),
        "per_connection_buffer_limit_bytes": options.buffer,
        "filter_chains": [
            {
                "transport_socket": tls,
                "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}],
            }
        ],
    }


def _server_tls(options: ServerOptions, alpn: list[str] | None = None, *, only_routers: bool = False) -> Config:
    """mTLS with certificates from the xDS server, or from files."""
    common: Config = {"tls_params": {"tls_minimum_protocol_version": "TLSv1_2"}}
    names = [{"san_type": "DNS", "matcher": {"exact": ROUTER_NAME}}] if only_routers else []
    if options.certificate:
        pair = {"certificate_chain": {"filename": options.certificate}, "private_key": {"filename": options.key}}
        common["tls_certificates"] = [pair]
        common["validation_context"] = {"trusted_ca": {"filename": options.ca}} | (
            {"match_typed_subject_alt_names": names} if names else {}
        )
    else:
        ads = {"ads": {}, "resource_api_version": "V3"}
        common["tls_certificate_sds_secret_configs"] = [{"name": SERVER_PAIR, "sds_config": ads}]
        common["combined_validation_context"] = {
            "default_validation_context": {"match_typed_subject_alt_names": names} if names else {},
            "validation_context_sds_secret_config": {"name": TRUST, "sds_config": ads},
        }
    if alpn:
        common["alpn_protocols"] = alpn
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": _TYPE + "transport_sockets.tls.v3.DownstreamTlsContext",
            "require_client_certificate": True,
            "common_tls_context": common,
        },
    }


def _laptops_cluster(options: ServerOptions) -> Config:
    return {
        "name": LAPTOPS_CLUSTER,
        "connect_timeout": "2s",
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": {
            "name": "envoy.clusters.reverse_connection",
            "typed_config": {
                "@type": _TYPE + "clusters.reverse_connection.v3.ReverseConnectionClusterConfig",
                "cleanup_interval": "10s",
                "host_id_format": f"%REQ({IDENTITY_HEADER})%",
            },
        },
        "circuit_breakers": _UNLIMITED,
        "per_connection_buffer_limit_bytes": options.buffer,
        "typed_extension_protocol_options": _http2(
            {"connection_keepalive": _KEEPALIVE, "max_concurrent_streams": options.max_streams, **WINDOWS}
        ),
    }


def _http2(options: Config) -> Config:
    return {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": _TYPE + "upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": options},
        }
    }


def _socket(address: str, port: int) -> Config:
    if address.startswith("@"):
        return {"pipe": {"path": address}}
    return {"socket_address": {"address": address, "port_value": port}}


def _static_cluster(name: str, address: str, port: int, **options: Any) -> Config:
    endpoint = {"endpoint": {"address": _socket(address, port)}}
    return {
        "name": name,
        "connect_timeout": "2s",
        "type": "STATIC",
        "circuit_breakers": _UNLIMITED,
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        **options,
    }
