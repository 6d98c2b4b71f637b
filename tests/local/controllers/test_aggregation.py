"""ClusterRoles that gather the rules of others."""

from __future__ import annotations

from typing import Any

from sandlane.local.controllers.aggregation import CLUSTER_ROLES
from support.workloads import workloads

RULE = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}
OTHER = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]}


def role(name: str, rules: list[Any], **more: Any) -> dict[str, Any]:
    """A ClusterRole with the label `part` where it has rules."""
    metadata = {"name": name, "labels": {"part": "yes"} if rules else {}}
    return {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": metadata, "rules": rules, **more}  # fmt: skip


async def test_rules_follow_those_that_are_gathered() -> None:
    """Roles come, change and go; the one that gathers them has their rules, each once, in the order of their names."""
    whole = role("whole", [], aggregationRule={"clusterRoleSelectors": [{"matchLabels": {"part": "yes"}}]})
    async with workloads(role("b", [RULE]), whole) as on:

        async def has(*rules: Any) -> bool:
            return bool((await on.client.get(CLUSTER_ROLES, "whole"))["rules"] == list(rules))

        await on.until(lambda: has(RULE), "the rule of b")
        await on.client.create(CLUSTER_ROLES, role("a", [OTHER, RULE]))
        await on.until(lambda: has(OTHER, RULE), "the rules of a and b")
        await on.client.delete(CLUSTER_ROLES, "a")
        await on.until(lambda: has(RULE), "the rule of b again")
