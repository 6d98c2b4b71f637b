"""Makes the cluster hold an object: by server-side apply, and only when something would change.

What was last seen to be right is remembered per object, so that an unchanged object costs no request at all. Whatever is
not remembered (after a restart, or after somebody changed the object) is read live with its `managedFields`, which tell
what we applied and what others added. Objects that somebody else controls are never touched.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum
from typing import Any

import msgspec
import structlog

from sandlane.kube.cache import Cache
from sandlane.kube.client import Client, PatchType
from sandlane.kube.errors import Conflict, KubeError, NotFound
from sandlane.kube.managed_fields import foreign_paths, would_change
from sandlane.kube.metadata import ObjectMeta
from sandlane.kube.resource import Key, Object, Resource, key_of

log = structlog.get_logger(__name__)

REMEMBERED = 50_000


class NotOwned(KubeError):
    """An object of the name that is wanted is controlled by somebody else (or by nobody)."""

    reason = "NotOwned"

    def __init__(self, resource: Resource, key: Key, holder: str) -> None:
        super().__init__(
            f"{resource.kind} {key} exists and is controlled by {holder or 'nobody'}; delete or rename it, or choose "
            f"another name"
        )
        self.resource = resource
        self.key = key
        self.holder = holder


class Action(Enum):
    """What had to be done. `WAITING`: the object is being deleted; it is made again once it is gone."""

    UNCHANGED = "unchanged"
    CREATED = "created"
    UPDATED = "updated"
    CLEANED = "cleaned"
    WAITING = "waiting"


class Applied(msgspec.Struct, frozen=True):
    """The outcome. `object` is what the server answered, None where nothing had to be asked."""

    action: Action
    object: Object | None = None


class Applier:
    """Applies objects as one field manager and remembers what is right already."""

    def __init__(self, client: Client, cache: Cache, *, field_manager: str = "sandlane") -> None:
        self._client = client
        self._cache = cache
        self._manager = field_manager
        self._right: OrderedDict[tuple[Resource, Key], tuple[bytes, Any]] = OrderedDict()

    async def ensure(
        self, resource: Resource, desired: Object, *, owner: ObjectMeta | None = None, resource_version: str = ""
    ) -> Applied:
        """Make the cluster hold `desired`; fields that strangers added are removed.

        With an `owner`, an object that it does not control is left alone: raises `NotOwned`; so is, without one, an
        object that somebody controls, or that we have never applied. With a
        `resource_version`, a write happens only if the object still has it: raises `Conflict`.
        """
        key = key_of(desired)
        content = msgspec.json.encode(desired, order="sorted")
        known = self._cache.known(resource, key)
        right = self._right.get((resource, key))
        if known is not None and right is not None and right == (content, _fingerprint(known)):
            return Applied(Action.UNCHANGED)
        live = await self._live(resource, key)
        if live is None:
            made = await self._client.apply(resource, desired, field_manager=self._manager)
            self._check(resource, key, made, owner)
            return self._done(resource, key, content, Action.CREATED, made)
        self._check(resource, key, live, owner)
        if live["metadata"].get("deletionTimestamp"):
            return Applied(Action.WAITING, live)
        if resource_version and live["metadata"]["resourceVersion"] != resource_version:
            raise Conflict(409, "Conflict", f"{resource.kind} {key} has changed since {resource_version}", {})
        action = Action.UNCHANGED
        if would_change(desired, live, self._manager):
            action = Action.UPDATED
            # Of this very state: what a former leader has under way is refused once the next one has written.
            fence = {name: live["metadata"][name] for name in ("uid", "resourceVersion")}
            body = {**desired, "metadata": desired["metadata"] | fence}
            live = await self._client.apply(resource, body, field_manager=self._manager)
        if foreign := foreign_paths(desired, live, self._manager):
            action = Action.CLEANED if action is Action.UNCHANGED else action
            live = await self._strip(resource, key, live, foreign)
        return self._done(resource, key, content, action, live)

    async def remove(
        self, resource: Resource, key: Key, *, owner: ObjectMeta | None = None, propagation: str = "Background"
    ) -> bool:
        """Delete an object that `owner` controls, if it is there and not on its way out. Says whether it is gone.

        Raises `NotOwned`, and `Conflict` when the name belongs to another object meanwhile.
        """
        live = self._cache.known(resource, key)
        if live is None:
            return True
        if owner is not None and (live.controller is None or live.controller.uid != owner.uid):
            raise NotOwned(resource, key, live.controller.name if live.controller else "")
        self._right.pop((resource, key), None)
        if live.deleting:
            return False
        try:
            await self._client.delete(resource, key.name, key.namespace, uid=live.uid, propagation=propagation)
        except NotFound:
            self._cache.observe_deleted(resource, key)
            return True
        if live.finalizers or propagation == "Foreground":
            return False
        self._cache.observe_deleted(resource, key)
        return True

    async def _live(self, resource: Resource, key: Key) -> Object | None:
        try:
            return await self._client.get(resource, key.name, key.namespace or None)
        except NotFound:
            return None

    def _check(self, resource: Resource, key: Key, live: Object, owner: ObjectMeta | None) -> None:
        references = live["metadata"].get("ownerReferences") or ()
        holder = next((reference for reference in references if reference.get("controller")), None)
        if owner is None:
            fields = live["metadata"].get("managedFields") or ()
            right = holder is None and any(
                entry.get("manager") == self._manager and entry.get("operation") == "Apply" for entry in fields
            )
        else:
            right = holder is not None and holder["uid"] == owner.uid
        if not right:
            raise NotOwned(resource, key, f"{holder['kind']} {holder['name']}" if holder else "")

    async def _strip(self, resource: Resource, key: Key, live: Object, foreign: list[str]) -> Object:
        """Remove what strangers added, if the object has not changed since it was read."""
        log.info("foreign_fields_removed", resource=resource.plural, key=str(key), fields=foreign)
        version = live["metadata"]["resourceVersion"]
        patch: list[Object] = [{"op": "replace", "path": "/metadata/resourceVersion", "value": version}]
        patch += [{"op": "remove", "path": path} for path in foreign]
        return await self._client.patch(
            resource,
            key.name,
            patch,
            namespace=key.namespace or None,
            patch_type=PatchType.JSON,
            field_manager=self._manager,  # it then owns the defaults that come back
        )

    def _done(self, resource: Resource, key: Key, content: bytes, action: Action, live: Object) -> Applied:
        if action is not Action.UNCHANGED:
            self._cache.observe(resource, live)
        metadata = msgspec.convert(
            {k: v for k, v in live["metadata"].items() if k != "managedFields"}, ObjectMeta, strict=False
        )
        self._right[(resource, key)] = (content, _fingerprint(metadata))
        self._right.move_to_end((resource, key))
        if len(self._right) > REMEMBERED:
            self._right.popitem(last=False)
        return Applied(action, live)


def _fingerprint(metadata: ObjectMeta) -> tuple[Any, ...]:
    """Changes whenever somebody changes what we care for; not with a status, where the kind counts generations."""
    version = metadata.generation or metadata.resource_version
    return (metadata.uid, version, metadata.deleting, metadata.labels, metadata.annotations, metadata.owner_references)
