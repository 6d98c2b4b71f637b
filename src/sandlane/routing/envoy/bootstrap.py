"""A router's start-up configuration, passed in its arguments, so that its image is plain Envoy. Pure."""

from __future__ import annotations

from typing import Any

Config = dict[str, Any]
XDS = "xds"
HTTP2 = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def router_bootstrap(host: str, port: int, group: str) -> Config:
    """Envoy that gets everything by delta ADS from `host:port`. `$(VAR)` in texts is filled in by Kubernetes."""
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
                "grpc_services": [{"envoy_grpc": {"cluster_name": XDS}}],
                "set_node_on_first_message_only": True,
            },
            "cds_config": ads,
            "lds_config": ads,
        },
        "static_resources": {"clusters": [cluster]},
        "layered_runtime": {
            "layers": [{"name": "static", "static_layer": {"overload.global_downstream_max_connections": 50_000}}]
        },
    }
