"""What the write pipeline asks of a built-in kind, from the rules in its row of the table."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Protocol, TypeAlias

import msgspec

from sandlane.kube.patch.values import copy_json, equal_json
from sandlane.kube.resource import Object
from sandlane.local.apiserver.kinds.field_errors import Faults, FieldError
from sandlane.local.apiserver.kinds.names import NameRule, check_metadata, subdomain
from sandlane.local.apiserver.kinds.services import Addresses
from sandlane.local.apiserver.wire.conform import conform

Default: TypeAlias = Callable[[Object], None]
Check: TypeAlias = Callable[[Faults, Object], None]
CheckUpdate: TypeAlias = Callable[[Faults, Object, Object], None]


class Context(Protocol):
    """What a kind may ask of the server while it prepares an object."""

    @property
    def addresses(self) -> Addresses:
        """Who gives out cluster addresses and node ports."""


def _nothing(*_: Any) -> None:
    """No rule."""


class Rules(msgspec.Struct, frozen=True):
    """What one kind does beyond the common rules. `generation`: fields whose change raises metadata.generation.
    `unconditional`: whether a PUT need not say which version it replaces.
    """

    default: Default = _nothing
    prepare_create: Default = _nothing
    prepare_update: Callable[[Object, Object], None] = _nothing
    allocate: Callable[[Object, Object | None, Addresses], None] | None = None
    check: Check = _nothing
    check_new: Check = _nothing
    check_update: CheckUpdate = _nothing
    warn: Check = _nothing
    name: NameRule = subdomain
    generation: tuple[str, ...] = ()
    status: bool = False
    resets_status: bool = True
    create_on_update: bool = False
    unconditional: bool = True


class BuiltinStrategy:
    """Defaults, preparation and validation of one built-in kind. Holds no state."""

    def __init__(self, definition: str, api_version: str, kind: str, rules: Rules) -> None:
        """`definition` names the type whose fields the kind has."""
        self.definition = definition
        self.api_version = api_version
        self.kind = kind
        self.rules = rules

    @property
    def has_generation(self) -> bool:
        """Whether the server keeps metadata.generation of this kind."""
        return bool(self.rules.generation)

    @property
    def allows_create_on_update(self) -> bool:
        """Whether a PUT of a name that does not exist creates it."""
        return self.rules.create_on_update

    @property
    def needs_version(self) -> bool:
        """Whether a PUT must say which version it replaces."""
        return not self.rules.unconditional

    @property
    def blank(self) -> Object:
        """An object of the kind that says nothing; not to be changed."""
        return _blank(self.definition)

    def prune(self, obj: Object) -> list[str]:
        """Bring `obj` into the form in which it is kept; the paths of the fields that were dropped as unknown.

        Raises `wire.conform.DecodeError` when a field has a value of the wrong type.
        """
        result, unknown = conform(obj, self.definition)
        obj.clear()
        obj.update(result)
        obj["kind"], obj["apiVersion"] = self.kind, self.api_version
        return unknown

    def default(self, obj: Object) -> None:
        """Fill in defaults, in place."""
        self.rules.default(obj)

    def prepare_create(self, obj: Object, context: Context) -> None:
        """What the server decides about a new object: generation, status, addresses. Raises services.AddressError."""
        if self.rules.generation:
            obj["metadata"]["generation"] = 1
        if self.rules.status and self.rules.resets_status:
            obj["status"] = copy_json(self.blank.get("status") or {})
        self.rules.prepare_create(obj)

    def allocate(self, obj: Object, old: Object | None, context: Context) -> None:
        """Give a valid object the addresses that it needs. Raises services.AddressError."""
        if self.rules.allocate is not None:
            self.rules.allocate(obj, old, context.addresses)

    def prepare_update(self, new: Object, old: Object, context: Context) -> None:
        """What an update may not touch (status) comes from `old`; the generation rises when the spec changes."""
        if self.rules.status:
            if "status" in old:
                new["status"] = old["status"]
            else:
                new.pop("status", None)
        self.rules.prepare_update(new, old)
        metadata, before = new["metadata"], old["metadata"]
        if self.rules.generation:
            changed = any(not equal_json(_dig(new, field), _dig(old, field)) for field in self.rules.generation)
            metadata["generation"] = before.get("generation", 0) + (1 if changed else 0)
        elif "generation" in before:
            metadata["generation"] = before["generation"]
        else:
            metadata.pop("generation", None)

    def validate_create(self, obj: Object) -> list[FieldError]:
        """The faults of a new object, in the order of Kubernetes' validation."""
        faults = Faults()
        check_metadata(faults, obj, self.rules.name)
        self.rules.check(faults, obj)
        self.rules.check_new(faults, obj)
        return faults.errors

    def validate_update(self, new: Object, old: Object) -> list[FieldError]:
        """The faults of a changed object."""
        faults = Faults()
        check_metadata(faults, new, self.rules.name)
        self.rules.check(faults, new)
        self.rules.check_update(faults, new, old)
        return faults.errors

    def warnings(self, obj: Object) -> list[str]:
        """What the author should know although the object is fine."""
        faults = Faults()
        self.rules.warn(faults, obj)
        return faults.warnings


@cache
def _blank(definition: str) -> Object:
    return conform({}, definition)[0]


def _dig(obj: Object, path: str) -> Any:
    value: Any = obj
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value or None
