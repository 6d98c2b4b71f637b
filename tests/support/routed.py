"""Plain objects of a routed namespace: a baseline with its Service, turned to the router or not, and sandboxes of it."""

from __future__ import annotations

import json
from typing import Any

from sandlane.api.labels import MANAGED_BY, MANAGER, ORIGINAL, ROUTER
from sandlane.routing.names import LISTENERS, SHADOW_OF, shadow_name
from sandlane.routing.resources import ROUTER_SELECTOR

NAMESPACE = "n"
LAPTOP = "11111111-2222-3333-4444-555555555555"


def meta(name: str, uid: str, created: int = 1, **more: Any) -> dict[str, Any]:
    """Metadata."""
    made = f"2026-01-{created:02}T00:00:00Z"
    return {"name": name, "namespace": NAMESPACE, "uid": uid, "creationTimestamp": made} | more


def service(name: str = "eta", *, turned: bool = True, port: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """A Service, its shadow when it is turned, and a ready endpoint."""
    plain = {"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"} | (port or {})
    spec: dict[str, Any] = {"selector": {"app": name}, "ports": [plain]}
    made = {"apiVersion": "v1", "kind": "Service", "metadata": meta(name, f"s-{name}"), "spec": spec}
    real = shadow_name(name) if turned else name
    found = [made, endpoints(real)]
    if turned:
        made["metadata"]["annotations"] = {ORIGINAL: json.dumps(spec)}
        made["spec"] = {"selector": dict(ROUTER_SELECTOR), "ports": [{**plain, "targetPort": 20000}]}
        owner = {"apiVersion": "v1", "kind": "Service", "name": name, "uid": f"s-{name}", "controller": True}
        annotations = {LISTENERS: json.dumps({"80": 20000}), SHADOW_OF: name}
        labels = {MANAGED_BY: MANAGER, ROUTER: "shadow"}
        shadow = meta(real, f"shadow-{name}", labels=labels, annotations=annotations, ownerReferences=[owner])
        found.append({"apiVersion": "v1", "kind": "Service", "metadata": shadow, "spec": spec})
    return found


def endpoints(name: str, *, ready: bool = True) -> dict[str, Any]:
    """An EndpointSlice with one endpoint."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": meta(f"{name}-1", f"e-{name}", labels={"kubernetes.io/service-name": name}),
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": ready}}],
        "ports": [{"name": "http", "port": 8084}],
    }


def deployment(name: str = "eta") -> dict[str, Any]:
    """A baseline."""
    labels = {"app": name}
    container = {"name": name, "image": "i", "ports": [{"name": "http", "containerPort": 8084}]}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta(name, f"d-{name}"), "spec": spec}


def baseline(name: str = "eta", **options: Any) -> list[dict[str, Any]]:
    """A workload with its Service."""
    return [deployment(name), *service(name, **options)]


def sandbox(
    name: str, *, of: str = "eta", ready: bool = True, created: int = 1, fork: Any = None, **spec: Any
) -> list[dict[str, Any]]:
    """A sandbox with one fork, and the fork's endpoints."""
    own = f"{of}-{name}"
    status = {
        "baseline": {"kind": "Deployment", "name": of, "uid": f"d-{of}", "generation": 1},
        "workload": own,
        "everReady": ready,
        "services": [{"from": of, "to": own, "ports": [{"port": 80, "name": "http"}]}],
    } | (fork or {})
    forks = [{"forkOf": {"kind": "Deployment", "name": of}}]
    made = {
        "apiVersion": "sandlane.dev/v1alpha1",
        "kind": "Sandbox",
        "metadata": meta(name, f"uid-{name}", created, labels={"team": name, "all": "yes"}),
        "spec": {"routingKey": f"key-{name}", "forks": forks} | spec,
        "status": {"forks": [status]},
    }
    owner = {"apiVersion": "sandlane.dev/v1alpha1", "kind": "Sandbox", "name": name, "uid": f"uid-{name}"}
    metadata = meta(own, f"s-{own}", labels={MANAGED_BY: MANAGER}, ownerReferences=[owner | {"controller": True}])
    ports = [{"name": "http", "port": 80}]
    fork_service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"selector": {"f": own}, "ports": ports},
    }
    return [made, fork_service, endpoints(own, ready=ready)]


def group(name: str, created: int = 1, **match: str) -> dict[str, Any]:
    """A route group of sandboxes with one label."""
    ((key, value),) = match.items()
    return {
        "apiVersion": "sandlane.dev/v1alpha1",
        "kind": "RouteGroup",
        "metadata": meta(name, f"uid-{name}", created),
        "spec": {"routingKey": f"key-{name}", "match": {"label": {"key": key, "value": value}}},
    }


def local(sandbox: str, *, of: str = "eta", on_disconnect: str = "Fail", tunnels: int = 0) -> dict[str, Any]:
    """A laptop that stands in for a workload."""
    spec = {
        "sandbox": sandbox,
        "from": {"kind": "Deployment", "name": of},
        "mappings": [{"port": 8084, "to": "localhost:1"}],
        "onDisconnect": on_disconnect,
    }
    made = {"apiVersion": "sandlane.dev/v1alpha1", "kind": "LocalWorkload", "metadata": meta("l", LAPTOP), "spec": spec}
    return made | ({"status": {"connection": {"client": "me", "tunnels": tunnels}}} if tunnels else {})
