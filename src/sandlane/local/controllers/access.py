"""What the built-in controllers share at run time: objects from the cache, writes that the cache learns of at once."""

from __future__ import annotations

from typing import Any

from sandlane.kube.cache import Cache
from sandlane.kube.client import Client, PatchType
from sandlane.kube.errors import ApiError, NotFound
from sandlane.kube.resource import Key, Object, Resource
from sandlane.kube.store import Store
from sandlane.kube.unstructured import Unstructured
from sandlane.runtime.manager import Manager

BY_OWNER = "controller-uid"


def terminating(error: ApiError) -> bool:
    """Whether an object was refused because its namespace is going: no reason to try again, or to say so."""
    causes = error.details.get("causes") or ()
    return any(cause.get("reason") == "NamespaceTerminating" for cause in causes) or (
        error.status == 403 and "is being terminated" in error.message
    )


class Access:
    """Reads from the shared cache and writes through it."""

    def __init__(self, manager: Manager) -> None:
        self.client: Client = manager.client
        self.cache: Cache = manager.cache

    def store(self, resource: Resource) -> Store[Unstructured]:
        """The cached objects of a kind."""
        return self.cache.informer(resource).store

    def get(self, resource: Resource, key: Key) -> Object | None:
        """A cached object, afresh."""
        record = self.store(resource).get(key)
        return None if record is None else self._object(resource, record)

    def all(self, resource: Resource, namespace: str) -> list[Object]:
        """All cached objects of a namespace."""
        return [self._object(resource, record) for record in self.store(resource).list(namespace)]

    def candidates(self, resource: Resource, namespace: str, uid: str) -> list[Object]:
        """The objects of a namespace that a controller with this uid controls or might adopt (they have none)."""
        found = []
        for record in self.store(resource).list(namespace):
            owner = record.metadata.controller
            if owner is None or owner.uid == uid:
                found.append(self._object(resource, record))
        return found

    @staticmethod
    def _object(resource: Resource, record: Unstructured) -> Object:
        return {"apiVersion": resource.api_version, "kind": resource.kind} | record.object()

    async def create(self, resource: Resource, obj: Object) -> Object:
        """Create an object."""
        made = await self.client.create(resource, obj)
        self.cache.observe(resource, made)
        return made

    async def replace(self, resource: Resource, obj: Object) -> Object:
        """Replace an object; the server refuses it when the object has changed since."""
        made = await self.client.replace(resource, obj)
        self.cache.observe(resource, made)
        return made

    async def patch(self, resource: Resource, obj: Object, body: Any, *, subresource: str | None = None) -> Object:
        """Merge into an object, if it still is the one that was read (by uid)."""
        metadata = obj["metadata"]
        body = {**body, "metadata": {**(body.get("metadata") or {}), "uid": metadata["uid"]}}
        made = await self.client.patch(
            resource,
            metadata["name"],
            body,
            namespace=metadata.get("namespace"),
            patch_type=PatchType.MERGE,
            subresource=subresource,
        )
        self.cache.observe(resource, made)
        return made

    async def write_status(self, resource: Resource, obj: Object, status: Object) -> None:
        """Make `status` the object's status, if it differs and the object has not changed since it was read."""
        old = obj.get("status") or {}
        body = {key: value for key, value in status.items() if old.get(key) != value}
        body |= {key: None for key in old if key not in status}
        if body:
            version = {"resourceVersion": obj["metadata"]["resourceVersion"]}
            await self.patch(resource, obj, {"metadata": version, "status": body}, subresource="status")

    async def delete(self, resource: Resource, obj: Object, *, propagation: str = "Background") -> None:
        """Delete this very object; gone already is fine."""
        metadata = obj["metadata"]
        try:
            await self.client.delete(
                resource, metadata["name"], metadata.get("namespace"), uid=metadata["uid"], propagation=propagation
            )
        except NotFound:
            return
