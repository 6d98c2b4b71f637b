"""Defaults of Pods and pod templates, and what the server decides about a new Pod."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from sandlane.kube.quantity import parse_quantity
from sandlane.kube.resource import Object

_IMAGE = re.compile(
    r"(?:[A-Za-z0-9][A-Za-z0-9.\-]*(?::\d+)?/)?[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
    r"(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*(?::\w[\w.\-]{0,127})?(?:@.*)?",
    re.ASCII,
)
_NOT_READY = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def all_containers(spec: Object) -> Iterator[tuple[str, Object]]:
    """Every container with its path under the pod spec."""
    for field in ("initContainers", "containers", "ephemeralContainers"):
        for index, container in enumerate(spec.get(field) or []):
            yield f"{field}[{index}]", container


def default_template(template: Object) -> None:
    """Defaults of a pod template (not those that only Pods get)."""
    default_pod_spec(template.setdefault("spec", {}))


def default_pod_template(obj: Object) -> None:
    """Defaults of a PodTemplate object."""
    default_template(obj.setdefault("template", {}))


def default_pod(pod: Object) -> None:
    """Defaults of a Pod: those of a template, and its own."""
    spec = pod.setdefault("spec", {})
    if spec.get("enableServiceLinks") is None:
        spec["enableServiceLinks"] = True
    default_pod_spec(spec)
    _default_addresses(pod.get("status") or {})
    if spec.get("hostNetwork"):
        for _, container in all_containers(spec):
            for port in container.get("ports") or []:
                if port.get("containerPort"):
                    port.setdefault("hostPort", port["containerPort"])
    for asker in (spec, *(container for _, container in all_containers(spec))):
        resources = asker.get("resources") or {}
        limits = resources.get("limits") or {}
        if limits:
            requests = resources.setdefault("requests", {})
            for name, limit in limits.items():
                requests.setdefault(name, limit)


def _default_addresses(status: Object) -> None:
    """The address of a Pod is the first of its addresses."""
    address, addresses = status.get("podIP"), status.get("podIPs") or []
    if address and (not addresses or addresses[0].get("ip") != address):
        status["podIPs"] = [{"ip": address}]
    elif addresses and not address:
        status["podIP"] = addresses[0].get("ip", "")


def default_pod_spec(spec: Object) -> None:
    """Defaults that templates and Pods share."""
    for container in spec.get("containers") or []:
        _default_container(container)
    for container in spec.get("initContainers") or []:
        _default_container(container)
    for container in spec.get("ephemeralContainers") or []:
        _default_container(container)
    for volume in spec.get("volumes") or []:
        _default_volume(volume)
    _set(spec, "restartPolicy", "Always")
    if spec.get("terminationGracePeriodSeconds") is None:
        spec["terminationGracePeriodSeconds"] = 30
    _set(spec, "dnsPolicy", "ClusterFirst")
    if spec.get("securityContext") is None:
        spec["securityContext"] = {}
    _set(spec, "schedulerName", "default-scheduler")
    if spec.get("serviceAccountName") and not spec.get("serviceAccount"):
        spec["serviceAccount"] = spec["serviceAccountName"]
    elif spec.get("serviceAccount") and not spec.get("serviceAccountName"):
        spec["serviceAccountName"] = spec["serviceAccount"]


def prepare_pod(pod: Object) -> None:
    """What admission and the registry decide about a new Pod: priority, account, phase, QoS class."""
    spec = pod["spec"]
    if not spec.get("serviceAccountName"):
        spec["serviceAccountName"] = spec["serviceAccount"] = "default"
    if (spec.get("terminationGracePeriodSeconds") or 0) < 0:
        spec["terminationGracePeriodSeconds"] = 1
    spec.setdefault("priority", 0)
    spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
    pod["status"] = {"phase": "Pending", "qosClass": qos_class(spec)}
    if spec.get("schedulingGates"):
        pod["status"]["conditions"] = [
            {
                "type": "PodScheduled",
                "status": "False",
                "lastProbeTime": None,
                "lastTransitionTime": None,
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
            }
        ]


def tolerate_for_a_while(pod: Object) -> None:
    """A new Pod stays for five minutes on a node that is not ready, unless it says how long."""
    tolerations = pod["spec"].setdefault("tolerations", [])
    for key in _NOT_READY:
        if not any(_tolerates(each, key) for each in tolerations):
            tolerations.append({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300})


def qos_class(spec: Object) -> str:
    """`Guaranteed`, `Burstable` or `BestEffort`, from the cpu and memory of all containers."""
    any_set, guaranteed = False, True
    askers = [each for path, each in all_containers(spec) if not path.startswith("ephemeral")]
    for asker in [spec] if spec.get("resources") else askers:
        resources = asker.get("resources") or {}
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        for name in ("cpu", "memory"):
            limit, request = (parse_quantity(each.get(name, "0")) for each in (limits, requests))
            any_set = any_set or limit > 0 or request > 0
            guaranteed = guaranteed and limit > 0 and limit == request
    if not any_set:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def _tolerates(toleration: Object, key: str) -> bool:
    wanted_key = toleration.get("key", "") in ("", key)
    return wanted_key and toleration.get("effect", "") in ("", "NoExecute")


def _set(target: Object, key: str, value: Any) -> None:
    if not target.get(key):
        target[key] = value


def _default_container(container: Object) -> None:
    if not container.get("imagePullPolicy"):
        container["imagePullPolicy"] = "Always" if _is_latest(container.get("image", "")) else "IfNotPresent"
    _set(container, "terminationMessagePath", "/dev/termination-log")
    _set(container, "terminationMessagePolicy", "File")
    container.setdefault("resources", {})
    for port in container.get("ports") or []:
        _set(port, "protocol", "TCP")
    for variable in container.get("env") or []:
        source = variable.get("valueFrom") or {}
        if "fieldRef" in source:
            _set(source["fieldRef"], "apiVersion", "v1")
        if "resourceFieldRef" in source:
            source["resourceFieldRef"].setdefault("divisor", "0")
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if container.get(name) is not None:
            _default_probe(container[name])
    for hook in (container.get("lifecycle") or {}).values():
        if isinstance(hook, dict) and "httpGet" in hook:
            _default_http_get(hook["httpGet"])


def _is_latest(image: str) -> bool:
    """Whether an image is named without a version. What is no name of an image has none that anybody could miss."""
    if not _IMAGE.fullmatch(image):
        return False
    name, at, _ = image.partition("@")
    if at:
        return ":" in name.rpartition("/")[2] and name.endswith(":latest")
    tag = name.rpartition("/")[2].partition(":")[2]
    return tag in ("", "latest")


def _default_probe(probe: Object) -> None:
    _set(probe, "timeoutSeconds", 1)
    _set(probe, "periodSeconds", 10)
    _set(probe, "successThreshold", 1)
    _set(probe, "failureThreshold", 3)
    if "httpGet" in probe:
        _default_http_get(probe["httpGet"])
    if "grpc" in probe and probe["grpc"].get("service") is None:
        probe["grpc"]["service"] = ""


def _default_http_get(action: Object) -> None:
    _set(action, "path", "/")
    _set(action, "scheme", "HTTP")


def _default_volume(volume: Object) -> None:
    if len(volume) == 1:  # a name and nothing else
        volume["emptyDir"] = {}
    for source, field in (("secret", "defaultMode"), ("configMap", "defaultMode"), ("projected", "defaultMode")):
        if source in volume and volume[source].get(field) is None:
            volume[source][field] = 420
    if "downwardAPI" in volume:
        _default_downward(volume["downwardAPI"])
        if volume["downwardAPI"].get("defaultMode") is None:
            volume["downwardAPI"]["defaultMode"] = 420
    if "hostPath" in volume and volume["hostPath"].get("type") is None:
        volume["hostPath"]["type"] = ""
    if "image" in volume and not volume["image"].get("pullPolicy"):
        volume["image"]["pullPolicy"] = "Always" if _is_latest(volume["image"].get("reference", "")) else "IfNotPresent"
    for source in (volume.get("projected") or {}).get("sources") or []:
        if "serviceAccountToken" in source and source["serviceAccountToken"].get("expirationSeconds") is None:
            source["serviceAccountToken"]["expirationSeconds"] = 3600
        if "downwardAPI" in source:
            _default_downward(source["downwardAPI"])
    if "ephemeral" in volume:
        template = volume["ephemeral"].get("volumeClaimTemplate") or {}
        if template.get("spec") is not None and not template["spec"].get("volumeMode"):
            template["spec"]["volumeMode"] = "Filesystem"


def _default_downward(source: Object) -> None:
    for item in source.get("items") or []:
        if "fieldRef" in item:
            _set(item["fieldRef"], "apiVersion", "v1")
        if "resourceFieldRef" in item:
            item["resourceFieldRef"].setdefault("divisor", "0")
