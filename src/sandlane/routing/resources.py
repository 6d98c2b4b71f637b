"""The objects that routing makes: the router of a namespace, and the shadow of a Service. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping

import msgspec

from sandlane.api.labels import MANAGED_BY, MANAGER, ORIGINAL, ROUTER, ROUTER_PODS
from sandlane.kube.resource import Key, Object
from sandlane.routing.envoy.bootstrap import router_bootstrap
from sandlane.routing.envoy.identity import Credentials
from sandlane.routing.key import KeySources
from sandlane.routing.names import (
    FIRST_LISTENER,
    LAST_LISTENER,
    LISTENERS,
    READY_PORT,
    ROUTER_SECRET,
    SHADOW_OF,
    router_group,
    shadow_name,
)
from sandlane.routing.names import ROUTER as ROUTER_NAME
from sandlane.routing.pods import budget, deployment, envoy_container
from sandlane.routing.sources import described
from sandlane.world.records import Service

ROUTER_SELECTOR = ROUTER_PODS
ENVOY_IMAGE = "docker.io/envoyproxy/envoy:distroless-v1.40.0"
"""The version that the tests run; the tunnel servers need fields that 1.39 and older do not know."""
_PORT_FIELDS = ("name", "port", "protocol", "appProtocol")


class RouterOptions(msgspec.Struct, frozen=True):
    """How routers run: their image, how many, and where they find the xDS server."""

    xds_host: str
    xds_port: int
    image: str = ENVOY_IMAGE
    replicas: int = 2
    certificate_in_environment: bool = False
    """Where Pods can mount nothing."""
    settle: int = 5
    """Seconds from the deletion of a router until nobody sends it new connections."""
    drain: int = 20
    """Seconds that its connections may go on after that; each answer asks its client to leave."""
    keys: KeySources = KeySources()
    """Where they look for routing keys: said on their Deployment, for `sandlane explain` and `sandlane trace`."""

    def credentials(self, secret: str) -> Credentials:
        """How Pods get the certificate of a Secret."""
        return Credentials(secret, self.certificate_in_environment)


def router_deployment(namespace: str, options: RouterOptions, certificate: str = "") -> Object:
    """The router of a namespace: Envoy, restricted, ready once it serves its table.

    `certificate` is the fingerprint of the one that it shows to the xDS server.
    """
    made = envoy_deployment(
        Key(namespace, ROUTER_NAME),
        ROUTER_SELECTOR,
        router_group(namespace, "$(POD_IP)"),
        ROUTER_SECRET,
        options,
        certificate,
    )
    if said := described(options.keys):
        made["metadata"]["annotations"] = said
    return made


def envoy_deployment(
    key: Key, labels: Mapping[str, str], group: str, secret: str, options: RouterOptions, certificate: str = ""
) -> Object:
    """Envoys that get everything by xDS as one group, and are ready once they answer at `READY_PORT`."""
    credentials = options.credentials(secret)
    start = router_bootstrap(options.xds_host, options.xds_port, group, credentials)
    bootstrap = json.dumps(start, separators=(",", ":"))
    arguments = ["--config-yaml", bootstrap, "--concurrency", "1", "--disable-hot-restart"]
    arguments += ["--drain-time-s", str(options.drain), "--drain-strategy", "immediate", "--log-level", "warning"]
    arguments += ["--file-flush-interval-msec", "250"]  # of the access log: `sandlane trace` waits for it
    container = envoy_container(
        options.image,
        arguments,
        ports=[{"name": "ready", "containerPort": READY_PORT, "protocol": "TCP"}],
        readinessProbe={
            "httpGet": {"path": "/", "port": "ready", "scheme": "HTTP"},
            "periodSeconds": 2,
            "timeoutSeconds": 1,
            "successThreshold": 1,
            "failureThreshold": 3,
        },
        # Until the xDS server has closed its doors and its connections have gone: Envoy ends at once when it is told to.
        lifecycle={"preStop": {"sleep": {"seconds": options.settle + options.drain + 1}}},
    )
    grace = options.settle + options.drain + 10
    return deployment(key, labels, container, credentials, certificate, replicas=options.replicas, grace=grace)


def router_budget(namespace: str) -> Object:
    """One router stays while nodes are drained."""
    return budget(Key(namespace, ROUTER_NAME), ROUTER_SELECTOR)


def shadow_service(service: Service, original: Service, listeners: Mapping[int, int]) -> Object:
    """A Service with the original's selector and ports, owned by it: its endpoints are the baseline."""
    spec = json.loads(original_spec(service, original))
    metadata = service.metadata
    owner = {
        "apiVersion": "v1",
        "kind": "Service",
        "name": metadata.name,
        "uid": metadata.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }
    ports = [{key: value for key, value in port.items() if key != "nodePort"} for port in spec["ports"]]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": shadow_name(metadata.name),
            "namespace": metadata.namespace,
            "labels": {MANAGED_BY: MANAGER, ROUTER: "shadow"},
            "annotations": {
                SHADOW_OF: metadata.name,
                LISTENERS: json.dumps({str(port): listeners[port] for port in sorted(listeners)}),
            },
            "ownerReferences": [owner],
        },
        "spec": {"selector": spec["selector"], "ports": ports}
        | ({"publishNotReadyAddresses": True} if original.spec.publish_not_ready_addresses else {}),
    }


def original_spec(service: Service, original: Service) -> str:
    """`selector` and `ports` as the owner wrote them, as JSON for the annotation."""
    saved = service.metadata.annotations.get(ORIGINAL)
    if saved is not None:
        return saved
    spec = service.object()["spec"]
    return json.dumps({"selector": spec.get("selector") or {}, "ports": spec["ports"]}, separators=(",", ":"))


def allocate(wanted: list[int], remembered: Mapping[int, int], taken: set[int]) -> dict[int, int]:
    """Router ports for Service ports: those remembered, and the lowest free ones for the rest."""
    made = {port: remembered[port] for port in wanted if port in remembered}
    used = taken | set(made.values())
    free = (number for number in range(FIRST_LISTENER, LAST_LISTENER + 1) if number not in used)
    for port in wanted:
        if port not in made:
            made[port] = next(free)
    return made
