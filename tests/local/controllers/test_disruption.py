"""PodDisruptionBudgets: what they allow, and evictions that ask them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from sandlane.kube.errors import ApiError
from sandlane.kube.resource import POD_DISRUPTION_BUDGETS, PODS
from sandlane.kube.transport import Request
from sandlane.local.controllers.disruption import make_status
from support.workloads import Workloads, workloads

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def budget(**spec: Any) -> dict[str, Any]:
    """A budget for the app `app`."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "b", "namespace": "rides", "generation": 1},
        "spec": {"selector": {"matchLabels": {"app": "app"}}, **spec},
    }


def pods(ready: int, waiting: int = 0) -> list[dict[str, Any]]:
    """Pods that are ready, and some that are not."""
    return [
        {"metadata": {"name": f"p{n}"}, "status": {"conditions": [{"type": "Ready", "status": str(n < ready)}]}}
        for n in range(ready + waiting)
    ]


@pytest.mark.parametrize(
    ("spec", "ready", "waiting", "allowed", "desired"),
    [
        ({"minAvailable": 2}, 3, 0, 1, 2),
        ({"minAvailable": 2}, 1, 2, 0, 2),
        ({"minAvailable": "50%"}, 3, 0, 1, 2),
        ({"maxUnavailable": 1}, 3, 0, 1, 2),
        ({"maxUnavailable": 1}, 2, 1, 0, 2),
        ({"maxUnavailable": "100%"}, 3, 0, 3, 0),
        ({}, 2, 0, 1, 1),
    ],
)
def test_what_a_budget_allows(spec: Any, ready: int, waiting: int, allowed: int, desired: int) -> None:
    """Healthy Pods beyond those that are needed may go."""
    status, again = make_status(budget(**spec), pods(ready, waiting), ready + waiting, NOW)
    assert (status["disruptionsAllowed"], status["desiredHealthy"], again) == (allowed, desired, None)
    assert status["conditions"][0]["reason"] == ("SufficientPods" if allowed else "InsufficientPods")


def test_evicted_pods_count_as_gone_for_a_while() -> None:
    """A Pod whose eviction was allowed is not healthy any more, until it has not gone for two minutes."""
    old = budget(minAvailable=1)
    old["status"] = {"disruptedPods": {"p0": "2026-01-01T11:59:00Z", "p1": "2026-01-01T11:00:00Z", "x": "2026-01-01T12:00:00Z"}}  # fmt: skip
    status, again = make_status(old, pods(3), 3, NOW)
    assert (status["disruptionsAllowed"], status["disruptedPods"], again) == (1, {"p0": "2026-01-01T11:59:00Z"}, 120.0)


def pod(name: str) -> dict[str, Any]:
    """A Pod of the app `app` that nobody else keeps."""
    metadata = {"name": name, "namespace": "rides", "labels": {"app": "app"}}
    spec = {"containers": [{"name": "c", "image": "app:1"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


async def evict(on: Workloads, name: str, **options: Any) -> None:
    """Ask for an eviction."""
    metadata = {"name": name, "namespace": "rides"}
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata, **options}
    path = f"/api/v1/namespaces/rides/pods/{name}/eviction"
    headers = {"content-type": "application/json"}
    await on.client.request(Request("POST", path, (), headers, msgspec.json.encode(body)))


async def test_evictions_ask_the_budget() -> None:
    """As many Pods go as the budget allows; the next eviction is told to try again, and a dry run takes nothing."""
    async with workloads(pod("one"), pod("two"), budget(minAvailable=1)) as on:

        async def allows(count: int, of: int) -> bool:
            status = (await on.client.get(POD_DISRUPTION_BUDGETS, "b", "rides")).get("status") or {}
            return (status.get("disruptionsAllowed"), status.get("expectedPods")) == (count, of)

        await on.until(lambda: allows(1, 2), "both Pods are ready")
        await evict(on, "one", deleteOptions={"dryRun": ["All"]})
        assert await allows(1, 2)
        await evict(on, "one")
        with pytest.raises(ApiError, match="disruption budget") as refused:
            await evict(on, "two")
        assert (refused.value.status, refused.value.reason) == (429, "TooManyRequests")
        await on.client.create(PODS, pod("three"))
        await on.until(lambda: allows(1, 2), "another Pod took the place")
        with pytest.raises(ApiError, match="does not match name in Eviction"):
            await evict(on, "two", metadata={"name": "other"})
        await evict(on, "two")
