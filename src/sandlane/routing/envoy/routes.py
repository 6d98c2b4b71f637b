"""Where requests go: an exact-match tree over door and routing key for each shard, and each door's baseline for all others. Pure.

The shards of a namespace's routers are there from the start and stay, so that their number never changes while requests come.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from envoy.config.route.v3 import route_components_pb2, route_pb2, scoped_route_pb2
from google.protobuf import json_format
from xds.type.matcher.v3 import matcher_pb2

from sandlane.api.types import OnDisconnect
from sandlane.routing.envoy.clusters import TO_HEADER, forks_cluster
from sandlane.routing.envoy.encode import ADS, Config, encoded
from sandlane.routing.envoy.filter import BASELINE_HEADER, INTERNAL_HEADERS, KEY_HEADER, PROTO_HEADER, SEPARATOR
from sandlane.routing.envoy.filter import NAME as FILTER
from sandlane.routing.envoy.tunnel_clusters import tunnel_routes
from sandlane.routing.key import KeySources
from sandlane.routing.overrides import SHARDS, shard_of
from sandlane.routing.table import Door, FrontDoor, Override, RoutingKey, ServiceBackend
from sandlane.routing.tunnels import REASON_HEADER

DEBUG_HEADER = "x-sandlane-debug"
"""A request with this header, whose value is 1, is told in `SERVED_BY` who served it."""
SERVED_BY = "x-sandlane-served-by"
"""Also the name of the filter that says it."""
NOT_READY = "fork-not-ready"
NO_KEY = "-"
"""The scope of requests without anything that may carry a key."""
ASKED = "-1"
"""The scope of requests with `DEBUG_HEADER`, until the filter has found their key: it switches the filter on that answers them."""
RETRY = {
    "retry_on": "connect-failure,refused-stream",
    "num_retries": 2,
    "retry_host_predicate": [
        {
            "name": "previous",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
            },
        }
    ],
    "host_selection_retry_max_attempts": 3,
}
"""Only what certainly never reached the application is tried again."""
_BY_CLIENT = [{"connection_properties": {"source_ip": True}}]
_ACTION = route_components_pb2.Route
Addresses = list[tuple[str, int]]


def door_name(door: Door) -> str:
    """A door's name within its namespace."""
    return f"{door.service}:{door.port}"


def entry_name(door: Door, key: RoutingKey) -> str:
    """What the filter writes into `KEY_HEADER` for this key at this door."""
    return SEPARATOR.join((str(shard_of(key)), door_name(door), key))


def shard_name(namespace: str, shard: int) -> str:
    """The name of a shard's route configuration, and of its scope."""
    return f"{namespace}/{shard}"


def scoped_routes(namespace: str) -> Config:
    """What a door's HTTP manager needs to find the shard of a request. The same for all doors of a namespace."""
    return {
        "name": namespace,
        "scope_key_builder": {
            "fragments": [{"header_value_extractor": {"name": KEY_HEADER, "element_separator": SEPARATOR, "index": 0}}]
        },
        "rds_config_source": ADS,
        "scoped_rds": {"scoped_rds_config_source": ADS},
    }


def first_key(keys: KeySources) -> str:
    """What `KEY_HEADER` has before the filter: it leads to `ASKED`, to `NO_KEY`, and otherwise nowhere, so that the filter comes first.

    Where other headers or a parameter may have a key, the filter always comes first.
    """
    other = ":METHOD" if keys.headers or keys.query_parameter else "BAGGAGE"
    return f"-%REQ({DEBUG_HEADER}?{other}):3%{SEPARATOR}"


def scopes(namespace: str) -> dict[str, bytes]:
    """A scope for each shard, and two beside them: a request whose scope is not there would be a 404."""
    found = {}
    for text in (*map(str, range(SHARDS)), NO_KEY, ASKED):
        name = f"{namespace}/{text}"
        scope = {"name": name, "route_configuration_name": name, "key": {"fragments": [{"string_key": text}]}}
        found[name] = encoded(scope, scoped_route_pb2.ScopedRouteConfiguration())
    return found


_BASELINE = json_format.ParseDict(
    {
        "name": "baseline",
        "match": {"prefix": "/"},
        "route": {
            "cluster_header": BASELINE_HEADER,
            "timeout": "0s",
            "retry_policy": RETRY,
            "hash_policy": _BY_CLIENT,
        },
    },
    _ACTION(),
)


def _template(name: str) -> Any:
    message = route_pb2.RouteConfiguration(name=name, request_headers_to_remove=INTERNAL_HEADERS)
    host = message.virtual_hosts.add(name="all", domains=["*"], request_headers_to_remove=["x-forwarded-proto"])
    _set_header(host.request_headers_to_add.add(), "x-forwarded-proto", f"%REQ({PROTO_HEADER})%")
    return message


def _shard_template(name: str = "") -> Any:
    """With the filter on that names who served, for requests whose filters are made when they have such routes already."""
    message = _template(name)
    switched_on = route_components_pb2.FilterConfig()
    switched_on.config.SetInParent()
    message.typed_per_filter_config[SERVED_BY].Pack(switched_on)
    return message


