"""The laptop's Envoy for requests that go out: a listener for each Service port, and an HTTP proxy for their names. Pure.

    program --> 127.0.0.1:N (a Service port)  --+
    program --> HTTP proxy, by name ------------+--> socket of the listener --> socket of the forwarder --> a Pod
    program --> SOCKS5, by name (Python) -------+         (the routing key goes in here)

What the proxy does not know goes where its name leads on this machine, so that other sites stay reachable.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from sandlane.laptop.pieces import (
    TYPE,
    Config,
    cluster,
    connect_to,
    http_manager,
    listener,
    network_filter,
    pipe,
    tcp,
    upstream,
)
from sandlane.laptop.services import LOOPBACK, Door
from sandlane.routing.key import MEMBER

PROXY = "proxy"
_ELSEWHERE = "elsewhere"
_DNS = {"name": "names", "dns_lookup_family": "V4_PREFERRED"}
_LOOK = "0.2s"
"""How long a client of a port of unknown protocol may stay silent: then it waits for the server, and it is not HTTP."""


def outbound_bootstrap(doors: Sequence[Door], namespace: str, folder: Path, key: str = "") -> Config:
    """Everything. `key` is the routing key that requests get which have none; empty: none."""
    listeners = [_door(number, door, folder, key) for number, door in enumerate(doors)]
    listeners.append(_proxy(doors, namespace))
    clusters: list[Config] = [_elsewhere()]
    for number, _ in enumerate(doors):
        same = upstream(use_downstream_protocol_config={"http_protocol_options": {}, "http2_protocol_options": {}})
        to_pod = cluster(f"pod/{number}", pipe(forwarder_socket(folder, number)), typed_extension_protocol_options=same)
        to_door = cluster(f"door/{number}", pipe(door_socket(folder, number)), typed_extension_protocol_options=same)
        clusters += [to_pod | {"connect_timeout": "10s"}, to_door]
    return {
        "admin": {"address": pipe(str(folder / "outbound.sock"), listen=True)},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    }


def door_name(number: int) -> str:
    """The name of a door's listener."""
    return f"door/{number}"


def door_socket(folder: Path, number: int) -> str:
    """Where a door's listener takes connections from the proxies."""
    return str(folder / f"d{number}")


def forwarder_socket(folder: Path, number: int) -> str:
    """Where a door's connections to Pods are made."""
    return str(folder / f"p{number}")


def _door(number: int, door: Door, folder: Path, key: str) -> Config:
    name = f"pod/{number}"
    manager = http_manager(door_name(number), [{"name": "all", "domains": ["*"], "routes": _routes(name, key)}])
    http: Config = {"filters": [manager]}
    raw: Config = {"filters": [_raw(name)]}
    options: Config = {"additional_addresses": [{"address": tcp(LOOPBACK, 0)}]}
    if door.speaks == "http":
        chains = [http]
    elif door.speaks == "tcp":
        chains = [raw]
    else:
        chains = [{"filter_chain_match": {"application_protocols": ["http/1.0", "http/1.1", "h2c"]}} | http]
        inspector = {"@type": TYPE + "filters.listener.http_inspector.v3.HttpInspector"}
        options |= {
            "default_filter_chain": raw,
            "listener_filters": [{"name": "envoy.filters.listener.http_inspector", "typed_config": inspector}],
            "listener_filters_timeout": _LOOK,
            "continue_on_listener_filters_timeout": True,
        }
    return listener(door_name(number), pipe(door_socket(folder, number), listen=True), *chains, **options)


def _routes(name: str, key: str) -> list[Config]:
    route: Config = {"match": {"prefix": "/"}, "route": {"cluster": name, "timeout": "0s"}}
    if not key:
        return [route]
    has_key = {"safe_regex": {"regex": rf"(.*,)?[ \t]*{re.escape(MEMBER)}[ \t]*=.*"}}
    own = [
        {"match": {"prefix": "/", "headers": [{"name": header, "string_match": has_key}]}, "route": route["route"]}
        for header in ("baggage", "tracestate")
    ]
    added = {"header": {"key": "baggage", "value": f"{MEMBER}={key.replace('%', '%%')}"}}
    return [*own, route | {"request_headers_to_add": [added | {"append_action": "APPEND_IF_EXISTS_OR_ADD"}]}]


def _raw(name: str) -> Config:
    config = {"@type": TYPE + "filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": name, "cluster": name}
    return network_filter("tcp_proxy", config | {"idle_timeout": "0s"})


def _proxy(doors: Sequence[Door], namespace: str) -> Config:
    hosts: list[Config] = []
    for number, door in enumerate(doors):
        names = door.names(namespace)
        domains = [f"{name}:{door.port}" for name in names] + (names if door.port == 80 else [])
        hosts.append({"name": str(number), "domains": domains, "routes": _ways(f"door/{number}")})
    hosts.append({"name": _ELSEWHERE, "domains": ["*"], "routes": _ways(_ELSEWHERE)})
    filters = [
        {
            "name": "envoy.filters.http.dynamic_forward_proxy",
            "typed_config": {
                "@type": TYPE + "filters.http.dynamic_forward_proxy.v3.FilterConfig",
                "dns_cache_config": _DNS,
            },
        },
        {
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": TYPE + "filters.http.router.v3.Router", "suppress_envoy_headers": True},
        },
    ]
    manager = http_manager(PROXY, hosts, http_filters=filters)
    return listener(PROXY, tcp(LOOPBACK, 0), {"filters": [manager]})


def _ways(name: str) -> list[Config]:
    return [
        {"match": {"connect_matcher": {}}, "route": connect_to(name)},
        {"match": {"prefix": "/"}, "route": {"cluster": name, "timeout": "0s"}},
    ]


def _elsewhere() -> Config:
    return {
        "name": _ELSEWHERE,
        "connect_timeout": "10s",
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": {
            "name": "envoy.clusters.dynamic_forward_proxy",
            "typed_config": {
                "@type": TYPE + "clusters.dynamic_forward_proxy.v3.ClusterConfig",
                "dns_cache_config": _DNS,
            },
        },
    }
