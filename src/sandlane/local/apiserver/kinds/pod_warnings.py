"""Warnings about Pods and pod templates: what is taken, but does not do what its author may think."""

from __future__ import annotations

from typing import Any

from sandlane.kube.quantity import parse_quantity
from sandlane.kube.resource import Object
from sandlane.local.apiserver.kinds.field_errors import Faults
from sandlane.local.apiserver.kinds.pods import all_containers

_OLD_LABELS = {
    "beta.kubernetes.io/arch": ("v1.14", "kubernetes.io/arch"),
    "beta.kubernetes.io/os": ("v1.14", "kubernetes.io/os"),
    "failure-domain.beta.kubernetes.io/region": ("v1.17", "topology.kubernetes.io/region"),
    "failure-domain.beta.kubernetes.io/zone": ("v1.17", "topology.kubernetes.io/zone"),
    "beta.kubernetes.io/instance-type": ("v1.17", "node.kubernetes.io/instance-type"),
}
_OLD_ANNOTATIONS = (
    ("container.apparmor.security.beta.kubernetes.io/", "deprecated since v1.30", "appArmorProfile"),
    ("scheduler.alpha.kubernetes.io/critical-pod", "non-functional in v1.16+", "priorityClassName"),
    ("seccomp.security.alpha.kubernetes.io/pod", "non-functional in v1.27+", "seccompProfile"),
    ("container.seccomp.security.alpha.kubernetes.io/", "non-functional in v1.27+", "seccompProfile"),
)


_OLD_VOLUMES = {
    "photonPersistentDisk": "deprecated in v1.11, non-functional in v1.16+",
    "gitRepo": "deprecated in v1.11, and disabled by default in v1.33+",
    "scaleIO": "deprecated in v1.16, non-functional in v1.22+",
    "flocker": "deprecated in v1.22, non-functional in v1.25+",
    "storageos": "deprecated in v1.22, non-functional in v1.25+",
    "quobyte": "deprecated in v1.22, non-functional in v1.25+",
    "glusterfs": "deprecated in v1.25, non-functional in v1.26+",
    "rbd": "deprecated in v1.28, non-functional in v1.31+",
    "cephfs": "deprecated in v1.28, non-functional in v1.31+",
}


def warn_pod(faults: Faults, obj: Object) -> None:
    """Warnings about a Pod."""
    warn_template(faults, obj, "")


def warn_template(faults: Faults, template: Object, at: str) -> None:
    """Warnings about a pod template (or a Pod); `at` is its path, with a dot at the end when it has one."""
    spec, field, say = template.get("spec") or {}, f"{at}spec", faults.warnings.append
    for key in sorted(spec.get("nodeSelector") or {}):
        if key in _OLD_LABELS:
            since, instead = _OLD_LABELS[key]
            say(f'{field}.nodeSelector[{key}]: deprecated since {since}; use "{instead}" instead')
    for index, spread in enumerate(spec.get("topologySpreadConstraints") or []):
        if spread.get("labelSelector") is None:
            where = f"{field}.topologySpreadConstraints[{index}].labelSelector"
            say(f"{where}: a null labelSelector results in matching no pod")
    for key in sorted((template.get("metadata") or {}).get("annotations") or {}):
        for name, fate, instead in _OLD_ANNOTATIONS:
            if key.startswith(name) if name.endswith("/") else key == name:
                say(f'{at}metadata.annotations[{key}]: {fate}; use the "{instead}" field instead')
    for index, volume in enumerate(spec.get("volumes") or []):
        for name, fate in _OLD_VOLUMES.items():
            if name in volume:
                shown = "storageOS" if name == "storageos" else name
                say(f"{field}.volumes[{index}].{shown}: {fate}")
    _repeated(faults, spec.get("hostAliases") or [], "ip", f"{field}.hostAliases")
    secrets = spec.get("imagePullSecrets") or []
    _repeated(faults, secrets, "name", f"{field}.imagePullSecrets")
    for index, secret in enumerate(secrets):
        if not secret.get("name"):
            say(f'{field}.imagePullSecrets[{index}].name: invalid empty name ""')
    for path, container in all_containers(spec):
        _warn_container(faults, container, f"{field}.{path}")
    _warn_ports(faults, spec, field)


def _repeated(faults: Faults, items: list[Object], key: str, at: str) -> None:
    seen: set[Any] = set()
    for index, item in enumerate(items):
        if item.get(key) in seen:
            faults.warnings.append(f'{at}[{index}].{key}: duplicate {key} "{item.get(key, "")}"')
        seen.add(item.get(key))


def _warn_container(faults: Faults, container: Object, at: str) -> None:
    for group in ("limits", "requests"):
        for name, text in sorted(((container.get("resources") or {}).get(group) or {}).items()):
            if name in ("memory", "ephemeral-storage") and parse_quantity(text) % 1:
                where = f"{at}.resources.{group}[{name}]"
                faults.warnings.append(f'{where}: fractional byte value "{text}" is invalid, must be an integer')
    seen: set[str] = set()
    for index, variable in enumerate(container.get("env") or []):
        if variable.get("name") in seen:
            text = f'hides previous definition of "{variable["name"]}", which may be dropped when using apply'
            faults.warnings.append(f"{at}.env[{index}]: {text}")
        seen.add(variable.get("name", ""))


def _warn_ports(faults: Faults, spec: Object, field: str) -> None:
    known: dict[tuple[Any, Any], list[tuple[str, Object]]] = {}
    for path, container in all_containers(spec):
        for index, port in enumerate(container.get("ports") or []):
            at = f"{field}.{path}.ports[{index}]"
            others = known.setdefault((port.get("containerPort"), port.get("protocol") or "TCP"), [])
            for where, other in others:
                if all(port.get(key) == other.get(key) for key in ("hostIP", "hostPort")):
                    faults.warnings.append(f"{at}: duplicate port definition with {where}")
                elif not port.get("hostPort") or not other.get("hostPort"):
                    faults.warnings.append(f"{at}: overlapping port definition with {where}")
                elif port["hostPort"] == other["hostPort"] and bool(port.get("hostIP")) != bool(other.get("hostIP")):
                    faults.warnings.append(f"{at}: dangerously ambiguous port definition with {where}")
            others.append((at, port))
