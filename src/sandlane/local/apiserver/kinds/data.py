"""Defaults and validation of Namespaces, Nodes, storage, policy, scheduling, autoscaling and quotas."""

from __future__ import annotations

from typing import Any

from sandlane.kube.patch.values import copy_json, equal_json
from sandlane.kube.quantity import canonical_quantity, parse_quantity
from sandlane.kube.resource import Object
from sandlane.local.apiserver.kinds.field_errors import Faults, go_struct
from sandlane.local.apiserver.kinds.names import check_finalizer, check_selector, qualified_name
from sandlane.local.apiserver.kinds.volume_rules import check_claim_spec


def _unset(target: Object, key: str, value: Any) -> None:
    if target.get(key) in (None, ""):
        target[key] = value


def prepare_namespace(obj: Object) -> None:
    """A new Namespace is active and held by the namespace controller's finalizer."""
    spec = obj.setdefault("spec", {})
    finalizers = spec.setdefault("finalizers", [])
    if "kubernetes" not in finalizers:
        finalizers.append("kubernetes")
    obj["status"] = {"phase": "Active"}
    default_namespace(obj)  # the name may have been generated only now


def default_namespace(obj: Object) -> None:
    """The label that carries the name."""
    metadata = obj.setdefault("metadata", {})
    if metadata.get("name"):
        metadata.setdefault("labels", {})["kubernetes.io/metadata.name"] = metadata["name"]


def keep_namespace_finalizers(new: Object, old: Object) -> None:
    """`spec.finalizers` is written through /finalize only."""
    new["spec"] = dict(old.get("spec") or {})


def check_namespace(faults: Faults, obj: Object) -> None:
    """What holds a Namespace has a name that says whose it is."""
    for index, finalizer in enumerate((obj.get("spec") or {}).get("finalizers") or []):
        check_finalizer(faults, f"spec.finalizers[{index}]", finalizer)


def default_node(obj: Object) -> None:
    """A Node's allocatable is its capacity unless it says otherwise."""
    status = obj.get("status") or {}
    if status.get("capacity") and not status.get("allocatable"):
        status["allocatable"] = dict(status["capacity"])


def default_claim(obj: Object) -> None:
    """A PersistentVolumeClaim is for a file system unless it says otherwise."""
    _unset(obj.setdefault("spec", {}), "volumeMode", "Filesystem")


def prepare_claim(obj: Object) -> None:
    """A new claim waits to be bound."""
    obj["status"] = {"phase": "Pending"}


def check_claim(faults: Faults, obj: Object) -> None:
    """A PersistentVolumeClaim's spec."""
    check_claim_spec(faults, obj["spec"], "spec")


def check_claim_update(faults: Faults, new: Object, old: Object) -> None:
    """A claim may ask for more storage and be bound to a volume; nothing else of its spec may change."""
    before, after = copy_json(old["spec"]), copy_json(new["spec"])
    if not before.get("volumeName"):
        after.pop("volumeName", None)
    bound = (old.get("status") or {}).get("phase") == "Bound"
    for spec in (before, after) if bound else ():
        (spec.get("resources") or {}).pop("requests", None)
        spec.pop("volumeAttributesClassName", None)
    if not equal_json(before, after):
        text = (
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
        )
        faults.forbidden("spec", text)


def default_volume(obj: Object) -> None:
    """Defaults of a PersistentVolume."""
    spec = obj.setdefault("spec", {})
    _unset(spec, "persistentVolumeReclaimPolicy", "Retain")
    _unset(spec, "volumeMode", "Filesystem")
    if "hostPath" in spec and spec["hostPath"].get("type") is None:
        spec["hostPath"]["type"] = ""


def prepare_volume(obj: Object) -> None:
    """A new volume is pending."""
    obj["status"] = {"phase": "Pending"}


def default_storage_class(obj: Object) -> None:
    """Defaults of a StorageClass."""
    _unset(obj, "reclaimPolicy", "Delete")
    _unset(obj, "volumeBindingMode", "Immediate")


def check_storage_class(faults: Faults, obj: Object) -> None:
    """A StorageClass names its provisioner."""
    if not obj.get("provisioner"):
        faults.required("provisioner")


