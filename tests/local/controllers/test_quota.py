"""The quota controller on the API server itself."""

from __future__ import annotations

from typing import Any

from sandlane.kube.resource import CONFIG_MAPS, RESOURCE_QUOTAS
from support.workloads import deployment, workloads


async def test_status_follows_what_is_used() -> None:
    """A quota's status shows what its namespace uses, as it comes and goes, and limits that are taken out vanish."""
    hard = {"pods": "10", "count/configmaps": "9"}
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "q", "namespace": "rides"},
        "spec": {"hard": hard},
    }
    async with workloads(quota, deployment()) as on:

        async def used(**wanted: str) -> dict[str, Any] | None:
            status = (await on.client.get(RESOURCE_QUOTAS, "q", "rides")).get("status") or {}
            return status if status.get("used") == wanted else None

        async def with_two_pods() -> Any:
            return await used(pods="2", **{"count/configmaps": "1"})

        status = await on.until(with_two_pods, "two Pods and the authority are counted")
        assert status["hard"] == hard
        made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "rides"}}
        await on.client.create(CONFIG_MAPS, made)
        await on.until(lambda: used(pods="2", **{"count/configmaps": "2"}), "another ConfigMap is counted")
        await on.client.patch(RESOURCE_QUOTAS, "q", {"spec": {"hard": {"pods": None}}}, namespace="rides")
        await on.until(lambda: used(**{"count/configmaps": "2"}), "Pods are not counted any more")
