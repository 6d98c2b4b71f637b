"""A door's routes: which key's requests go to which cluster, and the baseline for all others. Pure."""

from __future__ import annotations

from sandlane.routing.envoy.encode import Config
from sandlane.routing.envoy.filter import KEY_HEADER
from sandlane.routing.envoy.tunnel_clusters import tunnel_routes
from sandlane.routing.table import FrontDoor, Override, ServiceBackend

DEBUG_HEADER = "x-sandlane-debug"
"""A request with this header is told in `SERVED_BY` who served it."""
SERVED_BY = "x-sandlane-served-by"
_RETRY = {"retry_on": "connect-failure,refused-stream", "num_retries": 2, "retry_host_predicate": []}


def route_configuration(front: FrontDoor) -> Config:
    """A door's routes: an exact-match tree over the key, the baseline where it has no entry."""
    baseline = _route(front.baseline.name, "baseline")
    host: Config = {"name": "all", "domains": ["*"]}
    entries = {key: {"action": _list(_override(front, o))} for key, o in sorted(front.overrides.items())}
    if entries:
        host["matcher"] = {
            "matcher_tree": {
                "input": {
                    "name": "key",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput",
                        "header_name": KEY_HEADER,
                    },
                },
                "exact_match_map": {"map": entries},
            },
            "on_no_match": {"action": _list(baseline)},
        }
    else:  # Envoy refuses an empty map
        host["routes"] = baseline
    return {"name": str(front.door), "virtual_hosts": [host], "request_headers_to_remove": [KEY_HEADER]}


def _list(routes: list[Config]) -> Config:
    return {
        "name": "routes",
        "typed_config": {"@type": "type.googleapis.com/envoy.config.route.v3.RouteList", "routes": routes},
    }


def _override(front: FrontDoor, override: Override) -> list[Config]:
    backend = override.backend
    if isinstance(backend, ServiceBackend):
        return _route(backend.name, f"{override.sandbox}/{override.workload}")
    return tunnel_routes(front, override, backend, _route)


def _route(cluster_name: str, served_by: str) -> list[Config]:
    """To one cluster; the answer names it for those who ask."""
    action = {
        "cluster": cluster_name,
        "timeout": "0s",
        "idle_timeout": "0s",
        "retry_policy": _RETRY,
        "max_stream_duration": {"max_stream_duration": "0s"},
    }
    asked = {"prefix": "/", "headers": [{"name": DEBUG_HEADER, "present_match": True}]}
    named = {"header": {"key": SERVED_BY, "value": served_by}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
    return [
        {"name": served_by, "match": asked, "route": action, "response_headers_to_add": [named]},
        {"name": served_by, "match": {"prefix": "/"}, "route": action},
    ]
