"""Kinds that are one object under two names: Events of two groups, HorizontalPodAutoscalers of two versions.

The first of each pair (`v1` Event, `autoscaling/v2`) is how the object is stored.
"""

from __future__ import annotations

import msgspec

from sandlane.kube.resource import Object

_METRICS = "autoscaling.alpha.kubernetes.io/metrics"
_BEHAVIOR = "autoscaling.alpha.kubernetes.io/behavior"
_CONDITIONS = "autoscaling.alpha.kubernetes.io/conditions"
_CURRENT = "autoscaling.alpha.kubernetes.io/current-metrics"

# (core v1, events.k8s.io/v1)
_EVENT_FIELDS = (
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
)
_EVENT_OPTIONAL = ("regarding", "note", "deprecatedCount", "reportingController", "reportingInstance", "reason", "type")


def event_from_core(obj: Object) -> Object:
    """A stored Event as events.k8s.io/v1 shows it."""
    result = {key: value for key, value in obj.items() if key not in {core for core, _ in _EVENT_FIELDS}}
    result["apiVersion"] = "events.k8s.io/v1"
    for core, other in _EVENT_FIELDS:
        if core in obj:
            result[other] = obj[core]
    for key in _EVENT_OPTIONAL:
        if not result.get(key):
            result.pop(key, None)
    result.setdefault("deprecatedSource", {})
    for key in ("eventTime", "deprecatedFirstTimestamp", "deprecatedLastTimestamp"):
        result.setdefault(key, None)
    return result


def event_to_core(obj: Object) -> Object:
    """An events.k8s.io/v1 Event as it is stored."""
    result = {key: value for key, value in obj.items() if key not in {other for _, other in _EVENT_FIELDS}}
    result["apiVersion"] = "v1"
    for core, other in _EVENT_FIELDS:
        if other in obj:
            result[core] = obj[other]
    result.setdefault("involvedObject", {})
    result.setdefault("source", {})
    for key in ("firstTimestamp", "lastTimestamp", "eventTime"):
        result.setdefault(key, None)
    for key in ("reportingComponent", "reportingInstance"):
        result.setdefault(key, "")
    return result


def autoscaler_to_v1(obj: Object) -> Object:
    """A stored autoscaler (v2) as autoscaling/v1 shows it: what v1 has no field for goes into annotations."""
    spec, status = dict(obj.get("spec") or {}), dict(obj.get("status") or {})
    metadata = dict(obj.get("metadata") or {})
    annotations = dict(metadata.get("annotations") or {})
    others = []
    for metric in spec.pop("metrics", None) or []:
        target = (metric.get("resource") or {}).get("target") or {}
        is_cpu = metric.get("type") == "Resource" and (metric.get("resource") or {}).get("name") == "cpu"
        if is_cpu and target.get("averageUtilization") is not None:
            spec["targetCPUUtilizationPercentage"] = target["averageUtilization"]
        else:
            others.append(metric)
    for key, value in ((_METRICS, others), (_BEHAVIOR, spec.pop("behavior", None))):
        if value:
            annotations[key] = msgspec.json.encode(value).decode()
    for key, field in ((_CONDITIONS, "conditions"), (_CURRENT, "currentMetrics")):
        value = status.pop(field, None)
        if value:
            annotations[key] = msgspec.json.encode(value).decode()
    status.setdefault("currentReplicas", 0)
    status.setdefault("desiredReplicas", 0)
    if annotations:
        metadata["annotations"] = annotations
    return {**obj, "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status}


def autoscaler_from_v1(obj: Object) -> Object:
    """An autoscaling/v1 autoscaler as it is stored."""
    spec, status = dict(obj.get("spec") or {}), dict(obj.get("status") or {})
    metadata = dict(obj.get("metadata") or {})
    annotations = dict(metadata.get("annotations") or {})
    metrics = _decoded(annotations.pop(_METRICS, None), [])
    percentage = spec.pop("targetCPUUtilizationPercentage", None)
    if percentage is not None:
        target = {"type": "Utilization", "averageUtilization": percentage}
        metrics.insert(0, {"type": "Resource", "resource": {"name": "cpu", "target": target}})
    if metrics:
        spec["metrics"] = metrics
    behavior = _decoded(annotations.pop(_BEHAVIOR, None), {})
    if behavior:
        spec["behavior"] = behavior
    status["conditions"] = _decoded(annotations.pop(_CONDITIONS, None), []) or None
    status["currentMetrics"] = _decoded(annotations.pop(_CURRENT, None), []) or None
    status.pop("currentCPUUtilizationPercentage", None)
    if metadata.get("annotations") is not None:
        metadata["annotations"] = annotations
    if not annotations:
        metadata.pop("annotations", None)
    return {**obj, "apiVersion": "autoscaling/v2", "metadata": metadata, "spec": spec, "status": status}


def _decoded(text: str | None, default: list[Object] | Object) -> list[Object]:
    """What an annotation holds; a broken one counts as not there."""
    result: list[Object]
    try:
        result = msgspec.json.decode(text, type=type(default)) if text else default  # type: ignore[assignment]
    except msgspec.DecodeError:
        return default  # type: ignore[return-value]
    return result
