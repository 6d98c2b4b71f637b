"""Envoy's start-up configuration as the Service proxy: everything else comes from the agent's xDS server."""

from __future__ import annotations

from typing import Any

NODE = "sandlane-service-proxy"
"""The node id by which the xDS server knows the Service proxy."""
_XDS_CLUSTER = "agent"


def bootstrap(xds: tuple[str, int], admin: str = "") -> dict[str, Any]:
    """The configuration; `xds` is the address of the agent's server, `admin` a Unix socket's path or empty."""
    host, port = xds
    config: dict[str, Any] = {
        "node": {"id": NODE, "cluster": NODE},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [
                    {
                        "envoy_grpc": {
                            "cluster_name": _XDS_CLUSTER,
                            # after a restart of the agent the proxy is back within a second
                            "retry_policy": {"retry_back_off": {"base_interval": "0.1s", "max_interval": "1s"}},
                        }
                    }
                ],
            },
            "cds_config": {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"},
            "lds_config": {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"},
        },
        "static_resources": {
            "clusters": [
                {
                    "name": _XDS_CLUSTER,
                    "type": "STATIC",
                    "connect_timeout": "1s",
                    "typed_extension_protocol_options": {
                        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                            "explicit_http_config": {
                                "http2_protocol_options": {
                                    "connection_keepalive": {"interval": "30s", "timeout": "10s"}
                                }
                            },
                        }
                    },
                    "load_assignment": {
                        "cluster_name": _XDS_CLUSTER,
                        "endpoints": [
                            {
                                "lb_endpoints": [
                                    {"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}}
                                ]
                            }
                        ],
                    },
                }
            ]
        },
        "stats_flush_interval": "60s",
    }
    if admin:
        config["admin"] = {"address": {"pipe": {"path": admin, "mode": 0o600}}}
    return config
