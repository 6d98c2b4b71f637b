"""The namespace controller: empties a namespace that is being deleted, then lets it go, and says what still holds it.

Pods go first, so that none of them outlives what protects it (KEP-5080); everything else follows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from sandlane.kube.cache import Change
from sandlane.kube.clock import Clock
from sandlane.kube.errors import ApiError, MethodNotAllowed, NotFound
from sandlane.kube.resource import NAMESPACES, PODS, Key, Object, Resource
from sandlane.kube.store import Record
from sandlane.kube.transport import Request as HttpRequest
from sandlane.kube.unstructured import Unstructured
from sandlane.local.controllers.access import Access
from sandlane.local.controllers.inventory import Head, Inventory, Kind
from sandlane.local.controllers.objects import timestamp, with_condition
from sandlane.runtime.controller import Controller
from sandlane.runtime.manager import Manager
from sandlane.runtime.result import Request, Result, TransientError

FINALIZER = "kubernetes"
LOOK_AGAIN = 2.0
_REASONS = {
    "NamespaceDeletionDiscoveryFailure": ("ResourcesDiscovered", "All resources successfully discovered"),
    "NamespaceDeletionGroupVersionParsingFailure": ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
    "NamespaceDeletionContentFailure": (
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
    "NamespaceContentRemaining": ("ContentRemoved", "All content successfully removed"),
    "NamespaceFinalizersRemaining": ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
}


class _Remaining(msgspec.Struct):
    """What a namespace still holds, after everything was asked to go."""

    counts: Counter[str]
    finalizers: Counter[str]
    failures: list[str]


class NamespaceController:
    """Empties namespaces."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory

    def setup_with_manager(self, manager: Manager) -> None:
        """Say who wakes us."""
        self._access = Access(manager)
        self._clock: Clock = manager.clock
        self._controller = Controller.managed_by(manager).for_(NAMESPACES, Unstructured).complete(self)
        self._inventory.add_listener(self._heard)

    def _heard(self, resource: Resource, change: Change[Record]) -> None:
        """Something left a namespace that is being deleted."""
        if change.new is None and resource.namespaced:
            namespace = self._access.store(NAMESPACES).get(Key("", change.key.namespace))
            if namespace is not None and namespace.metadata.deleting:
                self._controller.enqueue(namespace.metadata.key)

    async def reconcile(self, request: Request) -> Result:
        """Empty one namespace, if it is being deleted."""
        namespace = self._access.get(NAMESPACES, request)
        if namespace is None or "deletionTimestamp" not in namespace["metadata"]:
            return Result.done()
        if FINALIZER not in ((namespace.get("spec") or {}).get("finalizers") or ()):
            return Result.done()
        if not self._inventory.complete.is_set():
            raise TransientError("the kinds of this server are not known yet")
        remaining = await self._empty(request.name)
        if remaining.counts or remaining.failures:
            await self._report(namespace, remaining)
            return Result.requeue_after(LOOK_AGAIN)
        await self._finalize(request.name)
        return Result.done()

    async def _empty(self, name: str) -> _Remaining:
        remaining = _Remaining(Counter(), Counter(), [])
        kinds = [k for k in self._inventory.kinds if k.resource.namespaced and {"list", "delete"} <= k.verbs]
        for group in ([k for k in kinds if k.resource == PODS], [k for k in kinds if k.resource != PODS]):
            for kind in group:
                try:
                    await self._delete_all(kind, name, remaining)
                except (NotFound, MethodNotAllowed):
                    continue  # the kind has just gone
                except ApiError as error:
                    remaining.failures.append(f"{kind.resource.plural}: {error.message}")
            if remaining.counts:
                break
        return remaining

    async def _delete_all(self, kind: Kind, namespace: str, remaining: _Remaining) -> None:
        resource = kind.resource
        if not await self._list(resource, namespace):
            return
        if "deletecollection" in kind.verbs:
            path = resource.path(namespace)
            await self._access.client.request(HttpRequest("DELETE", path, (("propagationPolicy", "Background"),)))
        else:
            for head in await self._list(resource, namespace):
                await self._access.client.delete(resource, head.metadata.name, namespace, propagation="Background")
        for head in await self._list(resource, namespace):
            remaining.counts[f"{resource.plural}.{resource.group}".rstrip(".")] += 1
            remaining.finalizers.update(head.metadata.finalizers)

    async def _list(self, resource: Resource, namespace: str) -> list[Head]:
        pages = self._access.client.pages(resource, namespace, limit=0)
        return [msgspec.json.decode(item, type=Head) async for page in pages for item in page.items]

    async def _report(self, namespace: Object, remaining: _Remaining) -> None:
        now = timestamp(self._clock.now())
        bad: dict[str, tuple[str, str]] = {}
        if remaining.failures:
            bad["NamespaceDeletionContentFailure"] = ("ContentDeletionFailed", "; ".join(sorted(remaining.failures)))
        if remaining.counts:
            text = ", ".join(f"{kind} has {n} resource instances" for kind, n in sorted(remaining.counts.items()))
            bad["NamespaceContentRemaining"] = ("SomeResourcesRemain", f"Some resources are remaining: {text}")
        if remaining.finalizers:
            text = ", ".join(f"{name} in {n} resource instances" for name, n in sorted(remaining.finalizers.items()))
            bad["NamespaceFinalizersRemaining"] = (
                "SomeFinalizersRemain",
                f"Some content in the namespace has finalizers remaining: {text}",
            )
        conditions: Iterable[Object] = (namespace.get("status") or {}).get("conditions") or ()
        for type_, good in _REASONS.items():
            reason, message = bad.get(type_, good)
            new = {
                "type": type_,
                "status": "True" if type_ in bad else "False",
                "lastTransitionTime": now,
                "reason": reason,
                "message": message,
            }
            conditions = with_condition(conditions, new)
        status = {**(namespace.get("status") or {}), "phase": "Terminating", "conditions": list(conditions)}
        await self._access.write_status(NAMESPACES, namespace, status)

    async def _finalize(self, name: str) -> None:
        try:
            live = await self._access.client.get(NAMESPACES, name)
        except NotFound:
            return
        finalizers = [f for f in (live.get("spec") or {}).get("finalizers") or () if f != FINALIZER]
        live["spec"] = {**(live.get("spec") or {}), "finalizers": finalizers}
        try:
            await self._access.client.replace(NAMESPACES, live, subresource="finalize")
        except NotFound:
            return
