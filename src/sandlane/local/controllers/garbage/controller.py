"""The garbage collector: hears of every object from the inventory, decides by the graph, deletes and unties.

Its queue's keys are uids. Nothing is deleted on hearsay: an owner that the graph has not seen is asked for, and deletes
carry the uid and resourceVersion that the decision was made from.
"""

from __future__ import annotations

import msgspec
import structlog

from sandlane.kube.cache import Change
from sandlane.kube.client import Client
from sandlane.kube.errors import NotFound, ServerError
from sandlane.kube.metadata import ObjectMeta, OwnerReference
from sandlane.kube.resource import Key, Object, Resource
from sandlane.kube.store import Record
from sandlane.local.controllers.garbage.graph import (
    ORPHAN,
    Action,
    Ask,
    Delete,
    DropOwners,
    Graph,
    Look,
    Node,
    Orphan,
    RemoveFinalizer,
)
from sandlane.local.controllers.inventory import Inventory
from sandlane.local.controllers.objects import without_owner
from sandlane.runtime.controller import Controller
from sandlane.runtime.manager import Manager
from sandlane.runtime.result import Request, Result

log = structlog.get_logger(__name__)

CANNOT_CONVERT = "conversion webhook for "
"""How the message of a list begins that fails for as long as somebody's webhook does."""

SOON_SECONDS = 0.1


class GarbageController:
    """Deletes what no living owner holds."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._graph = Graph()
        self._asked: set[str] = set()
        """Objects with an owner that was not in the graph: it may go before its kind is listed, and nobody would tell."""

    def setup_with_manager(self, manager: Manager) -> None:
        """Say who wakes us."""
        self._client: Client = manager.client
        self._controller = Controller.managed_by(manager).named("garbage").complete(self)
        self._inventory.add_listener(self._heard)
        self._inventory.add_kinds_listener(self._look_again)

    def _look_again(self) -> None:
        """Other kinds are known and listed."""
        asked, self._asked = self._asked, set()
        for uid in asked:
            self._controller.enqueue(Key("", uid))

    def _heard(self, resource: Resource, change: Change[Record]) -> None:
        touched: list[str] = []
        if change.old is not None and (change.new is None or change.new.metadata.uid != change.old.metadata.uid):
            touched += self._graph.remove(change.old.metadata.uid)
            self._asked.discard(change.old.metadata.uid)
        if change.new is not None:
            touched += self._graph.add(Node.of(resource, change.new.metadata))
        for uid in touched:
            self._controller.enqueue(Key("", uid))

    async def reconcile(self, request: Request) -> Result:
        """Decide about one object."""
        uid = request.name
        action = self._graph.decide(uid)
        node = self._graph.get(uid)
        if node is None:
            return Result.done()
        if isinstance(action, Ask):
            self._asked.add(uid)
            absent: set[str] = set()
            present: set[str] = set()
            for owner in action.owners:
                (present if await self._exists(node, owner) else absent).add(owner.uid)
            action = self._graph.decide(uid, absent, present)
        return await self._act(node, action)

    async def _exists(self, node: Node, owner: OwnerReference) -> bool:
        """Whether an owner exists. One of a kind that is not served, or out of reach, is left in peace."""
        resource = self._inventory.find(owner.api_version, owner.kind)
        if resource is None or (resource.namespaced and not node.key.namespace):
            return True
        try:
            found = await self._client.get(resource, owner.name, node.key.namespace if resource.namespaced else None)
        except NotFound:
            return False
        return bool(found["metadata"]["uid"] == owner.uid)

    async def _act(self, node: Node, action: Action) -> Result:
        match action:
            case Delete(propagation):
                try:
                    await self._client.delete(
                        node.resource,
                        node.key.name,
                        node.key.namespace or None,
                        uid=node.uid,
                        resource_version=node.version,
                        propagation=propagation.value,
                    )
                except NotFound:
                    return Result.done()
            case DropOwners(uids):
                for uid in uids:
                    await self._untie(node, uid)
            case Orphan(dependents):
                for seen in dependents:
                    await self._untie(seen, node.uid)
            case RemoveFinalizer(finalizer):
                listed = await self._listed_dependents(node)
                if finalizer == ORPHAN:
                    for dependent, obj in listed:
                        await self._patch(dependent, obj, {"ownerReferences": without_owner(obj, node.uid)})
                elif any(self._graph.get(each.uid) is None or each.blocks(node.uid) for each, _ in listed):
                    return Result.requeue_after(SOON_SECONDS)
                await self._remove_finalizer(node, finalizer)
            case Look(dependents):
                for uid in dependents:
                    self._controller.enqueue(Key("", uid))
            case _:
                pass
        return Result.done()

    async def _live(self, node: Node) -> Object | None:
        try:
            found = await self._client.get(node.resource, node.key.name, node.key.namespace or None)
        except NotFound:
            return None
        return found if found["metadata"]["uid"] == node.uid else None

    async def _listed_dependents(self, owner: Node) -> list[tuple[Node, Object]]:
        """The dependents that there are, also those that the watches have not told of yet."""
        found: list[tuple[Node, Object]] = []
        for resource in self._inventory.resources():
            if owner.key.namespace and not resource.namespaced:
                continue
            try:
                listed = await self._client.list(resource, owner.key.namespace or None)
            except (NotFound, ServerError) as error:
                if isinstance(error, ServerError) and not error.message.startswith(CANNOT_CONVERT):
                    raise  # tried again: who is missed here would become garbage
                log.warning("dependents_not_listed", resource=resource.plural, error=str(error))
                continue
            for obj in listed.items:
                if any(each["uid"] == owner.uid for each in obj["metadata"].get("ownerReferences") or ()):
                    found.append((Node.of(resource, msgspec.convert(obj["metadata"], ObjectMeta)), obj))
        return found

    async def _untie(self, node: Node, owner: str) -> None:
        live = await self._live(node)
        if live is not None and any(o["uid"] == owner for o in live["metadata"].get("ownerReferences") or ()):
            await self._patch(node, live, {"ownerReferences": without_owner(live, owner)})

    async def _remove_finalizer(self, node: Node, finalizer: str) -> None:
        live = await self._live(node)
        if live is not None and finalizer in live["metadata"].get("finalizers", ()):
            left = [name for name in live["metadata"]["finalizers"] if name != finalizer]
            await self._patch(node, live, {"finalizers": left})

    async def _patch(self, node: Node, live: Object, metadata: Object) -> None:
        body = {"metadata": {**metadata, "resourceVersion": live["metadata"]["resourceVersion"]}}
        await self._client.patch(node.resource, node.key.name, body, namespace=node.key.namespace or None)
