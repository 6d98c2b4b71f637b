"""Finalizers: put on before anything is made, taken off when everything is gone."""

from __future__ import annotations

from sandlane.kube.client import Client, PatchType
from sandlane.kube.metadata import ObjectMeta
from sandlane.kube.resource import Object, Resource


async def add_finalizer(client: Client, resource: Resource, metadata: ObjectMeta, name: str) -> Object | None:
    """Add a finalizer unless it is there; the new object, or None when nothing was sent. Raises `Conflict`."""
    if name in metadata.finalizers:
        return None
    return await _set(client, resource, metadata, [*metadata.finalizers, name])


async def remove_finalizer(client: Client, resource: Resource, metadata: ObjectMeta, name: str) -> Object | None:
    """Remove a finalizer unless it is gone. Raises `Conflict`, and `NotFound` when the object is gone."""
    if name not in metadata.finalizers:
        return None
    return await _set(client, resource, metadata, [other for other in metadata.finalizers if other != name])


async def _set(client: Client, resource: Resource, metadata: ObjectMeta, finalizers: list[str]) -> Object:
    body = {"metadata": {"uid": metadata.uid, "resourceVersion": metadata.resource_version, "finalizers": finalizers}}
    return await client.patch(
        resource, metadata.name, body, namespace=metadata.namespace or None, patch_type=PatchType.MERGE
    )