def check_disruption_budget(faults: Faults, obj: Object) -> None:
    """A PodDisruptionBudget sets one of its two limits."""
    spec = obj["spec"]
    if spec.get("minAvailable") is not None and spec.get("maxUnavailable") is not None:
        shown = "minAvailable selector maxUnavailable unhealthyPodEvictionPolicy"
        shown_spec = go_struct(spec, shown) | {"Selector": spec.get("selector")}
        faults.invalid("spec", shown_spec, "minAvailable and maxUnavailable cannot be both set")
    for key in ("minAvailable", "maxUnavailable"):
        value = spec.get(key)
        if isinstance(value, int):
            faults.non_negative(f"spec.{key}", value)
        elif isinstance(value, str) and not value.removesuffix("%").isdecimal():
            text = (
                "a valid percent string must be a numeric string followed by an ending '%' "
                "(e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"
            )
            faults.invalid(f"spec.{key}", value, text)
    policy = spec.get("unhealthyPodEvictionPolicy")
    faults.one_of("spec.unhealthyPodEvictionPolicy", policy, ("AlwaysAllow", "IfHealthyBudget"))
    check_selector(faults, spec.get("selector"), "spec.selector")


def default_priority_class(obj: Object) -> None:
    """A PriorityClass preempts unless it says otherwise."""
    _unset(obj, "preemptionPolicy", "PreemptLowerPriority")


def check_priority_class(faults: Faults, obj: Object) -> None:
    """Values above a billion belong to the system."""
    name, value = obj["metadata"].get("name", ""), obj.get("value", 0)
    if name.startswith("system-") and name not in ("system-node-critical", "system-cluster-critical"):
        faults.forbidden(
            "metadata.name", "priority class names with 'system-' prefix are reserved for system use only. error: "
        )
    if not name.startswith("system-") and value > 1_000_000_000:
        faults.forbidden("value", "maximum allowed value of a user defined priority is 1000000000")


def check_priority_class_update(faults: Faults, new: Object, old: Object) -> None:
    """Value and policy may not change."""
    if new.get("value", 0) != old.get("value", 0):
        faults.forbidden("value", "may not be changed in an update.")
    faults.immutable(
        "preemptionPolicy", new.get("preemptionPolicy"), same=new.get("preemptionPolicy") == old.get("preemptionPolicy")
    )


_ALL_OF_THEM = {"type": "Percent", "value": 100, "periodSeconds": 15}
_SCALING: tuple[tuple[str, int | None, list[Object]], ...] = (
    ("scaleUp", 0, [{"type": "Pods", "value": 4, "periodSeconds": 15}, _ALL_OF_THEM]),
    ("scaleDown", None, [_ALL_OF_THEM]),
)


def default_autoscaler(obj: Object) -> None:
    """Defaults of a HorizontalPodAutoscaler (v2)."""
    spec = obj.setdefault("spec", {})
    if spec.get("minReplicas") is None:
        spec["minReplicas"] = 1
    if not spec.get("metrics"):
        target = {"type": "Utilization", "averageUtilization": 80}
        spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    if spec.get("behavior") is not None:
        for name, window, policies in _SCALING:
            rules = spec["behavior"].setdefault(name, {})
            _unset(rules, "selectPolicy", "Max")
            if window is not None:
                _unset(rules, "stabilizationWindowSeconds", window)
            if not rules.get("policies"):
                rules["policies"] = [dict(each) for each in policies]


def default_old_autoscaler(obj: Object) -> None:
    """Defaults of a HorizontalPodAutoscaler (v1), whose other metrics are in an annotation."""
    spec = obj.setdefault("spec", {})
    if spec.get("minReplicas") is None:
        spec["minReplicas"] = 1
    others = "autoscaling.alpha.kubernetes.io/metrics" in (obj["metadata"].get("annotations") or {})
    if spec.get("targetCPUUtilizationPercentage") is None and not others:
        spec["targetCPUUtilizationPercentage"] = 80


_OLD_CLASS = "volume.beta.kubernetes.io/storage-class"
_CSI_DRIVER: Object = {
    "attachRequired": True,
    "podInfoOnMount": False,
    "volumeLifecycleModes": ["Persistent"],
    "storageCapacity": False,
    "fsGroupPolicy": "ReadWriteOnceWithFSType",
    "requiresRepublish": False,
    "seLinuxMount": False,
}


def default_csi_driver(obj: Object) -> None:
    """Defaults of a CSIDriver."""
    spec = obj.setdefault("spec", {})
    for key, value in _CSI_DRIVER.items():
        _unset(spec, key, copy_json(value))


def warn_claim(faults: Faults, obj: Object) -> None:
    """The class of claims and volumes was an annotation once."""
    if _OLD_CLASS in (obj["metadata"].get("annotations") or {}):
        instead = 'deprecated since v1.8; use "storageClassName" attribute instead'
        faults.warnings.append(f"metadata.annotations[{_OLD_CLASS}]: {instead}")


