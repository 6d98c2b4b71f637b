"""The quota controller: keeps the status of each ResourceQuota, its limits and what is used of them."""

from __future__ import annotations

from collections.abc import Iterable

from sandlane.kube.cache import Change
from sandlane.kube.patch.merge_patch import make_merge_patch
from sandlane.kube.resource import RESOURCE_QUOTAS, Key, Object, Resource
from sandlane.kube.store import Record
from sandlane.kube.unstructured import Unstructured
from sandlane.local.apiserver.kinds.quota import quota_status, usage_names
from sandlane.local.controllers.access import Access
from sandlane.local.controllers.inventory import Inventory
from sandlane.runtime.controller import Controller
from sandlane.runtime.manager import Manager
from sandlane.runtime.result import Request, Result, TransientError


class QuotaController:
    """Counts what quotas limit."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory

    def setup_with_manager(self, manager: Manager) -> None:
        """Say who wakes us."""
        self._access = Access(manager)
        self._controller = Controller.managed_by(manager).for_(RESOURCE_QUOTAS, Unstructured).complete(self)
        self._inventory.add_listener(self._heard)

    def _heard(self, resource: Resource, change: Change[Record]) -> None:
        """Something that a quota of its namespace counts came, went or changed."""
        if resource == RESOURCE_QUOTAS or not resource.namespaced:
            return
        names = usage_names(resource)
        for quota in self._access.all(RESOURCE_QUOTAS, change.key.namespace):
            if names.intersection((quota.get("spec") or {}).get("hard") or ()):
                self._controller.enqueue(Key(change.key.namespace, quota["metadata"]["name"]))

    async def reconcile(self, request: Request) -> Result:
        """Write one quota's status, if it is not right."""
        quota = self._access.get(RESOURCE_QUOTAS, request)
        if quota is None or "deletionTimestamp" in quota["metadata"]:
            return Result.done()
        if not self._inventory.complete.is_set():
            raise TransientError("the kinds of this server are not known yet")
        resources = [kind.resource for kind in self._inventory.kinds if kind.resource.namespaced]
        by_name = {(each.group, each.plural): each for each in resources}

        listed: dict[tuple[str, str], list[Object]] = {}
        for key, resource in by_name.items():
            if usage_names(resource).intersection((quota.get("spec") or {}).get("hard") or ()):
                listed[key] = (await self._access.client.list(resource, request.namespace)).items

        def live(group: str, plural: str) -> Iterable[Object]:
            return listed.get((group, plural), ())

        status = quota_status(quota, live, resources)
        patch = make_merge_patch(quota.get("status") or {}, status)
        if patch:
            version = {"resourceVersion": quota["metadata"]["resourceVersion"]}
            await self._access.patch(
                RESOURCE_QUOTAS, quota, {"metadata": version, "status": patch}, subresource="status"
            )
        return Result.done()
