"""Whatever the world, Envoy accepts what it comes to: random worlds as one configuration for `envoy --mode validate`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2, scoped_route_pb2
from google.protobuf import json_format
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from sandlane.routing.build import build
from sandlane.routing.envoy.binary import envoy_binary
from sandlane.routing.envoy.bootstrap import router_bootstrap
from sandlane.routing.envoy.delta import CLUSTER, ENDPOINTS, ROUTES, SCOPED_ROUTES
from sandlane.routing.envoy.encode import EXTENSION
from sandlane.routing.envoy.identity import Credentials
from sandlane.routing.envoy.listeners import ACCESS_LOGS, DoorOptions
from sandlane.routing.envoy.translate import Translation
from sandlane.routing.key import KeySources
from sandlane.world.world import World
from support import worlds
from support.thorough import cases

WORLDS = cases(6)
MANAGER = EXTENSION + "filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = {"name": "router", "typed_config": {"@type": EXTENSION + "filters.http.router.v3.Router"}}
MESSAGES: dict[str, Any] = {
    CLUSTER: cluster_pb2.Cluster,
    ENDPOINTS: endpoint_pb2.ClusterLoadAssignment,
    SCOPED_ROUTES: scoped_route_pb2.ScopedRouteConfiguration,
    ROUTES: route_pb2.RouteConfiguration,
}


def plain(message: Any, data: bytes) -> dict[str, Any]:
    """A resource in the form of Envoy's JSON."""
    found: dict[str, Any] = json_format.MessageToDict(message.FromString(data), preserving_proto_field_name=True)
    return found


def named(value: Any) -> set[str]:
    """The clusters that routes lead to."""
    if isinstance(value, list):
        return {name for each in value for name in named(each)}
    if not isinstance(value, dict):
        return set()
    own = {value["cluster"]} if isinstance(value.get("cluster"), str) else set()
    return own | {name for each in value.values() for name in named(each)}


class Bootstrap:
    """Collects resources of many worlds, under names of their own."""

    def __init__(self) -> None:
        self.config: Any = router_bootstrap("127.0.0.1", 1, "group", Credentials("none"))
        self.config["node"]["id"] = "router"
        self.config["static_resources"]["listeners"] = []
        self.config["static_resources"]["clusters"][0].pop("transport_socket")
        self._seen: dict[str, str] = {}
        self._port = 1024

    def add(self, world: World, held: Any, number: int) -> None:
        """One world: its listeners, and each route configuration and assignment in a place where it is checked."""
        options = DoorOptions(
            KeySources(("k", "sd-routing-key"), ("X-Key",), "key"), ACCESS_LOGS[number % len(ACCESS_LOGS)]
        )
        translation = Translation(options)
        translation.update(world, build(world, held), held, set())
        for namespace in worlds.NAMESPACES:
            resources = translation.shared(namespace)
            for name, data in resources[CLUSTER].items():
                self._cluster(name, plain(cluster_pb2.Cluster, data))
            for name, data in resources[ENDPOINTS].items():
                assignment = plain(endpoint_pb2.ClusterLoadAssignment, data)
                self._cluster(f"static {name}", {"name": "", "type": "STATIC", "load_assignment": assignment})
            for data in translation.listeners(namespace, "127.0.0.1").values():
                self._listener(plain(listener_pb2.Listener, data))
            empty = {data for data in resources[ROUTES].values() if b"|" not in data}
            for data in resources[ROUTES].values():
                if data not in empty:
                    routes = plain(route_pb2.RouteConfiguration, data)
                    assert named(routes) <= resources[CLUSTER].keys()  # Envoy does not look into trees for this
                    self._routes(routes)

    def _cluster(self, name: str, config: dict[str, Any]) -> None:
        text = json.dumps(config, sort_keys=True)
        if self._seen.setdefault(name, text) == text and name not in self._names():
            self.config["static_resources"]["clusters"].append(config | {"name": name})

    def _names(self) -> set[str]:
        return {each["name"] for each in self.config["static_resources"]["clusters"]}

    def _listener(self, config: dict[str, Any]) -> None:
        self._port += 1
        config["name"] = f"{config['name']} {self._port}"
        if "address" in config:
            config["address"]["socket_address"]["port_value"] = self._port
        self.config["static_resources"]["listeners"].append(config)

    def _routes(self, routes: dict[str, Any]) -> None:
        manager = {"@type": MANAGER, "stat_prefix": "x", "route_config": routes, "http_filters": [ROUTER]}
        filters = [{"name": "http", "typed_config": manager}]
        address = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
        self._listener({"name": routes["name"], "address": address, "filter_chains": [{"filters": filters}]})


def test_random_worlds_are_accepted(tmp_path: Path) -> None:
    """All clusters, endpoints, listeners and routes of many worlds are valid, and routes name clusters that there are."""
    bootstrap = Bootstrap()
    count = 0

    @settings(max_examples=WORLDS, database=None, derandomize=True, phases=[Phase.generate])
    @given(st.lists(worlds.changes, max_size=3), worlds.held)
    def collect(history: list[Any], held: Any) -> None:
        nonlocal count
        world = World()
        for some in (worlds.base(), *history):
            worlds.apply(world, some)
        bootstrap.add(world, held, count)
        count += 1

    collect()
    path = tmp_path / "envoy.json"
    path.write_text(json.dumps(bootstrap.config))
    command = [str(envoy_binary()), "--mode", "validate", "-c", str(path), "-l", "error"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert count >= WORLDS
    assert any("/local/" in name for name in bootstrap._names())
