"""The tunnel server's two route tables, made from the LocalWorkloads and who holds each of them now. Pure.

What is not in the tables is refused at both doors: no new tunnel (403), no request over an old one (404 or 503). So a deleted
LocalWorkload's certificate is worthless as soon as the tables arrive, and so is one of a client that another has taken over from.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from sandlane.routing.tunnels import DISCONNECTED, ID_HEADER, REASON_HEADER, STAND_IN_HEADER
from sandlane.tunnel.bootstrap import (
    ACCEPT_CLUSTER,
    ADMIN_CLUSTER,
    FRONT_ROUTES,
    HANDSHAKE_PATH,
    IDENTITY_HEADER,
    INGRESS_ROUTES,
    LAPTOPS_CLUSTER,
    NODE_HEADER,
    REPLICA_HEADER,
    STATS,
    UPGRADE,
    WORKERS_HEADER,
    WORKLOAD_HEADER,
    Config,
)
from sandlane.tunnel.identity import DETAIL_HEADER, REVOKED, TAKEN_OVER, Claim

TOO_LARGE = "local-body-too-large"


class Holder(msgspec.Struct, frozen=True):
    """The client that may hold a LocalWorkload's tunnels now, and its user."""

    session: str
    client: str = ""


Holders = Mapping[str, Holder | None]
"""LocalWorkload uid -> its holder; None while nobody has asked to connect."""


def front_routes(holders: Holders, workers: int) -> Config:
    """Who may open a tunnel. The answer to a handshake names the replica and how many tunnels it needs."""
    accepted = {
        "match": {"path": HANDSHAKE_PATH},
        "route": {"cluster": ACCEPT_CLUSTER, "timeout": "0s", "upgrade_configs": [{"upgrade_type": UPGRADE}]},
        "request_headers_to_remove": [WORKLOAD_HEADER],
        "response_headers_to_add": [
            _header(REPLICA_HEADER, "%ENVIRONMENT(POD_NAME)%"),
            _header(WORKERS_HEADER, str(workers)),
        ],
    }
    held = {Claim(holder.session, uid): holder for uid, holder in sorted(holders.items()) if holder is not None}
    mine = {claim.identity: _routes([accepted]) for claim in held}
    others = {
        claim.workload: _routes([_answer(403, TAKEN_OVER, f"{text}\n", _header(DETAIL_HEADER, text))])
        for claim, text in ((claim, _taken_over(holder)) for claim, holder in held.items())
    }
    unknown = _tree(WORKLOAD_HEADER, others, _routes([_answer(403, REVOKED, "no such LocalWorkload, or no longer\n")]))
    return _table(FRONT_ROUTES, _tree(NODE_HEADER, mine, unknown))


def _taken_over(holder: Holder) -> str:
    return f"another client of {holder.client.replace('%', '%%')} holds this LocalWorkload now"


def ingress_routes(holders: Holders, max_body: int) -> Config:
    """Whose tunnel a router's request may take, and where the manager asks for the tunnels' state."""
    entries = {
        uid: _routes(_through(Claim(holder.session, uid), max_body)) for uid, holder in holders.items() if holder
    }
    empty = _routes([_answer(503, DISCONNECTED, "no laptop is connected\n")])
    entries |= {uid: empty for uid, holder in holders.items() if holder is None}
    stats = {
        "match": {"path": "/stats", "headers": [{"name": ":method", "string_match": {"exact": "GET"}}]},
        "route": {"cluster": ADMIN_CLUSTER, "timeout": "2s"},
    }
    entries[STATS] = _routes([stats])
    refused = _routes([_answer(404, "no-such-tunnel", "no such LocalWorkload\n")])
    return _table(INGRESS_ROUTES, _tree(ID_HEADER, dict(sorted(entries.items())), refused))


def _through(claim: Claim, max_body: int) -> list[Config]:
    """Into the tunnel of one client: plain TCP as CONNECT, everything else as it comes."""
    named = {
        "request_headers_to_add": [_header(IDENTITY_HEADER, claim.identity)],
        "request_headers_to_remove": [STAND_IN_HEADER],
    }
    route = {"cluster": LAPTOPS_CLUSTER, "timeout": "0s"}
    connect = {
        "match": {"connect_matcher": {}},
        "route": route | {"upgrade_configs": [{"upgrade_type": "CONNECT"}]},
    }
    length = {"name": "content-length", "range_match": {"start": max_body + 1, "end": 2**62}}
    text = f"a body may have at most {max_body} bytes on its way to a laptop\n"
    large = _answer(413, TOO_LARGE, text) | {"match": {"prefix": "/", "headers": [length]}}
    return [connect | named, large, {"match": {"prefix": "/"}, "route": route} | named]


def _answer(status: int, reason: str, text: str, *headers: Config) -> Config:
    """An answer of our own that says why."""
    return {
        "match": {"prefix": "/"},
        "direct_response": {"status": status, "body": {"inline_string": text}},
        "response_headers_to_add": [_header(REASON_HEADER, reason), *headers],
    }


def _table(name: str, matcher: Config) -> Config:
    """A route configuration. A matcher that is an action alone is its "otherwise"."""
    whole = matcher.get("matcher", {"on_no_match": matcher})
    return {"name": name, "virtual_hosts": [{"name": "all", "domains": ["*"], "matcher": whole}]}


def _tree(header: str, entries: Mapping[str, Config], otherwise: Config) -> Config:
    """Look a header up in an exact-match map."""
    if not entries:  # Envoy refuses an empty map
        return otherwise
    lookup = {
        "name": "header",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput",
            "header_name": header,
        },
    }
    tree = {"input": lookup, "exact_match_map": {"map": dict(entries)}}
    return {"matcher": {"matcher_tree": tree, "on_no_match": otherwise}}


def _routes(routes: list[Config]) -> Config:
    return {
        "action": {
            "name": "routes",
            "typed_config": {"@type": "type.googleapis.com/envoy.config.route.v3.RouteList", "routes": routes},
        }
    }


def _header(key: str, value: str) -> Config:
    return {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
