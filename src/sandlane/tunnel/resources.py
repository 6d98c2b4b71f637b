"""The objects of the tunnel in a cluster: the servers' Deployment, their Service, and where laptops find them. Pure."""

from __future__ import annotations

import json

from sandlane.api.labels import MANAGED_BY, MANAGER, TUNNEL
from sandlane.kube.resource import Key, Object
from sandlane.routing.envoy.bootstrap import router_bootstrap
from sandlane.routing.pods import budget, deployment, envoy_container
from sandlane.routing.resources import RouterOptions
from sandlane.tunnel.bootstrap import FRONT_ROUTES, INGRESS_ROUTES, NODE_CLUSTER, ServerOptions, server_bootstrap

NAME = "sandlane-tunnel"
XDS_SECRET = "sandlane-tunnel-xds"
"""The certificate that the tunnel servers show to the xDS server."""
REPLICAS = 2
"""At least: a laptop that holds tunnels to two loses nothing with one."""
MIN_READY = 5
"""Seconds that a new server is there before the next one goes: laptops reach it in the meantime."""
DRAIN = 5
"""Seconds that a server that goes still answers: routers stop asking it in the meantime, and what they asked is answered."""
GRACE = 30
"""Seconds that it has to end."""
LABELS = {MANAGED_BY: MANAGER, TUNNEL: "true"}


def tunnel_deployment(namespace: str, options: RouterOptions, server: ServerOptions, certificate: str = "") -> Object:
    """The tunnel servers: Envoy, restricted, certificates and routes by xDS."""
    credentials = options.credentials(XDS_SECRET)
    xds = router_bootstrap(options.xds_host, options.xds_port, NODE_CLUSTER, credentials)
    ads = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}
    extra = {
        "dynamic_resources": {"ads_config": xds["dynamic_resources"]["ads_config"]},
        "clusters": xds["static_resources"]["clusters"],
    }
    bootstrap = server_bootstrap(server, {FRONT_ROUTES: ads, INGRESS_ROUTES: ads}, extra)
    text = json.dumps(bootstrap, separators=(",", ":"))
    container = envoy_container(
        options.image,
        ["--config-yaml", text, "--concurrency", str(server.workers), "--disable-hot-restart", "-l", "warning"],
        ports=[
            {"name": "front", "containerPort": server.front_port, "protocol": "TCP"},
            {"name": "ingress", "containerPort": server.ingress_port, "protocol": "TCP"},
        ],
        readinessProbe={"tcpSocket": {"port": "front"}, "periodSeconds": 2},
        lifecycle={"preStop": {"sleep": {"seconds": DRAIN}}},
    )
    key, number = Key(namespace, NAME), replicas(options)
    made = deployment(key, LABELS, container, credentials, certificate, replicas=number, grace=GRACE)
    made["spec"]["minReadySeconds"] = MIN_READY
    return made


def replicas(options: RouterOptions) -> int:
    """How many servers there are."""
    return max(REPLICAS, options.replicas)


def tunnel_budget(namespace: str) -> Object:
    """One server stays while nodes are drained."""
    return budget(Key(namespace, NAME), LABELS)


def tunnel_service(namespace: str, server: ServerOptions) -> Object:
    """Where laptops dial."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME, "namespace": namespace, "labels": dict(LABELS)},
        "spec": {
            "selector": dict(LABELS),
            "ports": [{"name": "front", "port": server.front_port, "targetPort": "front", "appProtocol": "tls"}],
        },
    }


def tunnel_directory(namespace: str, address: str, replicas: int, ca: bytes) -> Object:
    """What `sandlane connect` has to know: address, number of servers, and whom to trust."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": NAME, "namespace": namespace, "labels": dict(LABELS)},
        "data": {"address": address, "replicas": str(replicas), "ca.crt": ca.decode()},
    }
