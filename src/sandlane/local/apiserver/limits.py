"""Built-in admission by ResourceQuota, LimitRange and PriorityClass: what the store holds, asked by the rules of `kinds.quota`."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from sandlane.kube.resource import Object
from sandlane.local.apiserver.kinds.pods import tolerate_for_a_while
from sandlane.local.apiserver.kinds.quota import default_from_ranges, quota_fault, range_faults
from sandlane.local.apiserver.resource_type import ResourceType, StorageKey
from sandlane.local.apiserver.status import StatusError, forbidden
from sandlane.local.apiserver.store.objects import ObjectStore

_PODS: StorageKey = ("", "pods")
_RANGES: StorageKey = ("", "limitranges")
_QUOTAS: StorageKey = ("", "resourcequotas")
_CLASSES: StorageKey = ("scheduling.k8s.io", "priorityclasses")
_PREEMPT = "PreemptLowerPriority"
SYSTEM_PRIORITIES = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}
_LIMITED = frozenset({_PODS, ("", "persistentvolumeclaims")})


class Limits:
    """Asks the quotas and ranges of an object's namespace. Costs nothing where there are none."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def default(self, type_: ResourceType, obj: Object, namespace: str) -> None:
        """A new Pod tolerates nodes that are not ready for a while; its containers get the defaults of the LimitRanges."""
        if type_.storage_key == _PODS:
            tolerate_for_a_while(obj)
        if type_.storage_key == _PODS and self._store.count(_RANGES):
            default_from_ranges(obj, self._objects(_RANGES, namespace))

    def prioritize(self, type_: ResourceType, obj: Object) -> None:
        """A new Pod has the priority of its PriorityClass. Raises `StatusError` 403 when it says something else."""
        if type_.storage_key != _PODS:
            return
        spec = obj["spec"]
        name = spec.get("priorityClassName", "")
        value, policy = SYSTEM_PRIORITIES.get(name, 0), _PREEMPT
        if (name not in SYSTEM_PRIORITIES and self._store.count(_CLASSES)) or (name and not value):
            classes = {each["metadata"]["name"]: each for each in self._objects(_CLASSES, "")}
            defaults = [each for each in classes.values() if each.get("globalDefault")]
            found = classes.get(name) if name else min(defaults, key=lambda each: each.get("value", 0), default=None)
            if found is not None:
                spec["priorityClassName"] = found["metadata"]["name"]
                value, policy = found.get("value", 0), found.get("preemptionPolicy", _PREEMPT)
            elif name:
                raise _refusal(type_, obj, f"no PriorityClass with name {name} was found")
        computed = "must not be provided in pod spec; priority admission controller computed {} from the given PriorityClass name"
        if spec.get("priority") not in (None, value):
            raise _refusal(type_, obj, f"the integer value of priority ({spec['priority']}) {computed.format(value)}")
        if spec.get("preemptionPolicy") not in (None, policy):
            given = spec["preemptionPolicy"]
            raise _refusal(type_, obj, f"the string value of PreemptionPolicy ({given}) {computed.format(policy)}")
        spec["priority"], spec["preemptionPolicy"] = value, policy

    def check(self, type_: ResourceType, new: Object, old: Object | None, namespace: str) -> None:
        """Raises `StatusError` 403 when a range or a quota refuses a new or changed object."""
        if not type_.resource.namespaced:
            return
        if type_.storage_key in _LIMITED and self._store.count(_RANGES):
            faults = range_faults(type_.resource, new, self._objects(_RANGES, namespace))
            if faults:
                raise _refusal(type_, new, faults[0] if len(faults) == 1 else f"[{', '.join(faults)}]")
        if self._store.count(_QUOTAS):
            quotas = self._objects(_QUOTAS, namespace)

            def live(group: str, plural: str) -> Iterable[Object]:
                return self._objects((group, plural), namespace)

            fault = quota_fault(type_.resource, new, old, quotas, live)
            if fault is not None:
                raise _refusal(type_, new, fault)

    def _objects(self, storage: StorageKey, namespace: str) -> list[Object]:
        return [msgspec.json.decode(stored.data) for _, stored in self._store.list(storage, namespace)]


def _refusal(type_: ResourceType, obj: Object, why: str) -> StatusError:
    resource = type_.resource
    return forbidden(resource.group, resource.plural, obj["metadata"].get("name", ""), why)