def fixed_routes(namespace: str) -> dict[str, bytes]:
    """The routes of requests before the filter: without anything that may carry a key they need no filter, and go to the baseline."""
    plain, asked = _template(f"{namespace}/{NO_KEY}"), _shard_template(f"{namespace}/{ASKED}")
    for name in ("tracestate", "baggage"):  # the first baggage may be empty, and another one not
        route = plain.virtual_hosts[0].routes.add()
        route.CopyFrom(_BASELINE)
        route.match.headers.add(name=name, present_match=True)
    plain.virtual_hosts[0].routes.append(_BASELINE)
    plain.virtual_hosts[0].routes[-1].typed_per_filter_config[FILTER].Pack(
        route_components_pb2.FilterConfig(disabled=True)
    )
    asked.virtual_hosts[0].routes.append(_BASELINE)
    return {each.name: bytes(each.SerializeToString(deterministic=True)) for each in (plain, asked)}


def shard_routes(namespace: str, shard: int, entries: Mapping[str, bytes]) -> bytes:
    """One shard's route configuration; `entries` are encoded actions by entry name, and are put together as they are."""
    message = _shard_template(shard_name(namespace, shard))
    host = message.virtual_hosts[0]
    if not entries:  # Envoy refuses an empty map
        host.routes.append(_BASELINE)
        return bytes(message.SerializeToString(deterministic=True))
    tree, actions = matcher_pb2.Matcher.MatcherTree, matcher_pb2.Matcher.MatcherTree.MatchMap
    pair = actions.DESCRIPTOR.fields_by_name["map"].message_type
    table = b"".join(
        _field(actions.DESCRIPTOR, "map", _field(pair, "key", name.encode()) + _field(pair, "value", entries[name]))
        for name in sorted(entries)
    )
    whole = _field(matcher_pb2.Matcher.DESCRIPTOR, "matcher_tree", _field(tree.DESCRIPTOR, "exact_match_map", table))
    encoded_host: bytes = host.SerializeToString(deterministic=True) + _field(host.DESCRIPTOR, "matcher", _REST + whole)
    message.ClearField("virtual_hosts")
    made: bytes = message.SerializeToString(deterministic=True)
    return made + _field(message.DESCRIPTOR, "virtual_hosts", encoded_host)


def _field(of: Any, name: str, payload: bytes) -> bytes:
    """One field of a message (by its descriptor) as protobuf writes it: tag, length, payload."""
    head, number = bytearray(), of.fields_by_name[name].number << 3 | 2
    for value in (number, len(payload)):
        while value > 127:
            head.append(value & 127 | 128)
            value >>= 7
        head.append(value)
    return bytes(head) + payload


def _on_match(route: Any) -> Any:
    message = matcher_pb2.Matcher.OnMatch()
    message.action.name = "route"
    message.action.typed_config.Pack(route)
    return message


_TO_BASELINE = bytes(_on_match(_BASELINE).SerializeToString(deterministic=True))
_REST = json_format.ParseDict(
    {
        "matcher_tree": {
            "input": {
                "name": "key",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput",
                    "header_name": KEY_HEADER,
                },
            }
        },
        "on_no_match": json_format.MessageToDict(_on_match(_BASELINE)),
    },
    matcher_pb2.Matcher(),
).SerializeToString(deterministic=True)
"""What every shard's matcher has beside its entries; protobuf merges what is there twice."""


def entry(
    front: FrontDoor, key: RoutingKey, override: Override, addresses: Addresses, *, sticky: bool = False
) -> bytes:
    """What becomes of one key's requests at one door, as the encoded value of the tree. `addresses`: of the fork's endpoints."""
    backend = override.backend
    if not isinstance(backend, ServiceBackend):
        if not backend.connected and override.on_disconnect is OnDisconnect.BASELINE:
            return _TO_BASELINE
        (config,) = tunnel_routes(front, override, backend, _route)
        route = json_format.ParseDict(config, _ACTION())
        return bytes(_on_match(route).SerializeToString(deterministic=True))
    route = _ACTION(name=f"{override.sandbox}/{override.workload}")
    route.match.prefix = "/"
    if not addresses:
        route.direct_response.status = 503
        text = f"no Pod of fork {override.workload} in sandbox {override.sandbox} is ready\n"
        route.direct_response.body.inline_string = text
        _set_header(route.response_headers_to_add.add(), REASON_HEADER, NOT_READY)
    elif len(addresses) == 1:
        route.route.cluster = forks_cluster(shard_of(key))
        route.route.timeout.SetInParent()
        address, port = addresses[0]
        _set_header(
            route.request_headers_to_add.add(),
            TO_HEADER,
            f"[{address}]:{port}" if ":" in address else f"{address}:{port}",
        )
    else:
        route.route.cluster = backend.name
        route.route.timeout.SetInParent()
        json_format.ParseDict(RETRY, route.route.retry_policy)
        if sticky:
            route.route.hash_policy.add().connection_properties.source_ip = True
    return bytes(_on_match(route).SerializeToString(deterministic=True))


def _set_header(option: Any, name: str, value: str) -> None:
    option.header.key, option.header.value = name, value
    option.append_action = option.OVERWRITE_IF_EXISTS_OR_ADD


def _route(cluster_name: str, served_by: str) -> list[Config]:
    """To one cluster."""
    action = {"cluster": cluster_name, "timeout": "0s", "retry_policy": RETRY}
    return [{"name": served_by, "match": {"prefix": "/"}, "route": action}]
