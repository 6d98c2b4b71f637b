"""The controller of aggregated ClusterRoles: writes the rules of those that a role gathers into it."""

from __future__ import annotations

from collections.abc import Iterable

from sandlane.kube.resource import Key, Object, Resource
from sandlane.kube.unstructured import Unstructured
from sandlane.local.controllers.access import Access
from sandlane.local.controllers.objects import deleting, labels_of, selects
from sandlane.runtime.controller import Controller
from sandlane.runtime.manager import Manager
from sandlane.runtime.result import Request, Result

CLUSTER_ROLES = Resource("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False)


class AggregationController:
    """Keeps the rules of each ClusterRole that has an `aggregationRule`."""

    def setup_with_manager(self, manager: Manager) -> None:
        """Say who wakes us: any ClusterRole may be gathered by some."""
        self._access = Access(manager)
        (
            Controller.managed_by(manager)
            .for_(CLUSTER_ROLES, Unstructured)
            .watches(CLUSTER_ROLES, to_requests=self._gatherers)
            .complete(self)
        )

    def _gatherers(self, role: Unstructured) -> Iterable[Key]:
        for other in self._access.all(CLUSTER_ROLES, ""):
            if _selectors(other):
                yield Key("", other["metadata"]["name"])

    async def reconcile(self, request: Request) -> Result:
        """Write one role's rules, if they are not right."""
        role = self._access.get(CLUSTER_ROLES, request)
        if role is None or deleting(role) or not role.get("aggregationRule"):
            return Result.done()
        rules = gathered(role, self._access.all(CLUSTER_ROLES, ""))
        if rules != (role.get("rules") or []):
            version = {"resourceVersion": role["metadata"]["resourceVersion"]}
            await self._access.patch(CLUSTER_ROLES, role, {"metadata": version, "rules": rules})
        return Result.done()


def _selectors(role: Object) -> list[Object]:
    return (role.get("aggregationRule") or {}).get("clusterRoleSelectors") or []


def gathered(role: Object, roles: Iterable[Object]) -> list[Object]:
    """The rules of the roles that `role` gathers, in the order of their names, each once."""
    rules: list[Object] = []
    for other in sorted(roles, key=lambda each: str(each["metadata"]["name"])):
        if other["metadata"]["name"] == role["metadata"]["name"]:
            continue
        if any(selects(selector, labels_of(other)) for selector in _selectors(role)):
            rules += [rule for rule in other.get("rules") or () if rule not in rules]
    return rules
