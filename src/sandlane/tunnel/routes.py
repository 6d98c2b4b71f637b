"""The tunnel server's two route tables, made from the identities that may hold a tunnel now. Pure.

An identity that is not in the table is refused at both doors: no new tunnel (403), no request over an old one (404),
so a deleted LocalWorkload's certificate is worthless as soon as the table arrives.
"""

from __future__ import annotations

from collections.abc import Iterable

from sandlane.routing.tunnels import ID_HEADER, REASON_HEADER
from sandlane.tunnel.bootstrap import (
    ACCEPT_CLUSTER,
    FRONT_ROUTES,
    HANDSHAKE_PATH,
    INGRESS_ROUTES,
    LAPTOPS_CLUSTER,
    REPLICA_HEADER,
    UPGRADE,
    WORKERS_HEADER,
    Config,
)


def front_routes(identities: Iterable[str], workers: int) -> Config:
    """Who may open a tunnel. The answer to a handshake names the replica and how many tunnels it needs."""
    action = {
        "match": {"path": HANDSHAKE_PATH},
        "route": {"cluster": ACCEPT_CLUSTER, "timeout": "0s", "upgrade_configs": [{"upgrade_type": UPGRADE}]},
        "response_headers_to_add": [
            _header(REPLICA_HEADER, "%ENVIRONMENT(POD_NAME)%"),
            _header(WORKERS_HEADER, str(workers)),
        ],
    }
    return _table(FRONT_ROUTES, "x-envoy-reverse-tunnel-node-id", identities, action, 403, "revoked")


def ingress_routes(identities: Iterable[str]) -> Config:
    """Whose tunnel a router's request may take."""
    action = {"match": {"prefix": "/"}, "route": {"cluster": LAPTOPS_CLUSTER, "timeout": "0s"}}
    connect = {
        "match": {"connect_matcher": {}},
        "route": {"cluster": LAPTOPS_CLUSTER, "timeout": "0s", "upgrade_configs": [{"upgrade_type": "CONNECT"}]},
    }
    return _table(INGRESS_ROUTES, ID_HEADER, identities, action, 404, "no-such-tunnel", connect)


def _table(
    name: str, header: str, identities: Iterable[str], action: Config, status: int, reason: str, *more: Config
) -> Config:
    """A route configuration that looks an identity up in an exact-match map."""
    refused = {
        "match": {"prefix": "/"},
        "direct_response": {"status": status, "body": {"inline_string": f"{reason}\n"}},
        "response_headers_to_add": [_header(REASON_HEADER, reason)],
    }
    allowed = sorted(set(identities))
    host: Config = {"name": "all", "domains": ["*"]}
    if not allowed:  # Envoy refuses an empty map
        host["routes"] = [refused]
    else:
        lookup = {
            "name": "header",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput",
                "header_name": header,
            },
        }
        entry = {"action": _routes([*more, action])}
        host["matcher"] = {
            "matcher_tree": {"input": lookup, "exact_match_map": {"map": dict.fromkeys(allowed, entry)}},
            "on_no_match": {"action": _routes([refused])},
        }
    return {"name": name, "virtual_hosts": [host]}


def _routes(routes: list[Config]) -> Config:
    return {
        "name": "routes",
        "typed_config": {"@type": "type.googleapis.com/envoy.config.route.v3.RouteList", "routes": routes},
    }


def _header(key: str, value: str) -> Config:
    return {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