def check_autoscaler(faults: Faults, obj: Object) -> None:
    """A HorizontalPodAutoscaler's spec."""
    spec = obj["spec"]
    minimum, maximum = spec.get("minReplicas"), spec.get("maxReplicas", 0)
    if minimum is not None and minimum < 1:
        faults.invalid("spec.minReplicas", minimum, "must be greater than or equal to 1")
    if maximum < 1:
        faults.invalid("spec.maxReplicas", maximum, "must be greater than 0")
    if minimum is not None and maximum < minimum:
        faults.invalid("spec.maxReplicas", maximum, "must be greater than or equal to `minReplicas`")
    target = spec.get("scaleTargetRef") or {}
    at = "spec.scaleTargetRef"
    for key in ("kind", "name"):
        if not target.get(key):
            faults.required(f"{at}.{key}")
        elif "/" in target[key]:
            faults.invalid(f"{at}.{key}", target[key], "may not contain '/'")
    version = target.get("apiVersion", "")
    if version.count("/") > 1:
        faults.invalid(f"{at}.apiVersion", version, f"unexpected GroupVersion string: {version}")
    elif "/" not in version and target.get("kind") != "ReplicationController":
        faults.invalid(f"{at}.apiVersion", version, "apiVersion must specify API group")
    for index, metric in enumerate(spec.get("metrics") or []):
        _check_metric(faults, metric, f"spec.metrics[{index}]")


_SOURCES = ("object", "pods", "resource", "containerResource", "external")


def _check_metric(faults: Faults, metric: Object, at: str) -> None:
    kind = metric.get("type", "")
    if not kind:
        faults.required(f"{at}.type", "must specify a metric source type")
    if kind not in ("ContainerResource", "External", "Object", "Pods", "Resource"):
        kinds = ("ContainerResource", "External", "Object", "Pods", "Resource")
        faults.not_supported(f"{at}.type", kind, kinds)
        return
    name = kind[0].lower() + kind[1:]
    for other in _SOURCES:
        if other in metric and other != name:
            faults.forbidden(f"{at}.{other}", "may only be specified when `type` is {kind}")
    source = metric.get(name)
    if source is None:
        faults.required(f"{at}.{name}", "must populate information for the given metric source")
        return
    if name in ("resource", "containerResource") and not source.get("name"):
        faults.required(f"{at}.{name}.name", "must specify a resource name")
    target = source.get("target") or {}
    where = f"{at}.{name}.target"
    if not target.get("type"):
        faults.required(f"{where}.type", "must specify a metric target type")
    elif target["type"] not in ("Utilization", "Value", "AverageValue"):
        faults.invalid(f"{where}.type", target["type"], "must be either Utilization, Value, or AverageValue")
    if name in ("resource", "containerResource"):
        if target.get("averageUtilization") is not None and target.get("averageValue") is not None:
            text = "may not set both a target raw value and a target utilization"
            faults.forbidden(f"{where}.averageValue", text)
        elif target.get("averageUtilization") is None and target.get("averageValue") is None:
            text = "must set either a target raw value or a target utilization"
            faults.required(f"{where}.averageUtilization", text)
        elif target.get("averageUtilization") is not None and target["averageUtilization"] < 1:
            faults.invalid(f"{where}.averageUtilization", target["averageUtilization"], "must be greater than 0")


_COMPUTE = {f"{kind}{name}" for kind in ("", "requests.", "limits.") for name in ("cpu", "memory", "ephemeral-storage")}
_COUNTS = {"configmaps", "persistentvolumeclaims", "pods", "replicationcontrollers", "resourcequotas", "secrets"}
_COUNTS |= {"services", "services.loadbalancers", "services.nodeports", "requests.storage"}
_PAIRS = ({"BestEffort", "NotBestEffort"}, {"Terminating", "NotTerminating"})
_POD_SCOPES = {"CrossNamespacePodAffinity", "NotBestEffort", "NotTerminating", "PriorityClass", "Terminating"}
_SCOPES = {"BestEffort": {"pods"}, **{scope: {"pods", *_COMPUTE} for scope in _POD_SCOPES}}
_SCOPES["VolumeAttributesClass"] = {"persistentvolumeclaims", "requests.storage"}
_OPERATORS = ("DoesNotExist", "Exists", "In", "NotIn")


def check_quota_update(faults: Faults, new: Object, old: Object) -> None:
    """What a quota is about may not change."""
    before, after = (each.get("spec", {}).get("scopes") or [] for each in (old, new))
    faults.immutable("spec.scopes", after, same=sorted(before) == sorted(after))


