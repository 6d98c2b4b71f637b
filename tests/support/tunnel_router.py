"""A router in front of a tunnel: one door with a laptop behind it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from google.protobuf import json_format

from sandlane.api.types import OnDisconnect
from sandlane.routing.envoy.baseline_fallback import instead_cluster, instead_listener
from sandlane.routing.envoy.bootstrap import router_bootstrap
from sandlane.routing.envoy.clusters import cluster as cluster_of
from sandlane.routing.envoy.encode import Config
from sandlane.routing.envoy.identity import Credentials
from sandlane.routing.envoy.listeners import DoorOptions, listener
from sandlane.routing.envoy.routes import _route, _shard_template
from sandlane.routing.envoy.tunnel_clusters import or_baseline, tunnel_cluster, tunnel_routes
from sandlane.routing.overrides import Override, Overrides, ServiceBackend, TunnelBackend
from sandlane.routing.table import Door, FrontDoor
from support.tunnel import UID, Tunnel, eventually, free_port, listening, running_envoy

BASELINE = ServiceBackend("n", "eta-baseline", 80)


def front(protocol: str, when: OnDisconnect, *, connected: bool = True, hold: int = 10, port: int = 8084) -> FrontDoor:
    """A door with a laptop behind it; `port` is the container's."""
    backend = TunnelBackend("n", "l", UID, port, connected)
    override = Override(backend, "a", "Sandbox n/a", "l", when, hold, whole=protocol == "tcp")
    return FrontDoor(Door("n", "eta", port), free_port(), protocol, BASELINE, Overrides.of({"key": override}))


@contextlib.asynccontextmanager
async def router(tunnel: Tunnel, *doors: FrontDoor, baseline: int = 1) -> AsyncIterator[int]:
    """A router with doors; gives the first one's port. `baseline` is that of the process behind all of them. Its tunnel clusters lead straight to the tunnel server."""
    static: Config = {"listeners": [], "clusters": []}
    for door in doors:
        override = door.overrides["key"]
        assert isinstance(override.backend, TunnelBackend)
        cluster = tunnel_cluster(override.backend)
        del cluster["transport_socket"], cluster["eds_cluster_config"]
        address = {"socket_address": {"address": "127.0.0.1", "port_value": tunnel.options.ingress_port}}
        hosts = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
        cluster |= {"type": "STATIC", "load_assignment": {"cluster_name": cluster["name"], "endpoints": hosts}}
        made = listener(door, DoorOptions())
        made["address"]["socket_address"]["address"] = "127.0.0.1"
        if door.protocol == "http":
            manager = made["filter_chains"][0]["filters"][0]["typed_config"]
            for key in ("rds", "scoped_routes"):
                manager.pop(key, None)
            found = tunnel_routes(door, override, override.backend, _route)
            shard = json_format.MessageToDict(_shard_template(), preserving_proto_field_name=True)
            shard["virtual_hosts"][0]["routes"] = found
            manager["route_config"] = shard
        static["listeners"].append(made)
        if cluster not in static["clusters"]:  # one for all ports of a laptop
            static["clusters"] += [cluster, or_baseline(override.backend)]
    static["listeners"].append(instead_listener())
    behind = {"socket_address": {"address": "127.0.0.1", "port_value": baseline}}
    hosts = [{"lb_endpoints": [{"endpoint": {"address": behind}}]}]
    made = cluster_of(BASELINE)
    del made["eds_cluster_config"]
    made |= {"type": "STATIC", "load_assignment": {"cluster_name": BASELINE.name, "endpoints": hosts}}
    static["clusters"] += [instead_cluster(), made]
    start = router_bootstrap("127.0.0.1", 1, "r", Credentials("none"))
    config = {"node": {"id": "r"}, "bootstrap_extensions": start["bootstrap_extensions"], "static_resources": static}
    async with running_envoy(config, tunnel.folder / "router.log"):
        await eventually(lambda: all(listening(door.listener) for door in doors), "the router listens")
        yield doors[0].listener
