"""The columns that `kubectl get` shows of the kinds that are mostly data: ingresses, autoscalers, claims, classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sandlane.kube.resource import Object
from sandlane.local.apiserver.resource_type import Column

Read = Callable[[Object], Any]

_AGE = Column("Age", read=lambda obj: obj["metadata"].get("creationTimestamp"))
_MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}
_MAX_METRICS = 2


def _spec(key: str, default: Any = "") -> Read:
    return lambda obj: (obj.get("spec") or {}).get(key, default)


def _field(key: str, default: Any = "") -> Read:
    return lambda obj: obj.get(key, default)


def _column(name: str, read: Read, priority: int = 0, type_: str = "string") -> Column:
    return Column(name, type_, priority=priority, read=read)


def _integer(name: str, read: Read) -> Column:
    return _column(name, read, type_="integer")


# -- ingresses ----------------------------------------------------------------------------------------------


def _ingress_hosts(obj: Object) -> str:
    hosts = [rule["host"] for rule in obj["spec"].get("rules") or () if rule.get("host")]
    shown = ",".join(hosts[:3])
    return f"{shown} + {len(hosts) - 3} more..." if len(hosts) > 3 else shown or "*"


def _ingress_address(obj: Object) -> str:
    balancers = ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    return ",".join(each.get("ip") or each.get("hostname") or "" for each in balancers)


# -- autoscalers --------------------------------------------------------------------------------------------


def _autoscaler_reference(obj: Object) -> str:
    target = obj["spec"].get("scaleTargetRef") or {}
    return f"{target.get('kind', '')}/{target.get('name', '')}"


def _autoscaler_targets(obj: Object) -> str:
    """`cpu: <unknown>/80%, memory: 10Mi/64Mi`: what is measured and what is wanted."""
    spec, status = obj["spec"], obj.get("status") or {}
    if "targetCPUUtilizationPercentage" in spec:
        current = status.get("currentCPUUtilizationPercentage")
        return f"cpu: {'<unknown>' if current is None else f'{current}%'}/{spec['targetCPUUtilizationPercentage']}%"
    measured = status.get("currentMetrics") or []
    shown = []
    for index, metric in enumerate(spec.get("metrics") or ()):
        source = metric.get("resource") or metric.get("containerResource") or {}
        current = ((measured[index].get("resource") or {}).get("current") or {}) if index < len(measured) else {}
        target = source.get("target") or {}
        if target.get("averageUtilization") is not None:
            used = current.get("averageUtilization")
            values = f"{'<unknown>' if used is None else f'{used}%'}/{target['averageUtilization']}%"
        else:
            values = f"{current.get('averageValue', '<unknown>')}/{target.get('averageValue', '<auto>')}"
        shown.append(f"{source['name']}: {values}" if source.get("name") else values)
    more = f" + {len(shown) - _MAX_METRICS} more..." if len(shown) > _MAX_METRICS else ""
    return ", ".join(shown[:_MAX_METRICS]) + more or "<none>"


# -- volumes ------------------------------------------------------------------------------------------------


def _modes(obj: Object) -> str:
    modes = (obj.get("status") or {}).get("accessModes") or obj["spec"].get("accessModes") or ()
    return ",".join(_MODES.get(mode, mode) for mode in modes)


def _claim_modes(obj: Object) -> str:
    return _modes(obj) if obj["spec"].get("volumeName") else ""


def _phase(obj: Object) -> str:
    if obj["metadata"].get("deletionTimestamp"):
        return "Terminating"
    return str((obj.get("status") or {}).get("phase", ""))


def _claim_capacity(obj: Object) -> str:
    return str(((obj.get("status") or {}).get("capacity") or {}).get("storage", ""))


def _volume_claim(obj: Object) -> str:
    claim = obj["spec"].get("claimRef")
    return f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else ""


# -- the table ----------------------------------------------------------------------------------------------


def _cron_job_active(obj: Object) -> int:
    return len((obj.get("status") or {}).get("active") or ())


def _template_images(*path: str) -> tuple[Column, ...]:
    def containers(obj: Object) -> list[Object]:
        node: Any = obj
        for key in (*path, "spec", "containers"):
            node = (node or {}).get(key)
        return node or []

    return (
        _column("Containers", lambda obj: ",".join(each["name"] for each in containers(obj)), 1),
        _column("Images", lambda obj: ",".join(each.get("image", "") for each in containers(obj)), 1),
    )


_POD_TEMPLATE = _template_images("template")
_AUTOSCALER = (
    _column("Reference", _autoscaler_reference),
    _column("Targets", _autoscaler_targets),
    _column("MinPods", lambda obj: str(obj["spec"].get("minReplicas", "<unset>"))),
    _integer("MaxPods", _spec("maxReplicas", 0)),
    _integer("Replicas", lambda obj: (obj.get("status") or {}).get("currentReplicas", 0)),
    _AGE,
)

DATA_PRINTERS: dict[tuple[str, str], tuple[Column, ...]] = {
    ("networking.k8s.io", "Ingress"): (
        _column("Class", lambda obj: obj["spec"].get("ingressClassName") or "<none>"),
        _column("Hosts", _ingress_hosts),
        _column("Address", _ingress_address),
        _column("Ports", lambda obj: "80, 443" if obj["spec"].get("tls") else "80"),
        _AGE,
    ),
    ("networking.k8s.io", "IngressClass"): (
        _column("Controller", _spec("controller")),
        _column("Parameters", lambda obj: _parameters((obj.get("spec") or {}).get("parameters"))),
        _AGE,
    ),
    ("autoscaling", "HorizontalPodAutoscaler"): _AUTOSCALER,
    ("batch", "CronJob"): (
        _column("Schedule", _spec("schedule")),
        _column("Timezone", lambda obj: obj["spec"].get("timeZone") or "<none>"),
        _column("Suspend", lambda obj: "True" if obj["spec"].get("suspend") else "False"),
        _integer("Active", _cron_job_active),
        _column("Last Schedule", lambda obj: (obj.get("status") or {}).get("lastScheduleTime") or "<none>"),
        _AGE,
        *_template_images("spec", "jobTemplate", "spec", "template"),
        _column("Selector", lambda obj: "<none>", 1),
    ),
    ("", "ReplicationController"): (
        _integer("Desired", _spec("replicas", 0)),
        _integer("Current", lambda obj: (obj.get("status") or {}).get("replicas", 0)),
        _integer("Ready", lambda obj: (obj.get("status") or {}).get("readyReplicas", 0)),
        _AGE,
        *_template_images("spec", "template"),
        _column("Selector", lambda obj: _joined(obj["spec"].get("selector")), 1),
    ),
    ("", "PersistentVolumeClaim"): (
        _column("Status", _phase),
        _column("Volume", _spec("volumeName")),
        _column("Capacity", _claim_capacity),
        _column("Access Modes", _claim_modes),
        _column("StorageClass", _spec("storageClassName")),
        _column("VolumeAttributesClass", lambda obj: obj["spec"].get("volumeAttributesClassName") or "<unset>"),
        _AGE,
        _column("VolumeMode", lambda obj: obj["spec"].get("volumeMode") or "<unset>", 1),
    ),
    ("", "PersistentVolume"): (
        _column("Capacity", lambda obj: (obj["spec"].get("capacity") or {}).get("storage", "")),
        _column("Access Modes", _modes),
        _column("Reclaim Policy", _spec("persistentVolumeReclaimPolicy")),
        _column("Status", _phase),
        _column("Claim", _volume_claim),
        _column("StorageClass", _spec("storageClassName")),
        _column("VolumeAttributesClass", lambda obj: obj["spec"].get("volumeAttributesClassName") or "<unset>"),
        _column("Reason", lambda obj: (obj.get("status") or {}).get("reason", "")),
        _AGE,
        _column("VolumeMode", lambda obj: obj["spec"].get("volumeMode") or "<unset>", 1),
    ),
    ("", "PodTemplate"): (*_POD_TEMPLATE, _column("Pod Labels", lambda obj: _pod_labels(obj))),
    ("apps", "ControllerRevision"): (
        _column("Controller", lambda obj: _controller(obj)),
        _column("Revision", _field("revision", 0)),
        _AGE,
    ),
    ("storage.k8s.io", "StorageClass"): (
        _column("Provisioner", _field("provisioner")),
        _column("ReclaimPolicy", _field("reclaimPolicy", "Delete")),
        _column("VolumeBindingMode", _field("volumeBindingMode", "Immediate")),
        _column("AllowVolumeExpansion", lambda obj: str(bool(obj.get("allowVolumeExpansion"))).lower()),
        _AGE,
    ),
    ("scheduling.k8s.io", "PriorityClass"): (
        _integer("Value", _field("value", 0)),
        _column("Global-Default", lambda obj: str(bool(obj.get("globalDefault"))).lower(), type_="boolean"),
        _AGE,
        _column("PreemptionPolicy", _field("preemptionPolicy", "<unset>")),
    ),
    ("node.k8s.io", "RuntimeClass"): (_column("Handler", _field("handler")), _AGE),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy"): (
        _integer("Validations", lambda obj: len((obj.get("spec") or {}).get("validations") or ())),
        _column("ParamKind", lambda obj: _kind((obj.get("spec") or {}).get("paramKind"))),
        _AGE,
    ),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding"): (
        _column("PolicyName", _spec("policyName")),
        _column("ParamRef", lambda obj: ((obj.get("spec") or {}).get("paramRef") or {}).get("name") or "<unset>"),
        _AGE,
    ),
}


def _joined(labels: dict[str, str] | None) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items())) or "<none>"


def _pod_labels(obj: Object) -> str:
    return _joined(((obj.get("template") or {}).get("metadata") or {}).get("labels"))


def _controller(obj: Object) -> str:
    for owner in obj["metadata"].get("ownerReferences") or ():
        if owner.get("controller"):
            group = owner["apiVersion"].rpartition("/")[0]
            kind = f"{owner['kind'].lower()}.{group}" if group else owner["kind"].lower()
            return f"{kind}/{owner['name']}"
    return "<none>"


def _parameters(reference: Object | None) -> str:
    if reference is None:
        return "<none>"
    group = f".{reference['apiGroup']}" if reference.get("apiGroup") else ""
    return f"{reference.get('kind', '')}{group}/{reference.get('name', '')}"


def _kind(reference: Object | None) -> str:
    return f"{reference.get('apiVersion', '')}/{reference.get('kind', '')}" if reference else "<unset>"
