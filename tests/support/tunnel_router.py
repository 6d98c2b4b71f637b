"""A router in front of a tunnel: one door with a laptop behind it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from sandlane.api.types import OnDisconnect
from sandlane.routing.envoy.encode import Config
from sandlane.routing.envoy.listeners import DoorOptions, listener
from sandlane.routing.envoy.routes import _route
from sandlane.routing.envoy.tunnel_clusters import tunnel_cluster, tunnel_routes
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
async def router(tunnel: Tunnel, *doors: FrontDoor) -> AsyncIterator[int]:
    """A router with doors; gives the first one's port. Its tunnel clusters lead straight to the tunnel server."""
    static: Config = {"listeners": [], "clusters": []}
    for door in doors:
        override = door.overrides["key"]
        assert isinstance(override.backend, TunnelBackend)
        cluster = tunnel_cluster(override.backend)
        del cluster["transport_socket"], cluster["eds_cluster_config"]
        address = {"socket_address": {"address": "127.0.0.1", "port_value": tunnel.options.ingress_port}}
        hosts = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
        cluster |= {"type": "STATIC", "load_assignment": {"cluster_name": cluster["name"], "endpoints": hosts}}
        made = listener(door, "127.0.0.1", DoorOptions())
        if door.protocol == "http":
            manager = made["filter_chains"][0]["filters"][0]["typed_config"]
            for key in ("rds", "scoped_routes"):
                manager.pop(key, None)
            found = tunnel_routes(door, override, override.backend, _route)
            manager["route_config"] = {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": found}]}
        static["listeners"].append(made)
        if cluster not in static["clusters"]:  # one for all ports of a laptop
            static["clusters"].append(cluster)
    async with running_envoy(
        {"node": {"id": "r", "cluster": "r"}, "static_resources": static}, tunnel.folder / "router.log"
    ):
        await eventually(lambda: all(listening(door.listener) for door in doors), "the router listens")
        yield doors[0].listener
