"""The versions of a kind, as managedFields need them: each entry counts in the version in which its manager wrote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

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

    async def show(self, obj: Object, api_version: str, what: str = "object") -> Object:
        """An object in a version that there is, without defaults; `what` it is. Raises `StatusError`."""


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

    async def show(self, obj: Object, api_version: str, what: str = "object") -> Object:
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

    async def show(self, obj: Object, api_version: str, what: str = "object") -> Object:
        """An object in another version. Without a webhook nothing but the version's name changes: its fields must fit."""
        source, target = self._types[obj["apiVersion"]], self._types[api_version]
        if source is target:
            return obj
        if not target.custom:
            kept = source.to_storage(copy_json(obj)) if source.to_storage else copy_json(obj)
            return target.from_storage(kept) if target.from_storage else kept
        if target.conversion is not None:
            return (await target.conversion.convert([obj], api_version))[0]
        target.strategy.prune(pruned := copy_json(obj))
        if lost := _first_lost(obj, pruned):
            raise StatusError(500, "", f"failed to convert {what}: {lost}: field not declared in schema")
        return obj | {"apiVersion": api_version}


def _first_lost(obj: Any, pruned: Any, at: str = "") -> str:
    """The first field that was pruned."""
    if isinstance(obj, dict) and isinstance(pruned, dict):
        for name in sorted(obj):
            lost = _first_lost(obj[name], pruned[name], f"{at}.{name}") if name in pruned else f"{at}.{name}"
            if lost and name != "metadata":
                return lost
    elif isinstance(obj, list) and isinstance(pruned, list):
        return next(
            filter(None, (_first_lost(*pair, f"{at}[{i}]") for i, pair in enumerate(zip(obj, pruned, strict=False)))),
            "",
        )
    return ""
