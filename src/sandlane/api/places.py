"""Where Sandlane itself lives in a cluster: names and ports that its manifests, its manager and its routers agree on."""

from __future__ import annotations

NAMESPACE = "sandlane-system"
MANAGER_NAME = "sandlane-manager"
"""The manager's Deployment, ServiceAccount, roles, ConfigMap and Lease."""
WEBHOOK_SERVICE = "sandlane-webhook"
"""Also the name of the webhook configurations."""
XDS_SERVICE = "sandlane-xds"
XDS_PORT = 18_000
WEBHOOK_PORT = 9443
HEALTH_PORT = 8081
METRICS_PORT = 8080
ROUTES_SERVICE = "sandlane-routes"
"""Where the routes API is: message consumers find it by this name."""
ROUTES_PORT = 7778
"""HTTP."""
ROUTES_GRPC_PORT = 7777


def service_names(service: str, namespace: str) -> list[str]:
    """The names by which a Service is called inside its cluster."""
    return [f"{service}.{namespace}.svc", f"{service}.{namespace}.svc.cluster.local"]
