"""How all our Envoys run in a cluster: restricted, spread over nodes, one after the other when they change. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from sandlane.kube.resource import Key, Object
from sandlane.routing.envoy.identity import Credentials, equip

NON_ROOT = 65532


def envoy_container(image: str, arguments: list[str], **more: object) -> Object:
    """The container, that may do nothing but serve. `more`: its ports, probe and hooks."""
    fields = {"POD_IP": "status.podIP", "POD_NAME": "metadata.name"}
    return {
        "name": "envoy",
        "image": image,
        "args": arguments,
        "env": [
            {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}
            for name, path in fields.items()
        ],
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        **more,
    }


def deployment(
    key: Key,
    labels: Mapping[str, str],
    container: Object,
    credentials: Credentials,
    certificate: str,
    *,
    replicas: int,
    grace: int,
) -> Object:
    """Pods with these labels, of one container, with the certificate that they show to the xDS server. `grace`: seconds to end."""
    selector = {"matchLabels": dict(labels)}
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": selector,
    }
    template = {
        "metadata": {"labels": dict(labels)},
        "spec": {
            "containers": [container],
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": grace,
            "topologySpreadConstraints": [spread],
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": NON_ROOT,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
        },
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": key.name, "namespace": key.namespace, "labels": dict(labels)},
        "spec": {
            "replicas": replicas,
            "selector": selector,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": equip(template, credentials, certificate),
        },
    }


def budget(key: Key, labels: Mapping[str, str]) -> Object:
    """All but one of them stay while nodes are drained."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": key.name, "namespace": key.namespace, "labels": dict(labels)},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": dict(labels)}},
    }
