"""Where a router answers the digest of the table that it serves: the proof that it serves it. Pure."""

from __future__ import annotations

from sandlane.routing.envoy.delta import MARK
from sandlane.routing.envoy.encode import ADS, EXTENSION, Config, socket
from sandlane.routing.names import READY_PORT

DIGEST = MARK


def digest_listener(address: str) -> Config:
    """The listener at `READY_PORT`."""
    manager = {
        "@type": EXTENSION + "filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "digest",
        "rds": {"route_config_name": DIGEST, "config_source": ADS},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": EXTENSION + "filters.http.router.v3.Router"},
            }
        ],
    }
    return {
        "name": DIGEST,
        "address": socket(address, READY_PORT),
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }


def digest_routes(digest: str) -> Config:
    """The routes that answer it."""
    route = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": digest}}}
    return {"name": DIGEST, "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]}
