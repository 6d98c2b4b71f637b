"""`pods/eviction`: a Pod is deleted if its PodDisruptionBudget allows it.

What a budget allows is in its status, which the disruption controller keeps; each eviction takes one out of it, so that many at once
do not take more than there is. https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sandlane.kube.clock import timestamp
from sandlane.kube.resource import POD_DISRUPTION_BUDGETS, Object
from sandlane.local.apiserver.deleter import delete_options
from sandlane.local.apiserver.kinds.names import selector_matches
from sandlane.local.apiserver.request_info import RequestInfo
from sandlane.local.apiserver.status import StatusError, bad_request, forbidden, internal
from sandlane.local.apiserver.writer import Write

if TYPE_CHECKING:
    from sandlane.local.apiserver.server import ApiServer

MOST_DISRUPTED = 2000
RETRY_SECONDS = 10
_STORAGE = (POD_DISRUPTION_BUDGETS.group, POD_DISRUPTION_BUDGETS.plural)


async def evict(server: ApiServer, write: Write, info: RequestInfo, body: Object, query: dict[str, str]) -> None:
    """Evict a Pod. Raises `StatusError`, 429 when a budget does not allow it now."""
    named = (body.get("metadata") or {}).get("name")
    if named and named != info.name:
        raise bad_request("name in URL does not match name in Eviction object")
    options = delete_options(body.get("deleteOptions"), query)
    write.dry_run = write.dry_run or "All" in (options.get("dryRun") or ())
    write.subresource = ""
    pod = await server.reader.get(write.type_, write.namespace, write.name)
    if not _is_no_loss(pod):
        await _ask_budget(server, write, pod)
    await server.deleter.delete(write, options)


def _is_no_loss(pod: Object) -> bool:
    """Whether a Pod does no work that could be disrupted."""
    phase = (pod.get("status") or {}).get("phase")
    return phase in ("Succeeded", "Failed", "Pending") or "deletionTimestamp" in pod["metadata"]


def _is_ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


async def _ask_budget(server: ApiServer, write: Write, pod: Object) -> None:
    labels = pod["metadata"].get("labels") or {}
    found = [msgspec.json.decode(stored.data) for _, stored in server.store.list(_STORAGE, write.namespace)]
    budgets = [each for each in found if selector_matches((each.get("spec") or {}).get("selector"), labels)]
    if len(budgets) > 1:
        raise internal(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
        )
    if not budgets:
        return
    budget = budgets[0]
    if not _is_ready(pod):
        status = budget.get("status") or {}
        healthy, wanted = status.get("currentHealthy", 0), status.get("desiredHealthy", 0)
        if budget["spec"].get("unhealthyPodEvictionPolicy") == "AlwaysAllow" or healthy >= wanted > 0:
            return
    type_ = server.registry.get("policy", "v1", "poddisruptionbudgets")
    assert type_ is not None
    name = budget["metadata"]["name"]

    async def taken(old: Object) -> Object:
        old["status"] = _take(server, old, write.name)
        old["metadata"].pop("resourceVersion", None)
        return old

    if write.dry_run:
        _take(server, budget, write.name)
    else:
        await server.writer.modify(Write(type_, write.namespace, name, "status", "update", "kube-apiserver"), taken)


def _take(server: ApiServer, budget: Object, pod: str) -> Object:
    """The status of a budget with one disruption less. Raises `StatusError` 429 and 403."""
    metadata, status = budget["metadata"], dict(budget.get("status") or {})
    name, allowed = metadata["name"], status.get("disruptionsAllowed", 0)
    if status.get("observedGeneration", 0) < metadata.get("generation", 0):
        raise _not_now(f"The disruption budget {name} is still being processed by the server.", RETRY_SECONDS)
    disrupted = dict(status.get("disruptedPods") or {})
    if allowed < 0:
        raise forbidden("policy", "poddisruptionbudgets", name, "pdb disruptions allowed is negative")
    if len(disrupted) >= MOST_DISRUPTED:
        raise forbidden("policy", "poddisruptionbudgets", name, "DisruptedPods map too big - too many evictions not confirmed by PDB controller")  # fmt: skip
    if allowed == 0:
        needed, healthy = status.get("desiredHealthy", 0), status.get("currentHealthy", 0)
        raise _not_now(f"The disruption budget {name} needs {needed} healthy pods and has {healthy} currently")
    now = timestamp(server.clock.now())
    status |= {"disruptionsAllowed": allowed - 1, "disruptedPods": {**disrupted, pod: now}}
    return status


def _not_now(why: str, seconds: int = 0) -> StatusError:
    details: Object = {"causes": [{"reason": "DisruptionBudget", "message": why}]}
    if seconds:
        details["retryAfterSeconds"] = seconds
    message = "Cannot evict pod as it would violate the pod's disruption budget."
    return StatusError(429, "TooManyRequests", message, details)
