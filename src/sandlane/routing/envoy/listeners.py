"""A door's listener: HTTP by key, everything else to the baseline untouched. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from sandlane.routing.envoy.clusters import PRESERVE_CASE
from sandlane.routing.envoy.encode import EXTENSION, Config, socket
from sandlane.routing.envoy.filter import BASELINE_HEADER, KEY_HEADER, PROTO_HEADER, lua
from sandlane.routing.envoy.filter import NAME as FILTER
from sandlane.routing.envoy.probe import probe_log
from sandlane.routing.envoy.routes import SERVED_BY, door_name, first_key, scoped_routes
from sandlane.routing.envoy.tunnel_clusters import own_replies, whole_connections
from sandlane.routing.key import KeySources
from sandlane.routing.table import FrontDoor

ACCESS_LOGS = ("none", "failures", "overrides", "all")
SNIFF = 0.3
"""Seconds that a connection of unknown protocol is looked at before it goes on as TCP."""


class DoorOptions(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """What is the same at every door. `access_log`: one of `ACCESS_LOGS`."""

    keys: KeySources = KeySources()
    access_log: str = "failures"


def listener(front: FrontDoor, options: DoorOptions) -> Config:
    """A door's listener, but for the address, which is each router's own."""
    name = str(front.door)
    if front.protocol == "udp":
        return _udp(front, name)
    proxy: Config = {
        "@type": EXTENSION + "filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "tcp",
        "cluster": front.baseline.name,
        "idle_timeout": "0s",
    }
    if front.sticky:
        proxy["hash_policy"] = [{"source_ip": {}}]
    proxy |= whole_connections(front)
    tcp = {"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}]}
    made: Config = {"name": name, "address": socket("", front.listener), "stat_prefix": "door"}
    if front.protocol == "tcp":
        return made | {"filter_chains": [tcp]}
    manager = {"name": "envoy.filters.network.http_connection_manager", "typed_config": _manager(front, options)}
    http: Config = {"filters": [manager]}
    if front.protocol == "http":
        return made | {"filter_chains": [http]}
    sniffer = {
        "name": "envoy.filters.listener.http_inspector",
        "typed_config": {"@type": EXTENSION + "filters.listener.http_inspector.v3.HttpInspector"},
    }
    http["filter_chain_match"] = {"application_protocols": ["http/1.0", "http/1.1", "h2c"]}
    return made | {
        "listener_filters": [sniffer],
        "listener_filters_timeout": f"{SNIFF}s",
        "continue_on_listener_filters_timeout": True,
        "filter_chains": [http],
        "default_filter_chain": tcp,
    }


def _udp(front: FrontDoor, name: str) -> Config:
    route = {"@type": EXTENSION + "filters.udp.udp_proxy.v3.Route", "cluster": front.baseline.name}
    udp: Config = {
        "@type": EXTENSION + "filters.udp.udp_proxy.v3.UdpProxyConfig",
        "stat_prefix": "udp",
        "matcher": {"on_no_match": {"action": {"name": "route", "typed_config": route}}},
    }
    if front.sticky:
        udp["hash_policies"] = [{"source_ip": True}]
    return {
        "name": name,
        "address": socket("", front.listener, "UDP"),
        "listener_filters": [{"name": "envoy.filters.udp_listener.udp_proxy", "typed_config": udp}],
    }


def _first(front: FrontDoor, keys: KeySources) -> Config:
    """What happens to a request's headers before anything else: ours are set, whatever the client sent."""
    values = {
        BASELINE_HEADER: front.baseline.name,
        PROTO_HEADER: "%REQ(X-FORWARDED-PROTO)%",
        KEY_HEADER: first_key(keys),
    }
    return early(values)


def early(values: Mapping[str, str]) -> Config:
    """Sets headers of a request before anything else happens to it."""
    appended = [
        {"append": {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}}
        for key, value in values.items()
    ]
    return {
        "name": "envoy.http.early_header_mutation.header_mutation",
        "typed_config": {
            "@type": EXTENSION + "http.early_header_mutation.header_mutation.v3.HeaderMutation",
            "mutations": appended,
        },
    }


def as_it_comes(name: str) -> Config:
    """What every HTTP manager has: no header added, removed or recased beyond the documented list, no time limit."""
    return {
        "@type": EXTENSION + "filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "codec_type": "AUTO",
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
    }


def _manager(front: FrontDoor, options: DoorOptions) -> Config:
    return as_it_comes("door") | {
        "scoped_routes": scoped_routes(front.door.namespace),
        "early_header_mutation_extensions": [_first(front, options.keys)],
        "local_reply_config": own_replies(),
        "access_log": [
            *_access_log(options.access_log, str(front.door)),
            probe_log(str(front.door), options.keys.headers),
        ],
        "http_filters": [
            {
                "name": FILTER,
                "typed_config": {
                    "@type": EXTENSION + "filters.http.lua.v3.Lua",
                    "default_source_code": {
                        "inline_string": lua(options.keys, door_name(front.door), strip=front.edge)
                    },
                },
            },
            _served_by(),
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": EXTENSION + "filters.http.router.v3.Router", "suppress_envoy_headers": True},
            },
        ],
    }


def _served_by() -> Config:
    """Names who served the request in its answer, for requests that ask: all others have no route yet when their filters are made,
    which leaves this one off, at no cost."""
    header = {
        "header": {"key": SERVED_BY, "value": "%ROUTE_NAME%"},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }
    names = {
        "@type": EXTENSION + "filters.http.header_mutation.v3.HeaderMutation",
        "mutations": {"response_mutations": [{"append": header}]},
    }
    return {"name": SERVED_BY, "typed_config": names, "disabled": True}


def _access_log(which: str, door: str) -> list[Config]:
    """One line for each request that an override served or that failed here, or for more or fewer of them."""
    if which == "none":
        return []
    line = (
        "%START_TIME% %REQ(:METHOD)% %REQ(:AUTHORITY)%%REQ(:PATH)% %PROTOCOL% %RESPONSE_CODE% %RESPONSE_FLAGS% %DURATION%ms "
        "door=DOOR served-by=%ROUTE_NAME% to=%UPSTREAM_HOST% from=%DOWNSTREAM_REMOTE_ADDRESS%\n"
    )
    failed: Config = {"response_flag_filter": {}}
    overridden: Config = {
        "extension_filter": {
            "name": "overridden",
            "typed_config": {
                "@type": EXTENSION + "access_loggers.filters.cel.v3.ExpressionFilter",
                "expression": "xds.route_name != 'baseline'",
            },
        }
    }
    filters: dict[str, Config] = {"failures": failed, "overrides": {"or_filter": {"filters": [failed, overridden]}}}
    log: Config = {
        "name": "envoy.access_loggers.stdout",
        "typed_config": {
            "@type": EXTENSION + "access_loggers.stream.v3.StdoutAccessLog",
            "log_format": {"text_format_source": {"inline_string": line.replace("DOOR", door)}},
        },
    }
    return [log | ({"filter": filters[which]} if which in filters else {})]
