"""Writing: the pipeline of create, update, patch and apply, and what every write has in common.

Order: decode, fields, defaults, managedFields, mutating admission, preparation, validation, validating admission, addresses, store.
What admission and the server decide themselves nobody manages.
An update is tried again when somebody else wrote in between, unless the caller named a resourceVersion.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import structlog

from sandlane.kube.clock import Clock, timestamp
from sandlane.kube.patch.values import copy_json
from sandlane.kube.resource import Key, Object
from sandlane.local.apiserver import metadata as meta
from sandlane.local.apiserver import stored_form
from sandlane.local.apiserver.admission.protocol import Admission, NoAdmission
from sandlane.local.apiserver.body import check_fields
from sandlane.local.apiserver.kinds.access import approve, check_signing_status, record_requester
from sandlane.local.apiserver.kinds.field_errors import Faults, FieldError
from sandlane.local.apiserver.kinds.pod_doors import DOORS, check_pod_status, door_faults, through_door
from sandlane.local.apiserver.kinds.pods import tolerate_for_a_while
from sandlane.local.apiserver.kinds.services import AddressError, AddressPool, addresses_of
from sandlane.local.apiserver.limits import Limits
from sandlane.local.apiserver.managed_fields import managers
from sandlane.local.apiserver.managed_fields.fieldset import DuplicateKey, FieldSet
from sandlane.local.apiserver.managed_fields.versions import ServedVersions
from sandlane.local.apiserver.metadata import Randomness
from sandlane.local.apiserver.resource_type import ResourceType, StorageKey
from sandlane.local.apiserver.status import (
    MODIFIED,
    StatusError,
    already_exists,
    bad_request,
    conflict,
    forbidden,
    internal,
    invalid,
    not_found,
)
from sandlane.local.apiserver.store.objects import ObjectStore, StaleVersion, StorageFull, Stored
from sandlane.local.apiserver.wire.conform import DecodeError

log = structlog.get_logger(__name__)

ATTEMPTS = 30
NAMESPACES: StorageKey = ("", "namespaces")
PODS: StorageKey = ("", "pods")
SIGNING_REQUESTS: StorageKey = ("certificates.k8s.io", "certificatesigningrequests")
_STATUS_CHECKS = {PODS: check_pod_status, SIGNING_REQUESTS: check_signing_status}


@dataclass(frozen=True)
class Seen:
    """How admission sees a write through a subresource that has a kind of its own: the kind, what becomes of an object for it,
    and what of the shown object (changed by a webhook, perhaps) goes back into the object.
    """

    group: str
    version: str
    kind: str
    show: Callable[[Object], Object] | None = None
    take: Callable[[Object, Object], None] | None = None


@dataclass
class Write:
    """What is known of one write: who, what for, and the warnings that go with the answer. `one_of_many`: its name is not known to
    admission.
    """

    type_: ResourceType
    namespace: str
    name: str = ""
    subresource: str = ""
    verb: str = "create"
    manager: str = "unknown"
    dry_run: bool = False
    validation: str = "Warn"
    user: Any = None
    warnings: list[str] = field(default_factory=list)
    options: Object = field(default_factory=dict)
    seen: Seen | None = None
    one_of_many: bool = False


Compute = Callable[[Object], Awaitable[Object]]


class Writer:
    """Writes objects through the pipeline."""

    def __init__(self, store: ObjectStore, clock: Clock, rng: Randomness, service_cidr: str) -> None:
        self.store = store
        self.clock = clock
        self.rng = rng
        self.admission: Admission = NoAdmission()
        self.limits = Limits(store)
        self.is_going: Callable[[StorageKey], bool] = lambda storage: False
        self.addresses = AddressPool(service_cidr, self._services)
        self._known_services: dict[Key, tuple[bytes, Object]] = {}

    def _services(self) -> list[Object]:
        """The addresses of all Services; only what has changed since the last time is decoded."""
        known, found = self._known_services, {}
        for key, stored in self.store.list(("", "services")):
            before = known.get(key)
            if before is None or before[0] is not stored.data:
                before = stored.data, addresses_of(msgspec.json.decode(stored.data))
            found[key] = before
        self._known_services = found
        return [service for _, service in found.values()]

    # -- create -----------------------------------------------------------------------------------------

    async def create(self, write: Write, obj: Object, duplicates: list[str]) -> Object:
        """Create an object; the object as stored. Raises `StatusError`."""
        type_ = write.type_
        resource = type_.resource
        check_fields(type_, obj, duplicates, write.validation, write.warnings)
        meta.check_namespace(type_, obj, write.namespace)
        write.name = write.name or obj["metadata"].get("name", "")
        self.require_namespace(write)
        self.require_alive(write)
        type_.strategy.default(obj)
        if write.verb != "apply":
            await self._track(write, None, obj)
        self.limits.default(type_, obj, write.namespace)
        if write.user is not None:
            self.limits.prioritize(type_, obj)
        obj = await self._mutated(write, "CREATE", obj, None)
        meta.check_namespace(type_, obj, write.namespace)
        meta.prepare_create(obj, self.clock.now(), self.rng)
        write.warnings += meta.without_repeated_owners(obj)
        write.name = write.name or obj["metadata"].get("name", "")
        type_.strategy.prepare_create(obj, self)
        if type_.storage_key == SIGNING_REQUESTS and write.user is not None:
            record_requester(obj, write.user)
        self._refuse(type_, obj, type_.strategy.validate_create(obj))
        write.warnings += type_.strategy.warnings(obj)
        await self.admission.validate(write, "CREATE", obj, None)
        self.limits.check(type_, obj, None, write.namespace)
        self._allocate(type_, obj, None)
        name = obj["metadata"]["name"]
        key = Key(write.namespace, name)
        if await self.store.settled(type_.storage_key, key) is not None:
            if obj["metadata"].get("generateName"):
                raise StatusError(
                    409,
                    "AlreadyExists",
                    f'{resource.plural} "{name}" already exists, the server was not able to generate a unique name for the object',
                    {"name": name, "kind": resource.plural} | ({"group": resource.group} if resource.group else {}),
                )
            raise already_exists(resource.group, resource.plural, name)
        return await self._put(write, key, obj, None)

    # -- update -----------------------------------------------------------------------------------------

    async def modify(self, write: Write, compute: Compute, *, optimistic: bool = True) -> Object:
        """Change an object: `compute` gives the wanted object from a copy of the stored one. Raises `StatusError`.

        Tried again on lost races, as long as `compute` gives an object with the version it was given (or none).
        """
        type_ = write.type_
        key = Key(write.namespace, write.name)
        for _ in range(ATTEMPTS):
            stored = await self.store.settled(type_.storage_key, key)
            if stored is None:
                raise not_found(type_.resource.group, type_.resource.plural, write.name)
            old = await self.decode(type_, stored)
            new = await compute(copy_json(old))
            wanted = new["metadata"].get("resourceVersion")
            if wanted and not str(wanted).isdecimal():
                raise StatusError(500, "", f'strconv.ParseUint: parsing "{wanted}": invalid syntax')
            if wanted not in (None, "", "0") and wanted != str(stored.version):
                raise conflict(type_.resource.group, type_.resource.plural, write.name, MODIFIED)
            try:
                return await self._update(write, key, stored, old, new)
            except StaleVersion:
                if not optimistic:
                    break
        raise conflict(type_.resource.group, type_.resource.plural, write.name, MODIFIED)

    async def _update(self, write: Write, key: Key, stored: Stored, old: Object, new: Object) -> Object:
        type_ = write.type_
        metadata = new["metadata"]
        if write.namespace:
            metadata.setdefault("namespace", write.namespace)
        if write.verb in ("patch", "apply"):
            metadata["resourceVersion"] = old["metadata"].get("resourceVersion")
        type_.strategy.default(new)
        if write.verb != "apply":
            prepared = self._prepared(write, new, old)
            await self._track(write, old, prepared)
            if (tracked := prepared["metadata"].get("managedFields")) is not None:
                metadata["managedFields"] = tracked
            else:
                metadata.pop("managedFields", None)
        if write.subresource == "" and type_.storage_key == PODS:
            tolerate_for_a_while(new)
        new = self._prepared(write, await self._mutated(write, "UPDATE", new, old), old)
        write.warnings += meta.without_repeated_owners(new)
        if write.subresource in ("", "scale"):
            type_.strategy.prepare_update(new, old, self)
        elif write.subresource == "status":
            self._keep_generation(new, old)
        errors = meta.check_update(new, old)
        if write.subresource in DOORS:
            errors += door_faults(write.subresource, new, old)
        elif write.subresource in ("status", "approval") and type_.storage_key in _STATUS_CHECKS:
            faults = Faults()
            _STATUS_CHECKS[type_.storage_key](faults, new, old)
            errors += faults.errors
        elif write.subresource != "binding":
            errors += type_.strategy.validate_update(new, old)
        self._refuse(type_, new, errors)
        unchanged = type_.strategy.has_generation and new["metadata"].get("generation") == old["metadata"].get(
            "generation"
        )
        if write.subresource in ("", "scale") and not unchanged and type_.storage_key != PODS:
            write.warnings += type_.strategy.warnings(new)
        if write.subresource == "":
            self._allocate(type_, new, old)
        await self.admission.validate(write, "UPDATE", new, old)
        if write.subresource in ("", "resize") and not new["metadata"].get("deletionTimestamp"):
            self.limits.check(type_, new, old, write.namespace)
        if meta.is_gone(type_, new):
            gone = await self._remove(write, key, copy_json(old), stored.version)  # watchers see it as it was
            new["metadata"]["resourceVersion"] = gone["metadata"]["resourceVersion"]
            return new
        if managers.same_but_times(new, old) and stored_form.is_current(type_, stored.data):
            return old
        return await self._put(write, key, new, stored.version)

    def _prepared(self, write: Write, new: Object, old: Object) -> Object:
        """A shallow copy of a new object with what this door cannot change put back. Raises `StatusError`."""
        new = {**new, "metadata": dict(new["metadata"])}
        meta.prepare_update(write.type_, new, old)
        new["metadata"]["resourceVersion"] = old["metadata"].get("resourceVersion")
        if write.subresource == "status":
            return meta.with_status(write.type_, old, new)
        if write.subresource == "finalize":
            new["status"] = copy_json(old.get("status") or {})
        elif write.subresource == "approval":
            approve(new, old, timestamp(self.clock.now()))
        elif write.subresource in DOORS:
            return through_door(write.subresource, new, old)
        elif write.subresource not in ("", "scale", "binding"):
            raise bad_request(f"{write.subresource} cannot be changed")
        return new

    @staticmethod
    def _keep_generation(new: Object, old: Object) -> None:
        if "generation" in old["metadata"]:
            new["metadata"]["generation"] = old["metadata"]["generation"]
        else:
            new["metadata"].pop("generation", None)

    # -- apply ------------------------------------------------------------------------------------------

    async def apply(self, write: Write, applied: Object, *, force: bool, manager: str) -> tuple[Object, bool]:
        """Server-side apply; the object, and whether it was created. Raises `StatusError`."""
        type_ = write.type_
        write.verb, write.manager = "apply", manager
        key = Key(write.namespace, write.name)
        given = applied["metadata"]
        for _ in range(ATTEMPTS):
            stored = await self.store.settled(type_.storage_key, key)
            live = await self.decode(type_, stored) if stored is not None else None
            wanted = given.get("resourceVersion")
            if live is None:
                if write.subresource:
                    raise not_found(type_.resource.group, type_.resource.plural, write.name)
                if given.get("uid"):
                    why = "uid mismatch: the provided object specified uid {}, and no existing object was found"
                    raise conflict(
                        type_.resource.group, type_.resource.plural, write.name, why.format(given.get("uid", ""))
                    )
                made = await self._applied(write, None, applied, force)
                tracked = made["metadata"].get("managedFields")
                write.verb = "apply"
                if tracked is not None:
                    made["metadata"]["managedFields"] = tracked
                made["metadata"].pop("resourceVersion", None)
                try:
                    return await self.create(write, made, []), True
                except StatusError as error:
                    if error.reason != "AlreadyExists":
                        raise
                    continue
            assert stored is not None
            if wanted and wanted != str(stored.version):
                raise conflict(type_.resource.group, type_.resource.plural, write.name, MODIFIED)
            if given.get("uid") and given["uid"] != live["metadata"]["uid"]:
                fault = FieldError("FieldValueInvalid", "metadata.uid", given["uid"], "field is immutable")
                self._refuse(type_, live, [fault, fault])  # checked twice upstream
            new = await self._applied(write, live, applied, force)
            new["metadata"].pop("resourceVersion", None)
            try:
                return await self._update(write, key, stored, live, new), False
            except StaleVersion:
                continue
        raise conflict(type_.resource.group, type_.resource.plural, write.name, MODIFIED)

    async def _applied(self, write: Write, live: Object | None, applied: Object, force: bool) -> Object:
        type_ = write.type_
        try:
            made = await managers.apply(live, applied, ServedVersions(type_), self._change(write), force=force)
            type_.strategy.prune(made)
            return made
        except managers.Conflicts as error:
            if write.subresource == "scale":
                error.seen_in("autoscaling/v1")
            raise StatusError(409, "Conflict", error.message(), {"causes": error.causes()}) from error
        except (DuplicateKey, DecodeError) as error:
            resource, name = type_.resource, applied["metadata"].get("name", "")
            what = f"{write.namespace}/{name}; {resource.group}/{resource.version}, Kind={resource.kind}"
            raise StatusError(500, "", f"failed to create typed patch object ({what}): {error}") from error

    @staticmethod
    def _reset_fields(write: Write) -> FieldSet:
        """Fields that a write through this door cannot set, so that nobody comes to manage them by it."""
        if write.subresource == "status":
            return (
                frozenset({("f:spec",)}) if write.type_.custom else frozenset({("f:spec",), ("f:metadata", "f:labels")})
            )
        return frozenset({("f:status",)}) if write.type_.subresource("status") is not None else frozenset()

    # -- shared -----------------------------------------------------------------------------------------

    async def decode(self, type_: ResourceType, stored: Stored) -> Object:
        """A stored object in the served version. Raises `StatusError` when it cannot be converted."""
        return (await stored_form.show(type_, stored.data))[0]

    def require_alive(self, write: Write) -> None:
        """Refuse new objects of a definition that is going. Raises `StatusError` 403."""
        resource = write.type_.resource
        if write.type_.custom and self.is_going(write.type_.storage_key):
            why = "create not allowed while custom resource definition is terminating"
            raise forbidden(resource.group, resource.plural, write.name, why)

    def require_namespace(self, write: Write) -> None:
        """Refuse new objects in namespaces that are not there or are going. Raises `StatusError` 404 and 403."""
        resource = write.type_.resource
        if not resource.namespaced or not write.namespace:
            return
        stored = self.store.get(NAMESPACES, Key("", write.namespace))
        if stored is None:
            raise not_found("", "namespaces", write.namespace)
        namespace = msgspec.json.decode(stored.data)
        if namespace["metadata"].get("deletionTimestamp"):
            why = f"unable to create new content in namespace {write.namespace} because it is being terminated"
            error = forbidden(resource.group, resource.plural, write.name, why)
            cause = {
                "reason": "NamespaceTerminating",
                "message": f"namespace {write.namespace} is being terminated",
                "field": "metadata.namespace",
            }
            assert error.details is not None
            error.details["causes"] = [cause]
            raise error

    async def _mutated(self, write: Write, operation: str, new: Object, old: Object | None) -> Object:
        made = await self.admission.mutate(write, operation, new, old)
        assert made is not None
        if made is not new:
            try:
                write.type_.strategy.prune(made)
            except DecodeError as error:
                raise internal(str(error)) from error
            write.type_.strategy.default(made)
        return made

    def _refuse(self, type_: ResourceType, obj: Object, errors: list[FieldError]) -> None:
        if errors:
            name = obj["metadata"].get("name", "") or obj["metadata"].get("generateName", "")
            raise invalid(type_.storage_key[0], type_.resource.kind, name, errors)

    def _allocate(self, type_: ResourceType, obj: Object, old: Object | None) -> None:
        try:
            type_.strategy.allocate(obj, old, self)
        except AddressError as error:
            self._refuse(type_, obj, [FieldError("FieldValueInvalid", error.field, error.value, error.detail)])

    async def _track(self, write: Write, old: Object | None, new: Object) -> None:
        """Keep managedFields right after a create or update."""
        try:
            await managers.on_update(old, new, ServedVersions(write.type_), self._change(write))
        except StatusError as error:  # as kube-apiserver does: the write is good, nobody manages anything any more
            log.warning("managed_fields_dropped", name=write.name, why=error.message)
            new["metadata"].pop("managedFields", None)

    def _change(self, write: Write) -> managers.Change:
        type_ = write.type_
        version = type_.resource.api_version
        now = timestamp(self.clock.now()) if write.subresource != "scale" else ""
        return managers.Change(
            write.manager,
            version,
            write.subresource,
            now,
            self._reset_fields(write),
            not type_.custom,
            type_.strategy.blank,
        )

    async def _put(self, write: Write, key: Key, obj: Object, expected: int | None) -> Object:
        if write.dry_run:
            if expected is None:
                obj["metadata"].pop("resourceVersion", None)
            return await stored_form.as_kept(write.type_, obj, await stored_form.rest(write.type_, obj))
        type_ = write.type_
        kept = await stored_form.rest(type_, obj)
        try:
            stored = await self.store.put(type_.storage_key, key, lambda version: _at_version(kept, version), expected)
        except StorageFull as error:
            raise StatusError(507, "InsufficientStorage", f"the write could not be made durable: {error}") from error
        except StaleVersion:
            if expected is None:
                raise already_exists(type_.resource.group, type_.resource.plural, key.name) from None
            raise
        obj["metadata"]["resourceVersion"] = str(stored.version)
        return await stored_form.as_kept(type_, obj, kept)

    async def _remove(self, write: Write, key: Key, obj: Object, expected: int) -> Object:
        if write.dry_run:
            return obj
        type_ = write.type_
        kept = await stored_form.rest(type_, obj)
        try:
            stored = await self.store.remove(
                type_.storage_key, key, lambda version: _at_version(kept, version), expected
            )
        except StorageFull as error:
            raise StatusError(507, "InsufficientStorage", f"the write could not be made durable: {error}") from error
        obj["metadata"]["resourceVersion"] = str(stored.version)
        return obj


def _at_version(kept: Object, version: int) -> bytes:
    """An object in stored form, at a version."""
    return msgspec.json.encode({**kept, "metadata": {**kept["metadata"], "resourceVersion": str(version)}})
