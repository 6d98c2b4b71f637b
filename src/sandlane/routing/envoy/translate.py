"""From the route table to Envoy's resources for one router. Pure: the same table gives the same bytes.

Per front door: a listener on its port, a route configuration with an exact-match tree over the routing key, and one cluster (with
endpoints from EndpointSlices) for the baseline and for each override's destination.
"""

from __future__ import annotations

from collections.abc import Iterable

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2

from sandlane.routing.envoy.clusters import assignment, cluster
from sandlane.routing.envoy.delta import CLUSTER, ENDPOINTS, ROUTES
from sandlane.routing.envoy.digest import DIGEST, digest_listener, digest_routes
from sandlane.routing.envoy.encode import Resources, encoded
from sandlane.routing.envoy.listeners import listener
from sandlane.routing.envoy.routes import route_configuration
from sandlane.routing.envoy.tunnel_clusters import tunnel_assignment, tunnel_cluster
from sandlane.routing.key import KeySources
from sandlane.routing.table import FrontDoor, ServiceBackend
from sandlane.routing.tunnels import Held
from sandlane.world.world import World


def shared(
    world: World, doors: Iterable[FrontDoor], digest: str, sources: KeySources, held: Held | None = None
) -> Resources:
    """What is the same for all routers of a namespace: clusters, endpoints, routes."""
    clusters: dict[str, bytes] = {}
    endpoints: dict[str, bytes] = {}
    routes: dict[str, bytes] = {}
    for front in doors:
        for backend in (front.baseline, *(override.backend for override in front.overrides.values())):
            if backend.name in clusters:
                continue
            if isinstance(backend, ServiceBackend):
                clusters[backend.name] = encoded(cluster(backend), cluster_pb2.Cluster())
                hosts = assignment(world, backend)
            else:
                clusters[backend.name] = encoded(tunnel_cluster(backend), cluster_pb2.Cluster())
                hosts = tunnel_assignment(backend, held or {})
            endpoints[backend.name] = encoded(hosts, endpoint_pb2.ClusterLoadAssignment())
        if front.protocol in ("http", "sniff"):
            routes[str(front.door)] = encoded(route_configuration(front), route_pb2.RouteConfiguration())
    routes[DIGEST] = encoded(digest_routes(digest), route_pb2.RouteConfiguration())
    return {CLUSTER: clusters, ENDPOINTS: endpoints, ROUTES: routes}


def listeners(doors: Iterable[FrontDoor], address: str, sources: KeySources) -> dict[str, bytes]:
    """The listeners of one router, which all listen on its own address."""
    made = {str(front.door): listener(front, address, sources) for front in doors}
    made[DIGEST] = digest_listener(address)
    return {name: encoded(config, listener_pb2.Listener()) for name, config in made.items()}