def check_quota(faults: Faults, obj: Object) -> None:
    """A ResourceQuota's limits, and the scopes that they can have."""
    spec = obj.get("spec") or {}
    hard = spec.get("hard") or {}
    for name, text in hard.items():
        if "/" not in name and name not in _COMPUTE | _COUNTS:
            for what in ("type or fully qualified", "for quota"):
                faults.invalid(f"spec.hard[{name}]", name, f"must be a standard resource {what}")
        if (value := parse_quantity(text)) < 0:
            faults.invalid(f"spec.hard[{name}]", text, "must be greater than or equal to 0")
        if (name in _COUNTS - {"requests.storage"} or name.startswith("count/")) and value.denominator != 1:
            faults.invalid(f"spec.hard[{name}]", canonical_quantity(text), "must be an integer")
    scopes = spec.get("scopes") or []
    _check_scopes(faults, "spec.scopes", scopes, scopes, hard)
    requirements = (spec.get("scopeSelector") or {}).get("matchExpressions") or []
    at = "spec.scopeSelector.matchExpressions"
    for each in requirements:
        scope, operator, values = each.get("scopeName", ""), each.get("operator", ""), each.get("values") or []
        if operator not in _OPERATORS:
            faults.invalid(f"{at}.operator", operator, "not a valid selector operator")
        elif operator != "Exists" and scope not in ("PriorityClass", "VolumeAttributesClass"):
            which = "ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"
            faults.invalid(f"{at}.operator", operator, f"must be 'Exists' when scope is any of {which}")
        if operator in ("In", "NotIn") and not values:
            why = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
            faults.required(f"{at}.values", why)
        elif operator in ("Exists", "DoesNotExist") and values:
            why = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"
            faults.invalid(f"{at}.values", values, why)
    named = [each.get("scopeName", "") for each in requirements]
    _check_scopes(faults, f"{at}.scopeName", named, spec.get("scopeSelector"), hard)


def _check_scopes(faults: Faults, at: str, scopes: list[str], shown: Any, hard: Object) -> None:
    for scope in scopes:
        if scope not in _SCOPES:
            faults.invalid(at, shown, "unsupported scope")
        elif any(name not in _SCOPES[scope] for name in hard if name in _COMPUTE | _COUNTS):
            faults.invalid(at, shown, "unsupported scope applied to resource")
    if any(pair <= set(scopes) for pair in _PAIRS):
        faults.invalid(at, shown, "conflicting scopes")


def check_limit_range(faults: Faults, obj: Object) -> None:
    """The limits of a LimitRange do not contradict each other."""
    for index, limit in enumerate((obj.get("spec") or {}).get("limits") or []):
        at, bounds = (
            f"spec.limits[{index}]",
            [limit.get(key) or {} for key in ("min", "max", "default", "defaultRequest")],
        )
        _check_limit_type(faults, limit, at)
        for name in sorted({name for each in bounds for name in each}):
            low, high, default, request = (each.get(name) for each in bounds)
            for field, shown, less, more, texts in (
                ("min", low, low, high, ("min value", "max value")),
                ("defaultRequest", request, low, request, ("min value", "default request value")),
                ("defaultRequest", request, request, high, ("default request value", "max value")),
                ("defaultRequest", request, request, default, ("default request value", "default limit value")),
                ("default", low, low, default, ("min value", "default value")),
                ("default", high, default, high, ("default value", "max value")),
            ):
                if less is not None and more is not None and parse_quantity(less) > parse_quantity(more):
                    text = f"{texts[0]} {less} is greater than {texts[1]} {more}"
                    faults.invalid(f"{at}.{field}[{name}]", shown, text)


def _check_limit_type(faults: Faults, limit: Object, at: str) -> None:
    kind = limit.get("type", "")
    details = qualified_name(kind)
    if not details and "/" not in kind and kind not in ("Pod", "Container", "PersistentVolumeClaim"):
        details = ["must be a standard limit type or fully qualified"]
    for detail in details:
        faults.invalid(f"{at}.type", kind, detail)
    if kind == "Pod":
        for key in ("default", "defaultRequest"):
            if limit.get(key):
                faults.forbidden(f"{at}.{key}", "may not be specified when `type` is 'Pod'")
    if kind == "PersistentVolumeClaim" and not ({*(limit.get("min") or {}), *(limit.get("max") or {})} & {"storage"}):
        text = "either minimum or maximum storage value is required, but neither was provided"
        faults.required(f"{at}.limits", text)
    for name, ratio in (limit.get("maxLimitRequestRatio") or {}).items():
        if parse_quantity(ratio) < 1:
            faults.invalid(f"{at}.maxLimitRequestRatio[{name}]", ratio, f"ratio {ratio} is less than 1")


def default_limit_range(obj: Object) -> None:
    """A limit for containers: default and defaultRequest follow from max and default."""
    for limit in (obj.setdefault("spec", {})).get("limits") or []:
        if limit.get("type") != "Container":
            continue
        default = limit.setdefault("default", {})
        request = limit.setdefault("defaultRequest", {})
        for name, value in (limit.get("max") or {}).items():
            default.setdefault(name, value)
        for name, value in default.items():
            request.setdefault(name, value)
        for name, value in (limit.get("min") or {}).items():
            request.setdefault(name, value)
        for key in ("default", "defaultRequest"):
            if not limit[key]:
                del limit[key]
