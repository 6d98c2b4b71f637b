"""Every object of an installation: in manifests and chart with a manager, on a laptop without. Pure."""

from __future__ import annotations

from typing import Any

import yaml

from sandlane.admission.hooks import all_hooks
from sandlane.api.crd import definitions
from sandlane.api.places import (
    HEALTH_PORT,
    MANAGER_NAME,
    METRICS_PORT,
    NAMESPACE,
    ROUTES_GRPC_PORT,
    ROUTES_PORT,
    ROUTES_SERVICE,
    WEBHOOK_PORT,
    WEBHOOK_SERVICE,
    XDS_PORT,
    XDS_SERVICE,
)
from sandlane.install.rights import rights
from sandlane.kube.resource import Object
from sandlane.runtime.webhook_rules import configurations

IMAGE = "sandlane/manager"
SELECTOR = {"app.kubernetes.io/name": "sandlane", "app.kubernetes.io/component": "manager"}
CONFIG = "/etc/sandlane"
PREVIEW_TOKEN = "/etc/sandlane-preview"
"""Where a Secret with the preview gateway's token is mounted, if there is one."""


def foundation(namespace: str = NAMESPACE, *, url: str = "") -> list[Object]:
    """What must be there before a manager runs: its namespace, the kinds, rights, webhook configurations.

    With a `url` the webhooks are reached there, otherwise by their Service.
    """
    service = None if url else {"name": WEBHOOK_SERVICE, "namespace": namespace}
    hooks = configurations(all_hooks(), WEBHOOK_SERVICE, service=service, url=url)
    return [namespace_object(namespace), *definitions(), *rights(namespace), *hooks]


def everything(namespace: str = NAMESPACE, *, version: str, image: str = "", replicas: int = 2) -> list[Object]:
    """A whole installation, in the order in which it can be applied."""
    made = [*foundation(namespace), manager_config(namespace), *services(namespace)]
    made += [budget(namespace), deployment(namespace, image=image or f"{IMAGE}:{version}", replicas=replicas)]
    return [labelled(obj, version) for obj in made]


def labelled(obj: Object, version: str) -> Object:
    """An object with the labels by which an installation is recognised."""
    labels = {"app.kubernetes.io/name": "sandlane", "app.kubernetes.io/version": version}
    metadata = obj["metadata"]
    return {**obj, "metadata": {**metadata, "labels": {**labels, **metadata.get("labels", {})}}}


def namespace_object(namespace: str) -> Object:
    """Our namespace: nothing in it needs more than the restricted profile allows."""
    profile = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": profile}}


def manager_options(namespace: str) -> dict[str, Any]:
    """The manager's configuration file: only what differs from the defaults of the program."""
    return {
        "leaderElect": True,
        "healthProbeBindAddress": f":{HEALTH_PORT}",
        "metricsBindAddress": f":{METRICS_PORT}",
        "webhookPort": WEBHOOK_PORT,
        "xdsBindAddress": f"0.0.0.0:{XDS_PORT}",
        "xdsAdvertiseAddress": f"{XDS_SERVICE}.{namespace}.svc:{XDS_PORT}",
        "routesBindAddress": f":{ROUTES_PORT}",
        "routesGrpcBindAddress": f":{ROUTES_GRPC_PORT}",
    }


def manager_config(namespace: str) -> Object:
    """The configuration file in its ConfigMap."""
    text = yaml.safe_dump(manager_options(namespace), sort_keys=False)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": MANAGER_NAME, "namespace": namespace},
        "data": {"manager.yaml": text},
    }


def services(namespace: str) -> list[Object]:
    """Where the API server finds the webhooks, routers their configuration, and consumers the routes."""

    def service(name: str, *given: tuple[int, str, str]) -> Object:
        ports = [
            {"name": target, "port": port, "targetPort": target, "protocol": "TCP", "appProtocol": protocol}
            for port, target, protocol in given
        ]
        spec = {"selector": dict(SELECTOR), "ports": ports}
        return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace}, "spec": spec}

    return [
        service(WEBHOOK_SERVICE, (443, "webhook", "https")),
        service(XDS_SERVICE, (XDS_PORT, "xds", "grpc")),
        service(ROUTES_SERVICE, (ROUTES_PORT, "routes", "http"), (ROUTES_GRPC_PORT, "routes-grpc", "grpc")),
    ]


def routes_at(namespace: str, http: tuple[str, int], grpc: tuple[str, int]) -> list[Object]:
    """On a laptop the manager is no Pod: the Service of the routes API, with the endpoints that it has."""
    service = next(each for each in services(namespace) if each["metadata"]["name"] == ROUTES_SERVICE)
    ports = service["spec"]["ports"]
    for port in ports:
        del port["targetPort"]
    where = {"routes": http, "routes-grpc": grpc}
    endpoints = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": ROUTES_SERVICE,
            "namespace": namespace,
            "labels": {"kubernetes.io/service-name": ROUTES_SERVICE},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [http[0]], "conditions": {"ready": True}}],
        "ports": [{"name": port["name"], "port": where[port["name"]][1], "protocol": "TCP"} for port in ports],
    }
    return [{**service, "spec": {"ports": ports}}, endpoints]


def budget(namespace: str) -> Object:
    """One manager stays while nodes are drained."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": MANAGER_NAME, "namespace": namespace},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": dict(SELECTOR)}},
    }


def deployment(namespace: str, *, image: str, replicas: int = 2) -> Object:
    """The manager: one replica leads, all serve xDS and webhooks."""
    ports = {"webhook": WEBHOOK_PORT, "xds": XDS_PORT, "routes": ROUTES_PORT, "routes-grpc": ROUTES_GRPC_PORT}
    ports |= {"health": HEALTH_PORT, "metrics": METRICS_PORT}
    probe = {"httpGet": {"path": "/healthz", "port": "health"}, "timeoutSeconds": 5}
    container = {
        "name": "manager",
        "image": image,
        "args": ["manager", f"--config={CONFIG}/manager.yaml"],
        "ports": [{"name": name, "containerPort": port, "protocol": "TCP"} for name, port in ports.items()],
        "startupProbe": probe | {"periodSeconds": 2, "failureThreshold": 30},
        "livenessProbe": probe | {"periodSeconds": 20, "failureThreshold": 3},
        "readinessProbe": {**probe, "httpGet": {"path": "/readyz", "port": "health"}, "periodSeconds": 5},
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "config", "mountPath": CONFIG, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "preview-token", "mountPath": PREVIEW_TOKEN, "readOnly": True},
        ],
    }
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": dict(SELECTOR)},
    }
    pod = {
        "serviceAccountName": MANAGER_NAME,
        "automountServiceAccountToken": True,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 45,
        "topologySpreadConstraints": [spread],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "config", "configMap": {"name": MANAGER_NAME}},
            {"name": "preview-token", "secret": {"secretName": "sandlane-preview-token", "optional": True}},
            {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
        ],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": MANAGER_NAME, "namespace": namespace, "labels": dict(SELECTOR)},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": dict(SELECTOR)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {"metadata": {"labels": dict(SELECTOR)}, "spec": pod},
        },
    }
