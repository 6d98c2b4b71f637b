"""The versions of a kind, as managedFields need them: each entry counts in the version in which its manager wrote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from sandlane.kube.patch.values import copy_json
from sandlane.kube.resource import Object
from sandlane.local.apiserver.resource_type import ResourceType
from sandlane.local.apiserver.schema import Schema
from sandlane.local.apiserver.status import StatusError


class Versions(Protocol):
    """What a comparison asks about versions."""

    def has(self, api_version: str) -> bool:
        """Whether there is such a version. Raises `StatusError` where its entries cannot just be dropped."""

    def schema(self, api_version: str) -> Schema | None:
        """The schema of a version that there is."""

    async def show(self, obj: Object, api_version: str) -> Object:
        """An object in a version that there is, without defaults. Raises `StatusError`."""


class OneVersion:
    """A kind of which only one version matters."""

    def __init__(self, schema: Schema | None) -> None:
        self._schema = schema

    def has(self, api_version: str) -> bool:
        """All names stand for the one version."""
        return True

    def schema(self, api_version: str) -> Schema | None:
        """That of the one version."""
        return self._schema

    async def show(self, obj: Object, api_version: str) -> Object:
        """As it is."""
        return obj


class ServedVersions:
    """The versions of a resource type, converted as its objects are."""

    def __init__(self, type_: ResourceType) -> None:
        self._types: Mapping[str, ResourceType] = type_.versions or {type_.resource.api_version: type_}
        self._custom = type_.custom

    def has(self, api_version: str) -> bool:
        """Entries of a version that a definition has no more are an error, as they are for kube-apiserver."""
        if api_version not in self._types and self._custom:
            raise StatusError(500, "", f"request to convert CR to an invalid group/version: {api_version}")
        return api_version in self._types

    def schema(self, api_version: str) -> Schema | None:
        """The schema of a version."""
        return self._types[api_version].schema

    async def show(self, obj: Object, api_version: str) -> Object:
        """An object in another version. Without a webhook nothing but the version's name changes."""
        source, target = self._types[obj["apiVersion"]], self._types[api_version]
        if source is target:
            return obj
        if not target.custom:
            kept = source.to_storage(copy_json(obj)) if source.to_storage else copy_json(obj)
            return target.from_storage(kept) if target.from_storage else kept
        if target.conversion is not None:
            return (await target.conversion.convert([obj], api_version))[0]
        return obj | {"apiVersion": api_version}
