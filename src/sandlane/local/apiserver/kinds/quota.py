"""ResourceQuota and LimitRange: what objects use, what a quota leaves, and what a limit sets or refuses.

Pure: the callers say which quotas, ranges and objects there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction
from typing import TypeAlias

from sandlane.kube.quantity import canonical_quantity, format_quantity, parse_quantity
from sandlane.kube.resource import Object, Resource
from sandlane.local.apiserver.kinds.pods import all_containers, qos_class

Usage: TypeAlias = Mapping[str, Fraction]
Live: TypeAlias = Callable[[str, str], Iterable[Object]]
"""The live objects of one namespace, by group and plural."""

_PLAIN_COUNTS = frozenset(
    {"configmaps", "persistentvolumeclaims", "replicationcontrollers", "resourcequotas", "secrets", "services"}
)
_COMPUTE = ("cpu", "memory", "ephemeral-storage")
_ONE = Fraction(1)


# -- what objects use ---------------------------------------------------------------------------------------


def usage_of(group: str, plural: str, obj: Object) -> dict[str, Fraction]:
    """What one object counts for, by the names that quotas use."""
    used = {f"count/{plural}.{group}" if group else f"count/{plural}": _ONE}
    if group:
        return used
    if plural in _PLAIN_COUNTS:
        used[plural] = _ONE
    if plural == "pods" and not _is_finished(obj):
        used |= {"pods": _ONE, **_pod_usage(obj)}
    elif plural == "services":
        used |= _service_usage(obj)
    elif plural == "persistentvolumeclaims":
        requests = ((obj.get("spec") or {}).get("resources") or {}).get("requests") or {}
        if "storage" in requests:
            used["requests.storage"] = parse_quantity(requests["storage"])
    return used


def _is_finished(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def _pod_usage(pod: Object) -> dict[str, Fraction]:
    spec = pod.get("spec") or {}
    used: dict[str, Fraction] = {}
    for kind in ("requests", "limits"):
        for name in _COMPUTE:
            total, peak, seen = Fraction(0), Fraction(0), False
            for path, container in all_containers(spec):
                text = ((container.get("resources") or {}).get(kind) or {}).get(name)
                if text is None or path.startswith("ephemeral"):
                    continue
                seen = True
                if path.startswith("init") and container.get("restartPolicy") != "Always":
                    peak = max(peak, parse_quantity(text))
                else:
                    total += parse_quantity(text)
            if seen:
                used[f"{kind}.{name}"] = max(total, peak)
                if kind == "requests":
                    used[name] = max(total, peak)
    return used


def _service_usage(service: Object) -> dict[str, Fraction]:
    spec = service.get("spec") or {}
    by_node = spec.get("type") == "NodePort" or (
        spec.get("type") == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is not False
    )
    used = {"services.nodeports": Fraction(len(spec.get("ports") or []))} if by_node else {}
    if spec.get("type") == "LoadBalancer":
        used["services.loadbalancers"] = _ONE
    return used


# -- quotas -------------------------------------------------------------------------------------------------


def _in_scope(quota: Object, plural: str, obj: Object) -> bool:
    spec = quota.get("spec") or {}
    wanted: list[tuple[str, str, list[str]]] = [(scope, "Exists", []) for scope in spec.get("scopes") or []]
    for each in (spec.get("scopeSelector") or {}).get("matchExpressions") or []:
        wanted.append((each.get("scopeName", ""), each.get("operator", ""), each.get("values") or []))
    if wanted and plural != "pods":
        return False
    return all(_matches_scope(obj, *each) for each in wanted)


def _matches_scope(pod: Object, scope: str, operator: str, values: list[str]) -> bool:
    spec = pod.get("spec") or {}
    if scope in ("Terminating", "NotTerminating"):
        return (spec.get("activeDeadlineSeconds") is not None) == (scope == "Terminating")
    if scope in ("BestEffort", "NotBestEffort"):
        return (qos_class(spec) == "BestEffort") == (scope == "BestEffort")
    if scope == "PriorityClass":
        name = spec.get("priorityClassName", "")
        holds = {"In": name in values, "NotIn": name not in values, "Exists": bool(name), "DoesNotExist": not name}
        return holds.get(operator, False)
    return True


def _total(quota: Object, group: str, plural: str, objects: Iterable[Object]) -> dict[str, Fraction]:
    total: dict[str, Fraction] = {}
    for obj in objects:
        if _in_scope(quota, plural, obj):
            for name, value in usage_of(group, plural, obj).items():
                total[name] = total.get(name, Fraction(0)) + value
    return total


def quota_fault(
    resource: Resource, new: Object, old: Object | None, quotas: Iterable[Object], live: Live
) -> str | None:
    """Why a quota refuses the object, as kube-apiserver says it; None when all quotas leave room."""
    group, plural = resource.group, resource.plural
    for quota in sorted(quotas, key=lambda each: str(each["metadata"]["name"])):
        hard = {name: parse_quantity(text) for name, text in ((quota.get("spec") or {}).get("hard") or {}).items()}
        wanted = usage_of(group, plural, new) if _in_scope(quota, plural, new) else {}
        name = quota["metadata"]["name"]
        if plural == "pods" and not group and wanted:
            missing = _missing(new, hard)
            if missing:
                return f"failed quota: {name}: must specify {missing}"
        before = usage_of(group, plural, old) if old is not None and _in_scope(quota, plural, old) else {}
        delta = {key: value - before.get(key, 0) for key, value in wanted.items() if key in hard}
        grows = {key: value for key, value in delta.items() if value > 0}
        if not grows:
            continue
        used = _total(quota, group, plural, live(group, plural))
        over = sorted(key for key in grows if used.get(key, Fraction(0)) + grows[key] > hard[key])
        if over:
            return (
                f"exceeded quota: {name}, requested: {_list(over, grows)}, "
                f"used: {_list(over, used)}, limited: {_list(over, hard)}"
            )
    return None


def _missing(pod: Object, hard: Usage) -> str:
    """`limits.cpu for: main,other; requests.cpu for: main`: what a quota asks of each container."""
    missing: list[str] = []
    for key in sorted(hard):
        kind, _, name = key.rpartition(".")
        if name not in _COMPUTE or kind not in ("", "limits", "requests"):
            continue
        without = [
            container.get("name", "")
            for path, container in all_containers(pod.get("spec") or {})
            if not path.startswith("ephemeral")
            and name not in ((container.get("resources") or {}).get(kind or "requests") or {})
        ]
        if without:
            missing.append(f"{key} for: {','.join(sorted(without))}")
    return "; ".join(missing)


def _list(keys: Iterable[str], values: Usage) -> str:
    return ",".join(f"{key}={_text(key, values.get(key, Fraction(0)))}" for key in keys)


def _text(key: str, value: Fraction) -> str:
    return format_quantity(value, "binary" if key.endswith(("memory", "storage")) else "decimal")


def quota_status(quota: Object, live: Live, resources: Iterable[Resource]) -> Object:
    """`status` of a quota: its hard limits and what is used of each. `resources`: all that may be counted."""
    hard = (quota.get("spec") or {}).get("hard") or {}
    used: dict[str, Fraction] = {}
    for resource in resources:
        names = usage_names(resource)
        if any(name in names for name in hard):
            used |= _total(quota, resource.group, resource.plural, live(resource.group, resource.plural))
    return {
        "hard": {name: canonical_quantity(text) for name, text in hard.items()},
        "used": {name: _text(name, used.get(name, Fraction(0))) for name in hard},
    }


def usage_names(resource: Resource) -> frozenset[str]:
    """Every name under which objects of a resource can count."""
    count = f"count/{resource.plural}.{resource.group}" if resource.group else f"count/{resource.plural}"
    more: dict[str, tuple[str, ...]] = {
        "pods": ("pods", *(f"{kind}{name}" for kind in ("", "requests.", "limits.") for name in _COMPUTE)),
        "services": ("services", "services.nodeports", "services.loadbalancers"),
        "persistentvolumeclaims": ("persistentvolumeclaims", "requests.storage"),
    }
    if resource.group:
        return frozenset({count})
    own = (resource.plural,) if resource.plural in _PLAIN_COUNTS else ()
    return frozenset({count, *own, *more.get(resource.plural, ())})


# -- limit ranges -------------------------------------------------------------------------------------------


def _limits(ranges: Iterable[Object], kind: str) -> Iterator[Object]:
    for each in ranges:
        for limit in (each.get("spec") or {}).get("limits") or []:
            if limit.get("type") == kind:
                yield limit


def default_from_ranges(pod: Object, ranges: Iterable[Object]) -> None:
    """Containers get the defaults that the LimitRanges of their namespace set, where they say nothing."""
    limits, told = list(_limits(ranges, "Container")), list[str]()
    for path, container in sorted(all_containers(pod.get("spec") or {}), key=lambda each: each[0].startswith("init")):
        if path.startswith("ephemeral"):
            continue
        resources = container.setdefault("resources", {})
        given = {field: set(resources.get(field) or {}) for field in ("requests", "limits")}
        for limit in limits:
            for field, source in (("limits", "default"), ("requests", "defaultRequest")):
                for name, value in (limit.get(source) or {}).items():
                    resources.setdefault(field, {}).setdefault(name, value)
        who = f"{'init ' if path.startswith('init') else ''}container {container.get('name', '')}"
        for field in ("requests", "limits"):
            if added := sorted(set(resources.get(field) or {}) - given[field]):
                told.append(f"{', '.join(added)} {field.removesuffix('s')} for {who}")
    if told:
        annotations = pod["metadata"].setdefault("annotations", {})
        annotations["kubernetes.io/limit-ranger"] = "LimitRanger plugin set: " + "; ".join(told)


def range_faults(resource: Resource, obj: Object, ranges: Iterable[Object]) -> list[str]:
    """Why the LimitRanges of a namespace refuse a Pod or a claim, one text for each limit that is broken."""
    ranges = list(ranges)
    faults: list[str] = []
    if (resource.group, resource.plural) == ("", "pods"):
        spec = obj.get("spec") or {}
        for limit in _limits(ranges, "Container"):
            for path, container in all_containers(spec):
                if not path.startswith("ephemeral"):
                    resources = container.get("resources") or {}
                    faults += _range_faults(
                        "Container", limit, _parsed(resources, "requests"), _parsed(resources, "limits")
                    )
        used = _pod_usage(obj)
        requests, ceilings = (
            {n: used[f"{kind}.{n}"] for n in _COMPUTE if f"{kind}.{n}" in used} for kind in ("requests", "limits")
        )
        for limit in _limits(ranges, "Pod"):
            faults += _range_faults("Pod", limit, requests, ceilings)
    elif (resource.group, resource.plural) == ("", "persistentvolumeclaims"):
        requests = _parsed((obj.get("spec") or {}).get("resources") or {}, "requests")
        for limit in _limits(ranges, "PersistentVolumeClaim"):
            faults += _range_faults("PersistentVolumeClaim", {**limit, "maxLimitRequestRatio": {}}, requests, requests)
    return faults


def _parsed(resources: Object, kind: str) -> dict[str, Fraction]:
    return {name: parse_quantity(text) for name, text in (resources.get(kind) or {}).items()}


def _range_faults(kind: str, limit: Object, requests: Usage, limits: Usage) -> Iterator[str]:
    for name, text in (limit.get("min") or {}).items():
        shown = canonical_quantity(text)
        if name not in requests:
            yield f"minimum {name} usage per {kind} is {shown}.  No request is specified"
        elif requests[name] < parse_quantity(text):
            yield f"minimum {name} usage per {kind} is {shown}, but request is {_text(name, requests[name])}"
    said = "request" if kind == "PersistentVolumeClaim" else "limit"
    for name, text in (limit.get("max") or {}).items():
        shown = canonical_quantity(text)
        if name not in limits:
            yield f"maximum {name} usage per {kind} is {shown}.  No limit is specified"
        elif limits[name] > parse_quantity(text):
            yield f"maximum {name} usage per {kind} is {shown}, but {said} is {_text(name, limits[name])}"
    for name, text in (limit.get("maxLimitRequestRatio") or {}).items():
        if not requests.get(name) or name not in limits:
            yield f"{name} max limit to request ratio per {kind} is {text}, but no request is specified or request is 0"
        elif limits[name] / requests[name] > parse_quantity(text):
            ratio = float(limits[name] / requests[name])
            yield f"{name} max limit to request ratio per {kind} is {text}, but provided ratio is {ratio:f}"
