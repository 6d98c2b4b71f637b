"""A door's listener: HTTP by key, everything else to the baseline untouched. Pure."""

from __future__ import annotations

from sandlane.routing.envoy.clusters import PRESERVE_CASE
from sandlane.routing.envoy.encode import ADS, EXTENSION, Config, socket
from sandlane.routing.envoy.filter import lua
from sandlane.routing.key import KeySources
from sandlane.routing.table import FrontDoor


def listener(front: FrontDoor, address: str, sources: KeySources) -> Config:
    """A door's listener: HTTP by key, everything else to the baseline untouched."""
    name = str(front.door)
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
            "address": socket(address, front.listener, "UDP"),
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
    made: Config = {"name": name, "address": socket(address, front.listener), "stat_prefix": "door"}
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
        "rds": {"route_config_name": routes, "config_source": ADS},
        "generate_request_id": False,
        "preserve_external_request_id": True,
        "server_header_transformation": "PASS_THROUGH",
        "skip_xff_append": True,
        "use_remote_address": False,
        "stream_idle_timeout": "0s",
        "request_timeout": "0s",
        "max_request_headers_kb": 96,
        "normalize_path": False,
        "http_protocol_options": {"header_key_format": PRESERVE_CASE, "accept_http_10": True},
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
