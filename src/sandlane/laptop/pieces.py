"""Pieces of Envoy's configuration that both ways of a laptop use. Pure."""

from __future__ import annotations

from typing import Any

Config = dict[str, Any]

TYPE = "type.googleapis.com/envoy.extensions."
KEEPALIVE = {"interval": "2s", "timeout": "4s"}
UNLIMITED = {
    "thresholds": [dict.fromkeys(("max_connections", "max_pending_requests", "max_requests", "max_retries"), 1_000_000)]
}


def tcp(address: str, port: int) -> Config:
    """The address of a TCP port."""
    return {"socket_address": {"address": address, "port_value": port}}


def pipe(path: str, *, listen: bool = False) -> Config:
    """The address of a Unix socket; one to listen at is its user's alone."""
    return {"pipe": {"path": path} | ({"mode": 0o600} if listen else {})}


def cluster(name: str, address: Config, **options: Any) -> Config:
    """A cluster with one endpoint."""
    endpoint = {"endpoint": {"address": address}}
    return {
        "name": name,
        "connect_timeout": "2s",
        "type": "STATIC",
        "circuit_breakers": UNLIMITED,
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        **options,
    }


def upstream(**protocol: Any) -> Config:
    """Options of a cluster: how it speaks HTTP (`explicit_http_config` or `use_downstream_protocol_config`)."""
    name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {name: {"@type": TYPE + "upstreams.http.v3.HttpProtocolOptions", **protocol}}


def network_filter(name: str, config: Config) -> Config:
    """A network filter."""
    return {"name": f"envoy.filters.network.{name}", "typed_config": config}


def listener(name: str, address: Config, *chains: Config, **options: Any) -> Config:
    """A listener."""
    return {"name": name, "address": address, "filter_chains": list(chains), **options}


def http_manager(name: str, hosts: list[Config], **options: Any) -> Config:
    """An HTTP connection manager as a network filter: nothing of a request is changed that a route does not change."""
    router = {"@type": TYPE + "filters.http.router.v3.Router", "suppress_envoy_headers": True}
    config = {
        "@type": TYPE + "filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "codec_type": "AUTO",
        "stream_idle_timeout": "0s",
        "generate_request_id": False,
        "server_header_transformation": "PASS_THROUGH",
        "skip_xff_append": True,
        "use_remote_address": False,
        "upgrade_configs": [{"upgrade_type": "websocket"}, {"upgrade_type": "CONNECT"}],
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
        "route_config": {"name": name, "virtual_hosts": hosts},
        **options,
    }
    return network_filter("http_connection_manager", config)


def connect_to(name: str) -> Config:
    """The action of a route that takes a CONNECT request and gives the cluster a plain TCP connection."""
    return {"cluster": name, "timeout": "0s", "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}]}


def reply(status: int, text: str) -> Config:
    """The action of a route that answers by itself."""
    return {"status": status, "body": {"inline_string": text}}


def reason_of_503(header: str, reason: str, text: str) -> Config:
    """A mapper of local replies: a 503 of this Envoy's own says why, so that nobody takes it for the application's."""
    equal = {"op": "EQ", "value": {"default_value": 503, "runtime_key": "none"}}
    return {
        "filter": {"status_code_filter": {"comparison": equal}},
        "headers_to_add": [{"header": {"key": header, "value": reason}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}],
        "body_format_override": {"text_format": text},
    }


def is_address(host: str) -> bool:
    """Whether a host is an IP address rather than a name."""
    return ":" in host or host.replace(".", "").isdigit()
