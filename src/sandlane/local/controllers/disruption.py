"""The disruption controller: keeps the status of each PodDisruptionBudget, how many of its Pods may be evicted now."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from sandlane.kube.clock import Clock
from sandlane.kube.resource import (
    DEPLOYMENTS,
    POD_DISRUPTION_BUDGETS,
    PODS,
    REPLICA_SETS,
    Key,
    Object,
    Resource,
)
from sandlane.kube.unstructured import Unstructured
from sandlane.local.controllers.access import Access
from sandlane.local.controllers.objects import (
    deleting,
    is_active,
    is_ready,
    labels_of,
    moment,
    selects,
    timestamp,
    with_condition,
)
from sandlane.local.controllers.statefulset.plan import STATEFUL_SETS
from sandlane.runtime.controller import Controller
from sandlane.runtime.manager import Manager
from sandlane.runtime.result import Request, Result

FORGET = timedelta(minutes=2)
"""After which an evicted Pod that is still there counts again."""
_OWNERS = {each.kind: each for each in (REPLICA_SETS, STATEFUL_SETS, DEPLOYMENTS)}


class DisruptionController:
    """Counts the Pods of budgets."""

    def setup_with_manager(self, manager: Manager) -> None:
        """Say who wakes us."""
        self._access = Access(manager)
        self._clock: Clock = manager.clock
        (
            Controller.managed_by(manager)
            .for_(POD_DISRUPTION_BUDGETS, Unstructured)
            .watches(PODS, to_requests=self._budgets)
            .complete(self)
        )
        for resource in _OWNERS.values():
            manager.cache.informer(resource)

    def _budgets(self, pod: Unstructured) -> Iterable[Key]:
        """The budgets that a Pod counts for."""
        for budget in self._access.all(POD_DISRUPTION_BUDGETS, pod.metadata.namespace):
            selector = budget["spec"].get("selector")
            if selector is not None and selects(selector, pod.metadata.labels):
                yield Key(pod.metadata.namespace, budget["metadata"]["name"])

    async def reconcile(self, request: Request) -> Result:
        """Write one budget's status, if it is not right."""
        budget = self._access.get(POD_DISRUPTION_BUDGETS, request)
        if budget is None or deleting(budget):
            return Result.done()
        selector = budget["spec"].get("selector")
        pods = [
            pod
            for pod in self._access.all(PODS, request.namespace)
            if selector is not None and is_active(pod) and selects(selector, labels_of(pod))
        ]
        status, again_after = make_status(budget, pods, self._scale(pods), self._clock.now())
        await self._access.write_status(POD_DISRUPTION_BUDGETS, budget, status)
        return Result.done() if again_after is None else Result.requeue_after(again_after)

    def _scale(self, pods: Iterable[Object]) -> int:
        """How many Pods the owners of these want together; one without an owner counts for itself."""
        wanted: dict[str, int] = {}
        for pod in pods:
            owner, resource = self._owner(pod, PODS)
            if resource == REPLICA_SETS and owner is not None:
                above, found = self._owner(owner, REPLICA_SETS)
                owner = above if found == DEPLOYMENTS and above is not None else owner
            uid = (owner or pod)["metadata"]["uid"]
            wanted[uid] = owner["spec"].get("replicas", 1) if owner is not None else 1
        return sum(wanted.values())

    def _owner(self, obj: Object, of: Resource) -> tuple[Object | None, Resource]:
        for reference in obj["metadata"].get("ownerReferences") or ():
            resource = _OWNERS.get(reference["kind"])
            if reference.get("controller") and resource is not None:
                return self._access.get(resource, Key(obj["metadata"]["namespace"], reference["name"])), resource
        return None, of


def make_status(budget: Object, pods: list[Object], scale: int, now: datetime) -> tuple[Object, float | None]:
    """The status of a budget over these Pods, whose owners want `scale` of them; and when to look again, in seconds."""
    old = budget.get("status") or {}
    gone = _disrupted(old.get("disruptedPods") or {}, pods, now)
    healthy = sum(is_ready(pod) and pod["metadata"]["name"] not in gone for pod in pods)
    expected, desired = _limits(budget["spec"], len(pods), scale)
    allowed = max(0, healthy - desired) if expected else 0
    reason = "SufficientPods" if allowed else "InsufficientPods"
    condition = {
        "type": "DisruptionAllowed",
        "status": "True" if allowed else "False",
        "reason": reason,
        "message": "",
        "lastTransitionTime": timestamp(now),
        "observedGeneration": budget["metadata"].get("generation", 1),
    }
    status: Object = {
        "observedGeneration": budget["metadata"].get("generation", 1),
        "disruptionsAllowed": allowed,
        "currentHealthy": healthy,
        "desiredHealthy": desired,
        "expectedPods": expected,
        "conditions": with_condition(old.get("conditions") or (), condition),
    }
    if not gone:
        return status, None
    return status | {"disruptedPods": gone}, FORGET.total_seconds()


def _disrupted(known: Mapping[str, str], pods: list[Object], now: datetime) -> dict[str, str]:
    """The Pods that were evicted and are still there as if they were not."""
    there = {pod["metadata"]["name"] for pod in pods}
    return {name: at for name, at in known.items() if name in there and now - moment(at) < FORGET}


def _limits(spec: Object, pods: int, scale: int) -> tuple[int, int]:
    """How many Pods are expected, and how many of them have to be healthy."""
    if (most := spec.get("maxUnavailable")) is not None:
        return scale, max(0, scale - _part(most, scale))
    least = spec.get("minAvailable", 1)
    if isinstance(least, int):
        return pods, least
    return scale, _part(least, scale)


def _part(value: int | str, whole: int) -> int:
    """A number, or a percentage of the whole, rounded up."""
    return value if isinstance(value, int) else math.ceil(whole * int(value.removesuffix("%")) / 100)
