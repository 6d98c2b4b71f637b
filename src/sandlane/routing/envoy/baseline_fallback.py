"""The baseline as the last resort of a request that was meant for a laptop, found no tunnel, and so was seen by nobody. Pure.

A router that tries such a request again for the last time gives it to itself: to a listener inside of it which takes off what was
meant for the tunnel servers and sends it to the baseline that a header names.
"""

from __future__ import annotations

from sandlane.routing.envoy.clusters import AS_IT_CAME, UNLIMITED
from sandlane.routing.envoy.encode import EXTENSION, Config
from sandlane.routing.envoy.filter import PROTO_HEADER
from sandlane.routing.envoy.listeners import as_it_comes, early
from sandlane.routing.envoy.routes import RETRY
from sandlane.routing.envoy.tunnel_clusters import INSTEAD
from sandlane.routing.tunnels import ID_HEADER, PORT_HEADER, STAND_IN_HEADER

_SOCKET = EXTENSION + "transport_sockets."


def instead_listener() -> Config:
    """The listener."""
    again = {"header": {"key": "x-forwarded-proto", "value": f"%REQ({PROTO_HEADER})%"}}
    route = {"cluster_header": STAND_IN_HEADER, "timeout": "0s", "retry_policy": RETRY}
    everything = {
        "name": "all",
        "domains": ["*"],
        "request_headers_to_remove": ["x-forwarded-proto"],
        "request_headers_to_add": [again | {"append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}],
        "routes": [{"match": {"prefix": "/"}, "route": route}],
    }
    manager = as_it_comes(INSTEAD) | {
        "early_header_mutation_extensions": [early({PROTO_HEADER: "%REQ(X-FORWARDED-PROTO)%"})],
        "route_config": {
            "request_headers_to_remove": [ID_HEADER, PORT_HEADER, STAND_IN_HEADER, PROTO_HEADER],
            "virtual_hosts": [everything],
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": EXTENSION + "filters.http.router.v3.Router", "suppress_envoy_headers": True},
            }
        ],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    return {"name": INSTEAD, "internal_listener": {}, "filter_chains": [chain]}


def instead_cluster() -> Config:
    """Leads to the listener."""
    inner = {
        "name": "envoy.transport_sockets.raw_buffer",
        "typed_config": {"@type": _SOCKET + "raw_buffer.v3.RawBuffer"},
    }
    internal = {"@type": _SOCKET + "internal_upstream.v3.InternalUpstreamTransport", "transport_socket": inner}
    endpoint = {"endpoint": {"address": {"envoy_internal_address": {"server_listener_name": INSTEAD}}}}
    return {
        "name": INSTEAD,
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": UNLIMITED,
        "load_assignment": {"cluster_name": INSTEAD, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "transport_socket": {"name": "envoy.transport_sockets.internal_upstream", "typed_config": internal},
        "typed_extension_protocol_options": AS_IT_CAME,
    }
