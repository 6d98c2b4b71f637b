"""The objects of the gateway in a cluster: its Deployment, its Service, its budget. Pure."""

from __future__ import annotations

import msgspec

from sandlane.api.labels import MANAGED_BY, MANAGER
from sandlane.kube.resource import Key, Object
from sandlane.routing.pods import budget
from sandlane.routing.resources import RouterOptions, envoy_deployment

NAME = "sandlane-preview"
XDS_SECRET = "sandlane-preview-xds"
"""The certificate that the gateway shows to the xDS server."""
IDENTITY = "preview"
GATEWAY = "sandlane.dev/preview"
"""Label of the gateway's Pods."""
LABELS = {MANAGED_BY: MANAGER, GATEWAY: "true"}
PORT = 15_080


class PreviewOptions(msgspec.Struct, frozen=True):
    """How the gateway runs. `also` is an address of the host at which it listens, too: on a laptop."""

    domain: str = ""
    scheme: str = "http"
    token: str = ""
    also: tuple[str, int] | None = None
    service_type: str = "ClusterIP"


def gateway_group(address: str) -> str:
    """The xDS group of one gateway Pod: it listens on its own address."""
    return f"{IDENTITY}/{address}"


def gateway_deployment(namespace: str, options: RouterOptions, certificate: str = "") -> Object:
    """The gateway: as routers run, with a port of its own."""
    made = envoy_deployment(Key(namespace, NAME), LABELS, gateway_group("$(POD_IP)"), XDS_SECRET, options, certificate)
    (container,) = made["spec"]["template"]["spec"]["containers"]
    container["ports"] = [*container["ports"], {"name": "http", "containerPort": PORT, "protocol": "TCP"}]
    return made


def gateway_budget(namespace: str) -> Object:
    """One gateway stays while nodes are drained."""
    return budget(Key(namespace, NAME), LABELS)


def gateway_service(namespace: str, kind: str) -> Object:
    """What an Ingress leads to, or a load balancer of its own."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME, "namespace": namespace, "labels": dict(LABELS)},
        "spec": {
            "type": kind,
            "selector": dict(LABELS),
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP", "appProtocol": "http"}],
        },
    }
