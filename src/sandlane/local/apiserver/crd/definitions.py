"""CustomResourceDefinitions: their defaults and faults, and the resources that they make the server serve."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from sandlane.kube.clock import Clock, timestamp
from sandlane.kube.resource import Key, Object, Resource
from sandlane.local.apiserver.crd.cel_rules import UnsupportedExpression, compile_rule, undeclared_field
from sandlane.local.apiserver.crd.jsonpath import PathError, find
from sandlane.local.apiserver.crd.strategy import CustomStrategy
from sandlane.local.apiserver.crd.validation import validate
from sandlane.local.apiserver.kinds.field_errors import Faults, FieldError
from sandlane.local.apiserver.kinds.kind import SCALE, STATUS
from sandlane.local.apiserver.kinds.names import dns_label
from sandlane.local.apiserver.registry import Registry
from sandlane.local.apiserver.resource_type import Column, ResourceType, StorageKey
from sandlane.local.apiserver.schema import Schema
from sandlane.local.apiserver.store.objects import Event, ObjectStore

STORAGE: StorageKey = ("apiextensions.k8s.io", "customresourcedefinitions")
CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
_TYPES = ("object", "array", "string", "integer", "number", "boolean")


def default_definition(obj: Object) -> None:
    """Names, list kind and conversion that were not given."""
    spec = obj.setdefault("spec", {})
    names = spec.setdefault("names", {})
    if names.get("kind"):
        names["singular"] = names.get("singular") or names["kind"].lower()
        names["listKind"] = names.get("listKind") or names["kind"] + "List"
    spec.setdefault("conversion", {}).setdefault("strategy", "None")
    if spec["conversion"]["strategy"] == "Webhook":
        client = (spec["conversion"].get("webhook") or {}).get("clientConfig") or {}
        if "service" in client:
            client["service"].setdefault("port", 443)


def check_definition(faults: Faults, obj: Object, *, updating: bool = False) -> None:
    """Name, versions and schemas."""
    spec = obj["spec"]
    names, group = spec.get("names") or {}, spec.get("group", "")
    wanted = f"{names.get('plural', '')}.{group}"
    name = obj["metadata"].get("name", "")
    if name != wanted and not updating:
        faults.invalid("metadata.name", name, 'must be spec.names.plural+"."+spec.group')
    if not group:
        faults.required("spec.group")
    elif "." not in group:
        faults.invalid("spec.group", group, "should be a domain with at least one dot")
    faults.one_of("spec.scope", spec.get("scope"), ("Cluster", "Namespaced"), required=True)
    for field in ("plural", "kind"):
        if not names.get(field):
            faults.required(f"spec.names.{field}")
    for field in ("plural", "singular"):
        if names.get(field):
            for detail in dns_label(names[field]):
                faults.invalid(f"spec.names.{field}", names[field], detail)
    versions = spec.get("versions") or []
    storing = [version["name"] for version in versions if version.get("storage")]
    if len(storing) != 1:
        faults.invalid("spec.versions", _versions(versions), "must have exactly one version marked as storage version")
        if len(storing) > 1 and not updating:
            faults.invalid("status.storedVersions", storing, "must have exactly one stored version")
    schemas = [(version.get("schema") or {}).get("openAPIV3Schema") for version in versions]
    shared = all(schema == schemas[0] for schema in schemas)  # upstream then checks it once, in another place
    for index, schema in enumerate(schemas):
        at = f"spec.versions[{index}].schema.openAPIV3Schema"
        if schema is None:
            faults.required(at, "schemas are required")
            continue
        if shared:
            if index:
                break
            at = "spec.validation.openAPIV3Schema"
        if schema.get("type") != "object":
            faults.invalid(f"{at}.type", schema.get("type", ""), "must be object at the root") if schema.get(
                "type"
            ) else faults.required(f"{at}.type", "must not be empty at the root")
        _check_schema(faults, schema, at, root=True)


def _versions(versions: list[Object]) -> Any:
    return [{"name": version.get("name")} for version in versions]


def _check_schema(faults: Faults, raw: Any, at: str, *, root: bool = False) -> None:
    """The rules of structural schemas, as far as they protect from surprises."""
    if not isinstance(raw, dict):
        return
    free = raw.get("x-kubernetes-int-or-string") or raw.get("x-kubernetes-preserve-unknown-fields")
    if not root and not raw.get("type") and not free:
        faults.required(f"{at}.type", "must not be empty for specified object fields")
    if raw.get("type") and raw["type"] not in _TYPES:
        faults.not_supported(f"{at}.type", raw["type"], _TYPES)
    if raw.get("type") == "array" and "items" not in raw:
        faults.required(f"{at}.items", "must be specified")
    for index, rule in enumerate(raw.get("x-kubernetes-validations") or ()):
        for field in ("rule", "messageExpression"):
            if rule.get(field):
                try:
                    compile_rule(rule[field])
                    unknown = undeclared_field(rule[field], raw, root=root)
                    why = f"undefined field '{unknown}'" if unknown else ""
                except UnsupportedExpression as error:
                    why = str(error)
                if why:
                    where = f"{at}.x-kubernetes-validations[{index}].{field}"
                    faults.invalid(where, rule[field], f"compilation failed: {why}")
    if raw.get("default") is not None:
        faults.errors += validate(raw["default"], Schema(raw), f"{at}.default")
    if raw.get("x-kubernetes-list-type") == "map":
        _check_keys(faults, raw, at)
    if "pattern" in raw:
        try:
            re.compile(raw["pattern"])
        except re.error as error:
            faults.invalid(f"{at}.pattern", raw["pattern"], f"must be a valid regular expression, but isn't: {error}")
    for name, child in (raw.get("properties") or {}).items():
        if root and name == "metadata":
            continue
        _check_schema(faults, child, f"{at}.properties[{name}]")
    if isinstance(raw.get("items"), dict):
        _check_schema(faults, raw["items"], f"{at}.items")
    if isinstance(raw.get("additionalProperties"), dict):
        _check_schema(faults, raw["additionalProperties"], f"{at}.additionalProperties")


def _check_keys(faults: Faults, raw: Object, at: str) -> None:
    """The keys of a list of type map are always there: required, or with a default."""
    items = raw.get("items") or {}
    keys = raw.get("x-kubernetes-list-map-keys") or ()
    if not keys:
        faults.required(f"{at}.x-kubernetes-list-map-keys", "must not be empty if x-kubernetes-list-type is map")
    for key in keys:
        found = (items.get("properties") or {}).get(key)
        if found is None:
            faults.invalid(f"{at}.x-kubernetes-list-map-keys", keys, f"{key} is not a property of the items")
        elif key not in (items.get("required") or ()) and "default" not in found:
            detail = (
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"
            )
            faults.required(f"{at}.items.properties[{key}].default", detail)


def accepted_status(obj: Object, now: str, taken: tuple[str, str] | None = None) -> Object:
    """The status of a definition: accepted and established, or not, with the reason and the name that is taken."""
    names = {key: value for key, value in obj["spec"]["names"].items() if value}
    stored = [version["name"] for version in obj["spec"].get("versions") or () if version.get("storage")]
    if taken is not None:
        conditions = [
            _condition("NamesAccepted", "False", *taken, now),
            _condition("Established", "False", "NotAccepted", "not all names are accepted", now),
        ]
        return {"conditions": conditions, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": stored}
    conditions = [
        _condition("NamesAccepted", "True", "NoConflicts", "no conflicts found", now),
        _condition("Established", "True", "InitialNamesAccepted", "the initial names have been accepted", now),
    ]
    return {"conditions": conditions, "acceptedNames": names, "storedVersions": stored}


def mark_terminating(obj: Object, now: str) -> None:
    """A definition that is deleted waits for its objects to go."""
    finalizers = obj["metadata"].setdefault("finalizers", [])
    if CLEANUP not in finalizers:
        finalizers.append(CLEANUP)
    conditions = obj.setdefault("status", {}).setdefault("conditions", [])
    message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon"
    if not any(condition["type"] == "Terminating" for condition in conditions):
        conditions.append(_condition("Terminating", "True", "InstanceDeletionPending", message, now))


def _condition(kind: str, status: str, reason: str, message: str, now: str) -> Object:
    return {"type": kind, "status": status, "lastTransitionTime": now, "reason": reason, "message": message}


class Definitions:
    """Keeps the registry in step with the definitions in the store."""

    def __init__(self, store: ObjectStore, registry: Registry, clock: Clock) -> None:
        self._store = store
        self._registry = registry
        self._clock = clock
        self._served: dict[str, tuple[Resource, ...]] = {}
        self.terminating: dict[StorageKey, str] = {}
        """Definitions that wait for their objects to go."""
        store.on_write.append(self._written)
        for _, stored in store.list(STORAGE):
            self._serve(msgspec.json.decode(stored.data))

    def prepare(self, obj: Object) -> None:
        """The status of a new definition."""
        obj["status"] = accepted_status(obj, timestamp(self._clock.now()), self._taken(obj))

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
            for gone in [key for key, name in self.terminating.items() if name == event.key.name]:
                del self.terminating[gone]
        else:
            self._serve(msgspec.json.decode(event.after))

    def _serve(self, definition: Object) -> None:
        name = definition["metadata"]["name"]
        conditions = (definition.get("status") or {}).get("conditions") or ()
        established = any(c["type"] == "Established" and c["status"] == "True" for c in conditions)
        types = resource_types(definition) if established else []
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


def resource_types(definition: Object) -> list[ResourceType]:
    """The resources that a definition makes the server serve, one for each served version."""
    spec = definition["spec"]
    names, group = spec["names"], spec["group"]
    storage_version = next(version["name"] for version in spec["versions"] if version.get("storage"))
    made = []
    for version in spec["versions"]:
        if not version.get("served"):
            continue
        resource = Resource(group, version["name"], names["plural"], names["kind"], spec["scope"] == "Namespaced")
        raw = (version.get("schema") or {}).get("openAPIV3Schema") or {"type": "object"}
        schema = Schema.from_crd(raw)
        subs = version.get("subresources") or {}
        status, scale = "status" in subs, subs.get("scale")
        paths = (
            (scale["specReplicasPath"], scale["statusReplicasPath"], scale.get("labelSelectorPath") or "")
            if scale
            else None
        )
        strategy = CustomStrategy(resource, schema, status=status, scale=paths)
        api_version = resource.api_version
        stored_as = f"{group}/{storage_version}"
        made.append(
            ResourceType(
                resource=resource,
                strategy=strategy,
                schema=schema,
                singular=names.get("singular") or names["kind"].lower(),
                list_kind=names.get("listKind") or names["kind"] + "List",
                short_names=tuple(names.get("shortNames") or ()),
                categories=tuple(names.get("categories") or ()),
                subresources=tuple(sub for sub, wanted in ((STATUS, status), (SCALE, scale)) if wanted),
                columns=tuple(_column(column) for column in version.get("additionalPrinterColumns") or ()),
                storage_version=storage_version,
                from_storage=_converter(api_version, strategy, other=version["name"] != storage_version),
                to_storage=_converter(stored_as, None),
                selectable_fields={
                    field["jsonPath"].lstrip("."): _selectable(field["jsonPath"])
                    for field in version.get("selectableFields") or ()
                },
                scale_paths=paths,
                custom=True,
            )
        )
    return made


def _converter(api_version: str, strategy: CustomStrategy | None, *, other: bool = False) -> Callable[[Object], Object]:
    """Conversion None: the version's name differs, and fields that the version has not are left out (`other`: it is
    not the version at rest). Defaults are filled in when an object is read."""

    def convert(obj: Object) -> Object:
        obj["apiVersion"] = api_version
        if strategy is not None:
            if other:
                strategy.prune(obj)
            strategy.default(obj)
        return obj

    return convert


def _column(column: Object) -> Column:
    path = column["jsonPath"]

    def read(obj: Object) -> Any:
        try:
            found = find(obj, path)
        except PathError:
            return None
        if not found:
            return None
        value = found[0]
        if column["type"] == "integer":
            return int(value) if isinstance(value, (int, float)) else None
        if column["type"] == "string" and not isinstance(value, (str, dict, list)):
            return str(value).lower() if isinstance(value, bool) else str(value)
        return value

    return Column(
        column["name"],
        column["type"],
        column.get("format", ""),
        column.get("description", f"Custom resource definition column (in JSONPath format): {path}"),
        column.get("priority", 0),
        read,
    )


def _selectable(path: str) -> Callable[[Object], str]:
    def read(obj: Object) -> str:
        found = find(obj, path)
        if not found:
            return ""
        return str(found[0]).lower() if isinstance(found[0], bool) else str(found[0])

    return read


def check_update(faults: Faults, new: Object, old: Object) -> None:
    """What of a definition cannot change."""
    for field in ("group", "scope"):
        faults.immutable(f"spec.{field}", new["spec"].get(field), same=new["spec"].get(field) == old["spec"].get(field))
    for field in ("plural", "kind"):
        value = new["spec"]["names"].get(field)
        faults.immutable(f"spec.names.{field}", value, same=value == old["spec"]["names"].get(field))
    stored = (old.get("status") or {}).get("storedVersions") or ()
    names = [version["name"] for version in new["spec"].get("versions") or ()]
    for index, name in enumerate(stored):
        if name not in names:
            detail = f"missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
            faults.errors.append(FieldError("FieldValueInvalid", f"status.storedVersions[{index}]", name, detail))


def _but_own_finalizer(errors: list[FieldError]) -> list[FieldError]:
    """The server's own finalizer has a name that clients could not give."""
    return [error for error in errors if not (error.field.startswith("metadata.finalizers") and error.value == CLEANUP)]


class DefinitionStrategy:
    """The write pipeline's rules for definitions: those of a built-in kind, and what the server adds."""

    has_generation = True
    allows_create_on_update = False

    def __init__(self, builtin: Any, definitions: Definitions) -> None:
        self._builtin = builtin
        self._definitions = definitions

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
        """None."""
        return []
