"""Which resources are served: the built-in table, and custom resources as they come and go."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

from sandlane.kube.resource import Resource
from sandlane.local.apiserver.kinds.table import Kind, builtin_kinds
from sandlane.local.apiserver.resource_type import ResourceType, StorageKey
from sandlane.local.apiserver.tables import builtin_columns

Listener = Callable[[], None]


class Registry:
    """Resource types by group, version and plural; versions of a group in the order of preference."""

    def __init__(self) -> None:
        self._types: dict[tuple[str, str, str], ResourceType] = {}
        self._listeners: list[Listener] = []
        self.generation = 0
        versions: dict[StorageKey, dict[str, ResourceType]] = {}
        for kind in builtin_kinds():
            type_ = builtin_type(kind)
            others = versions.setdefault(type_.storage_key, {})
            others[type_.resource.api_version] = self._types[_key(kind.resource)] = replace(type_, versions=others)

    def get(self, group: str, version: str, plural: str) -> ResourceType | None:
        """A resource type."""
        return self._types.get((group, version, plural))

    def by_kind(self, api_version: str, kind: str) -> ResourceType | None:
        """The resource type of a kind."""
        return next(
            (
                found
                for found in self._types.values()
                if found.resource.kind == kind and found.resource.api_version == api_version and "get" in found.verbs
            ),
            None,
        )

    def by_storage(self, storage: StorageKey) -> ResourceType | None:
        """Any resource type whose objects lie there."""
        return next((found for found in self._types.values() if found.storage_key == storage), None)

    def __iter__(self) -> Iterator[ResourceType]:
        return iter(list(self._types.values()))

    def groups(self) -> dict[str, list[str]]:
        """Versions of each group, preferred first."""
        groups: dict[str, list[str]] = {}
        for group, version, _ in self._types:
            versions = groups.setdefault(group, [])
            if version not in versions:
                versions.append(version)
        return {group: sorted(versions, key=version_order) for group, versions in groups.items()}

    def in_version(self, group: str, version: str) -> list[ResourceType]:
        """Resource types of one version of a group."""
        return [found for (g, v, _), found in self._types.items() if (g, v) == (group, version)]

    def register(self, *types: ResourceType) -> None:
        """Serve resource types, in place of those of the same names."""
        for each in types:
            self._types[_key(each.resource)] = each
        self._changed()

    def unregister(self, *resources: Resource) -> None:
        """Serve some resources no more."""
        for resource in resources:
            self._types.pop(_key(resource), None)
        self._changed()

    def on_change(self, listener: Listener) -> None:
        """Call `listener` when what is served changes."""
        self._listeners.append(listener)

    def _changed(self) -> None:
        self.generation += 1
        for listener in self._listeners:
            listener()


def builtin_type(kind: Kind) -> ResourceType:
    """A row of the table of built-in kinds as a resource type."""
    resource = kind.resource
    stored = "get" in kind.verbs
    return ResourceType(
        resource=resource,
        strategy=kind.strategy,
        schema=kind.schema,
        singular=kind.singular or resource.kind.lower(),
        list_kind=f"{resource.kind}List" if stored else "",
        short_names=kind.short_names,
        categories=kind.categories,
        verbs=kind.verbs,
        subresources=kind.subresources,
        columns=builtin_columns(resource),
        storage=(kind.storage.group, kind.storage.plural) if kind.storage else None,
        from_storage=kind.from_storage,
        to_storage=kind.to_storage,
        selectable_fields={},
    )


def version_order(version: str) -> tuple[int, int, int, str]:
    """Kubernetes' order of versions: v2, v1, v2beta1, v1beta1, v1alpha1, then others by name."""
    match = re.fullmatch(r"v(\d+)(?:(alpha|beta)(\d+))?", version)
    if match is None:
        return (3, 0, 0, version)
    stage = {None: 0, "beta": 1, "alpha": 2}[match[2]]
    return (stage, -int(match[1]), -int(match[3] or 0), "")


def _key(resource: Resource) -> tuple[str, str, str]:
    return resource.group, resource.version, resource.plural
