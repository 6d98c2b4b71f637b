"""One served resource of one version: what the server needs to know to read, write and show its objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from sandlane.kube.resource import Object, Resource
from sandlane.local.apiserver.kinds.field_errors import FieldError
from sandlane.local.apiserver.kinds.table import ALL_VERBS, Subresource
from sandlane.local.apiserver.schema import Schema

StorageKey = tuple[str, str]
"""Group and plural: where a resource's objects lie, whatever the version."""


class Strategy(Protocol):
    """What a kind decides in the write pipeline; built-in kinds and custom resources each have one."""

    @property
    def has_generation(self) -> bool:
        """Whether the server keeps metadata.generation."""

    @property
    def allows_create_on_update(self) -> bool:
        """Whether a PUT of a name that does not exist creates it."""

    @property
    def needs_version(self) -> bool:
        """Whether a PUT must say which version it replaces."""

    @property
    def blank(self) -> Object:
        """An object of the kind that says nothing: what is always there."""

    def prune(self, obj: Object) -> list[str]:
        """Bring `obj` into stored form; the paths of unknown fields that were dropped."""

    def default(self, obj: Object) -> None:
        """Fill in defaults."""

    def prepare_create(self, obj: Object, context: Any) -> None:
        """What the server decides about a new object."""

    def prepare_update(self, new: Object, old: Object, context: Any) -> None:
        """What an update may not touch."""

    def allocate(self, obj: Object, old: Object | None, context: Any) -> None:
        """Give a valid object what the server hands out."""

    def validate_create(self, obj: Object) -> list[FieldError]:
        """Faults of a new object."""

    def validate_update(self, new: Object, old: Object) -> list[FieldError]:
        """Faults of a changed object."""

    def warnings(self, obj: Object) -> list[str]:
        """What the author should know."""


class Conversion(Protocol):
    """Brings objects from one version into another, by asking somebody."""

    async def convert(self, objects: list[Object], api_version: str) -> list[Object]:
        """The objects in another version. Raises `StatusError`."""


@dataclass(frozen=True)
class Column:
    """A column of a Table: `read` gives the cell of an object."""

    name: str
    type: str = "string"
    format: str = ""
    description: str = ""
    priority: int = 0
    read: Callable[[Object], Any] = lambda obj: None


@dataclass(frozen=True)
class ResourceType:
    """A resource as it is served. `storage` and the converters are set where objects are kept in another form."""

    resource: Resource
    strategy: Strategy
    schema: Schema | None = None
    singular: str = ""
    list_kind: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS
    subresources: tuple[Subresource, ...] = ()
    columns: tuple[Column, ...] = ()
    storage: StorageKey | None = None
    storage_version: str = ""
    from_storage: Callable[[Object], Object] | None = None
    to_storage: Callable[[Object], Object] | None = None
    conversion: Conversion | None = None
    selectable_fields: dict[str, Callable[[Object], str]] = field(default_factory=dict)
    scale_paths: tuple[str, str, str] | None = None
    custom: bool = False
    deprecated: str = ""
    """What everybody who speaks of it is warned of."""
    versions: Mapping[str, ResourceType] = field(default_factory=dict, repr=False, compare=False)
    """All versions of the kind, by apiVersion, also those that are not served; empty where there is one."""

    @property
    def storage_key(self) -> StorageKey:
        """Where its objects lie."""
        return self.storage or (self.resource.group, self.resource.plural)

    @property
    def is_stored(self) -> bool:
        """Whether there are objects at all (reviews are only answered)."""
        return "get" in self.verbs

    def subresource(self, name: str) -> Subresource | None:
        """One of its subresources."""
        return next((sub for sub in self.subresources if sub.name == name), None)
