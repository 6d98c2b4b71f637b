"""From preview endpoints to the gateway's resources: one listener, one route configuration, a cluster per Service. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2

from sandlane.preview.filter import lua
from sandlane.preview.plan import Preview, by_backend
from sandlane.preview.resources import PORT
from sandlane.routing.envoy.clusters import PRESERVE_CASE, assignment, cluster
from sandlane.routing.envoy.delta import CLUSTER, ENDPOINTS, ROUTES
from sandlane.routing.envoy.digest import DIGEST, digest_listener, digest_routes
from sandlane.routing.envoy.encode import ADS, EXTENSION, Config, Resources, encoded, socket
from sandlane.world.world import World

PREVIEWS = "previews"
_LUA = "envoy.filters.http.lua"


def shared(world: World, found: Sequence[Preview], domain: str) -> Resources:
    """What is the same for all gateways."""
    backends = by_backend(found)
    routes = {PREVIEWS: route_configuration(found, domain), DIGEST: digest_routes("preview")}
    return {
        CLUSTER: {name: encoded(cluster(each), cluster_pb2.Cluster()) for name, each in backends.items()},
        ENDPOINTS: {
            name: encoded(assignment(world, each), endpoint_pb2.ClusterLoadAssignment())
            for name, each in backends.items()
        },
        ROUTES: {name: encoded(each, route_pb2.RouteConfiguration()) for name, each in routes.items()},
    }


def listeners(address: str, also: tuple[str, int] | None, code: str) -> dict[str, bytes]:
    """The listeners of one gateway: on its own address, and on another one where that is asked for."""
    made = {PREVIEWS: listener(PREVIEWS, (address, PORT), code), DIGEST: digest_listener(address)}
    if also is not None:
        made["also"] = listener("also", also, code)
    return {name: encoded(each, listener_pb2.Listener()) for name, each in made.items()}


def listener(name: str, address: tuple[str, int], code: str) -> Config:
    """HTTP by host name; the application sees the request as it came, but for the key."""
    manager = {
        "@type": EXTENSION + "filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "preview",
        "rds": {"route_config_name": PREVIEWS, "config_source": ADS},
        "generate_request_id": False,
        "preserve_external_request_id": True,
        "server_header_transformation": "PASS_THROUGH",
        "skip_xff_append": True,
        "use_remote_address": False,
        "stream_idle_timeout": "0s",
        "request_timeout": "0s",
        "max_request_headers_kb": 96,
        "http_protocol_options": {"header_key_format": PRESERVE_CASE, "accept_http_10": True},
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "http_filters": [
            {
                "name": _LUA,
                "typed_config": {
                    "@type": EXTENSION + "filters.http.lua.v3.Lua",
                    "default_source_code": {"inline_string": code},
                },
            },
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": EXTENSION + "filters.http.router.v3.Router", "suppress_envoy_headers": True},
            },
        ],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    return {"name": name, "address": socket(*address), "stat_prefix": "preview", "filter_chains": [chain]}


def route_configuration(found: Iterable[Preview], domain: str) -> Config:
    """A virtual host for each endpoint; every other name is answered with 404."""
    suffix = domain.partition(":")[0]
    hosts = [_host(each, suffix) for each in found]
    unknown = {"status": 404, "body": {"inline_string": "no preview endpoint has this host name\n"}}
    hosts.append(
        {
            "name": "unknown",
            "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "direct_response": unknown}],
        }
    )
    return {"name": PREVIEWS, "ignore_port_in_host_matching": True, "virtual_hosts": hosts}


def _host(preview: Preview, suffix: str) -> Config:
    action = {
        "cluster": preview.backend.name,
        "timeout": "0s",
        "idle_timeout": "0s",
        "max_stream_duration": {"max_stream_duration": "0s"},
        "retry_policy": {"retry_on": "connect-failure,refused-stream", "num_retries": 2},
    }
    route = {
        "match": {"prefix": "/"},
        "route": action,
        "metadata": {"filter_metadata": {_LUA: {"key": preview.key}}},
    }
    return {"name": preview.host, "domains": [f"{preview.host}.{suffix}"], "routes": [route]}


def filter_code(token: str, scheme: str) -> str:
    """The gateway's Lua filter."""
    return lua(token, secure=scheme == "https")
