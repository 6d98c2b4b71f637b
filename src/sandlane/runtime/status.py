"""The one write that replaces a whole status."""

from __future__ import annotations

from typing import Any

import msgspec

from sandlane.kube.client import Client, PatchType
from sandlane.kube.metadata import ObjectMeta
from sandlane.kube.resource import Object, Resource


async def write_status(client: Client, resource: Resource, metadata: ObjectMeta, status: msgspec.Struct) -> Object:
    """Replace the whole status, unless the object has changed meanwhile. Raises `Conflict`, `NotFound`."""
    patch: list[Any] = [
        {"op": "test", "path": "/metadata/uid", "value": metadata.uid},
        {"op": "replace", "path": "/metadata/resourceVersion", "value": metadata.resource_version},
        {"op": "add", "path": "/status", "value": msgspec.to_builtins(status)},
    ]
    namespace = metadata.namespace or None
    return await client.patch(
        resource, metadata.name, patch, namespace=namespace, patch_type=PatchType.JSON, subresource="status"
    )
