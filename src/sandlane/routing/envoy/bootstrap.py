"""A router's start-up configuration, passed in its arguments, so that its image is plain Envoy. Pure."""

from __future__ import annotations

from typing import Any

from sandlane.routing.envoy.identity import Credentials, transport_socket

Config = dict[str, Any]
XDS = "xds"
HTTP2 = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

_BACK_OFF = {"base_interval": "0.2s", "max_interval": "5s"}
"""Between attempts to reach a manager: seconds, not half a minute as by default; with jitter."""


def router_bootstrap(host: str, port: int, group: str, credentials: Credentials) -> Config:
    """Envoy that gets everything by delta ADS from `host:port`, over mTLS. `$(VAR)` in texts is filled in by Kubernetes."""
    options = {
        "@type": f"type.googleapis.com/{HTTP2}",
        "explicit_http_config": {
            "http2_protocol_options": {"connection_keepalive": {"interval": "10s", "timeout": "5s"}}
        },
    }
    address = {"socket_address": {"address": host, "port_value": port}}
    cluster = {
        "name": XDS,
        "type": "STATIC" if host.replace(".", "").isdigit() else "STRICT_DNS",
        "connect_timeout": "5s",
        "transport_socket": transport_socket(credentials),
        "typed_extension_protocol_options": {HTTP2: options},
        "load_assignment": {"cluster_name": XDS, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]},
    }
    ads = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}
    return {
        "node": {"id": "$(POD_NAME)", "cluster": group},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": XDS, "retry_policy": {"retry_back_off": _BACK_OFF}}}],
                "set_node_on_first_message_only": True,
            },
            "cds_config": ads,
            "lds_config": ads,
        },
        "bootstrap_extensions": [
            {
                "name": "envoy.bootstrap.internal_listener",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener"
                },
            }
        ],
        "static_resources": {"clusters": [cluster]},
        "layered_runtime": {
            "layers": [{"name": "static", "static_layer": {"overload.global_downstream_max_connections": 50_000}}]
        },
    }
