"""CustomResourceDefinitions in the store, and what is served because of them."""

from __future__ import annotations

from typing import Any

import msgspec

from sandlane.kube.clock import Clock, timestamp
from sandlane.kube.resource import Key, Object, Resource
from sandlane.local.apiserver.crd.conversion import WebhookConversion
from sandlane.local.apiserver.crd.definition_rules import (
    check_definition,
    check_update,
    default_definition,
    unknown_formats,
)
from sandlane.local.apiserver.crd.definition_status import CLEANUP, accepted_status
from sandlane.local.apiserver.crd.served import resource_types
from sandlane.local.apiserver.kinds.field_errors import Faults, FieldError
from sandlane.local.apiserver.metadata import Randomness
from sandlane.local.apiserver.registry import Registry
from sandlane.local.apiserver.resource_type import StorageKey
from sandlane.local.apiserver.store.objects import Event, ObjectStore
from sandlane.local.apiserver.webhook_calls import Caller

STORAGE: StorageKey = ("apiextensions.k8s.io", "customresourcedefinitions")


class Definitions:
    """Keeps the registry in step with the definitions in the store."""

    def __init__(self, store: ObjectStore, registry: Registry, clock: Clock, caller: Caller, rng: Randomness) -> None:
        self._store = store
        self._registry = registry
        self._clock = clock
        self._caller = caller
        self._rng = rng
        self._served: dict[str, tuple[Resource, ...]] = {}
        self.terminating: dict[StorageKey, str] = {}
        """Definitions that wait for their objects to go."""
        self.unaccepted: set[str] = set()
        """Definitions that wait for names that others have."""
        store.on_write.append(self._written)
        for _, stored in store.list(STORAGE):
            self._serve(msgspec.json.decode(stored.data))

    def prepare(self, obj: Object) -> None:
        """The status of a new definition."""
        obj["status"] = accepted_status(obj, timestamp(self._clock.now()), self._taken(obj))

    def may_have_its_names(self, obj: Object) -> bool:
        """Whether a definition that waits for its names can be served now."""
        return obj["metadata"]["name"] in self.unaccepted and self._taken(obj) is None

    def accept(self, obj: Object) -> None:
        """The status of a definition whose names are free now."""
        obj["status"] = accepted_status(obj, timestamp(self._clock.now()))

    def follow(self, new: Object, old: Object) -> None:
        """Names and versions of a changed definition."""
        status = new.setdefault("status", {})
        status["acceptedNames"] = {key: value for key, value in new["spec"]["names"].items() if value}
        kept = list(status.get("storedVersions") or ())
        for version in new["spec"].get("versions") or ():
            if version.get("storage") and version["name"] not in kept:
                kept.append(version["name"])
        status["storedVersions"] = kept

    def _taken(self, obj: Object) -> tuple[str, str] | None:
        """Reason and message when another resource of the group has one of the names."""
        names, group = obj["spec"]["names"], obj["spec"]["group"]
        others = [other for other in self._registry if other.resource.group == group]
        others = [other for other in others if other.resource.plural != names["plural"]]
        used = {name for other in others for name in (*other.short_names, other.resource.plural, other.singular)}
        if names["plural"] in used:
            return "PluralConflict", f'"{names["plural"]}" is already in use'
        if names["kind"] in {other.resource.kind for other in others}:
            return "KindConflict", f'"{names["kind"]}" is already in use'
        for name in sorted(names.get("shortNames") or ()):
            if name in used:
                return "ShortNamesConflict", f'"{name}" is already in use'
        if names.get("singular") in used:
            return "SingularConflict", f'"{names["singular"]}" is already in use'
        if names.get("listKind") in {other.list_kind for other in others}:
            return "ListKindConflict", f'"{names["listKind"]}" is already in use'
        return None

    def _written(self, storage: StorageKey, event: Event) -> None:
        if storage != STORAGE:
            return
        if event.after is None:
            self._registry.unregister(*self._served.pop(event.key.name, ()))
            self.unaccepted.discard(event.key.name)
            for gone in [key for key, name in self.terminating.items() if name == event.key.name]:
                del self.terminating[gone]
        else:
            self._serve(msgspec.json.decode(event.after))

    def _serve(self, definition: Object) -> None:
        name = definition["metadata"]["name"]
        conditions = (definition.get("status") or {}).get("conditions") or ()
        established = any(c["type"] == "Established" and c["status"] == "True" for c in conditions)
        if established:
            self.unaccepted.discard(name)
        else:
            self.unaccepted.add(name)
        conversion = None
        if (definition["spec"].get("conversion") or {}).get("strategy") == "Webhook":
            conversion = WebhookConversion(definition, self._caller, self._rng)
        types = resource_types(definition, conversion) if established else []
        before = self._served.get(name, ())
        now = tuple(type_.resource for type_ in types)
        self._served[name] = now
        if definition["metadata"].get("deletionTimestamp"):
            spec = definition["spec"]
            self.terminating[spec["group"], spec["names"]["plural"]] = name
        gone = [resource for resource in before if resource not in now]
        if gone:
            self._registry.unregister(*gone)
        if types:
            self._registry.register(*types)

    def objects(self, definition: Object) -> list[Key]:
        """The objects of a definition."""
        spec = definition["spec"]
        return [key for key, _ in self._store.list((spec["group"], spec["names"]["plural"]))]


def _but_own_finalizer(errors: list[FieldError]) -> list[FieldError]:
    """The server's own finalizer has a name that clients could not give."""
    return [error for error in errors if not (error.field.startswith("metadata.finalizers") and error.value == CLEANUP)]


class DefinitionStrategy:
    """The write pipeline's rules for definitions: those of a built-in kind, and what the server adds."""

    has_generation = True
    allows_create_on_update = False
    needs_version = True

    def __init__(self, builtin: Any, definitions: Definitions) -> None:
        self._builtin = builtin
        self._definitions = definitions

    @property
    def blank(self) -> Object:
        """As a built-in kind."""
        blank: Object = self._builtin.blank
        return blank

    def prune(self, obj: Object) -> list[str]:
        """As a built-in kind."""
        return list(self._builtin.prune(obj))

    def default(self, obj: Object) -> None:
        """See `default_definition`."""
        default_definition(obj)

    def prepare_create(self, obj: Object, context: Any) -> None:
        """As a built-in kind, and the first status when the names are there."""
        self._builtin.prepare_create(obj, context)
        names = obj["spec"].get("names") or {}
        if names.get("plural") and names.get("kind") and obj["spec"].get("group"):
            self._definitions.prepare(obj)

    def prepare_update(self, new: Object, old: Object, context: Any) -> None:
        """As a built-in kind; accepted names and stored versions follow."""
        self._builtin.prepare_update(new, old, context)
        self._definitions.follow(new, old)

    def allocate(self, obj: Object, old: Object | None, context: Any) -> None:
        """Nothing to give out."""

    def validate_create(self, obj: Object) -> list[FieldError]:
        """Faults of a new definition."""
        faults = Faults()
        check_definition(faults, obj)
        return [*_but_own_finalizer(self._builtin.validate_create(obj)), *faults.errors]

    def validate_update(self, new: Object, old: Object) -> list[FieldError]:
        """Faults of a changed definition."""
        faults = Faults()
        check_definition(faults, new, updating=True)
        check_update(faults, new, old)
        return [*_but_own_finalizer(self._builtin.validate_update(new, old)), *faults.errors]

    def warnings(self, obj: Object) -> list[str]:
        """Formats that nobody checks."""
        return unknown_formats(obj)
