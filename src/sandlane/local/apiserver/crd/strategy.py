"""What the write pipeline asks of a custom resource."""

from __future__ import annotations

from typing import Any

from sandlane.kube.patch.values import equal_json, go_text
from sandlane.kube.resource import Object, Resource
from sandlane.local.apiserver.crd.jsonpath import find
from sandlane.local.apiserver.crd.structural import default, prune
from sandlane.local.apiserver.crd.validation import check_rules, check_values
from sandlane.local.apiserver.kinds.field_errors import Faults, FieldError
from sandlane.local.apiserver.kinds.names import STANDARD_FINALIZERS, check_metadata, subdomain
from sandlane.local.apiserver.schema import Schema
from sandlane.local.apiserver.wire.conform import DecodeError, conform

_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"


_GO_TYPES = {str: "string", float: "float64", bool: "bool", list: "[]interface {}"}


def _shown(value: Any) -> str:
    """What is there instead of a number."""
    shown = go_text(int(value) if isinstance(value, float) and value.is_integer() else value)
    return f"{shown} is of the type {_GO_TYPES.get(type(value), 'map[string]interface {}')}"


def _no_map_on(obj: Object, path: str) -> str | None:
    """What lies on the way of a simple path and leads nowhere."""
    at: Any = obj
    for name in path.lstrip(".").split(".")[:-1]:
        at = at.get(name)
        if at is None:
            return None
        if not isinstance(at, dict):
            return _shown(at)
    return None


class CustomStrategy:
    """Rules of one version of a custom resource."""

    has_generation = True
    allows_create_on_update = False
    needs_version = True

    def __init__(
        self, resource: Resource, schema: Schema, *, status: bool, scale: tuple[str, str, str] | None = None
    ) -> None:
        self._resource = resource
        self._scale = scale
        self._schema = schema
        self._status = status

    @property
    def blank(self) -> Object:
        """Nothing is always there."""
        return {}

    def prune(self, obj: Object) -> list[str]:
        """Drop unknown fields; their paths. Raises `DecodeError` for metadata that is none."""
        metadata = obj.get("metadata")
        if not isinstance(metadata, dict):
            raise DecodeError("metadata is not an object")
        made, unknown = conform(metadata, _META)
        obj["metadata"] = made
        dropped = [] if self._schema.preserve_unknown else prune(obj, self._schema)
        return sorted([*(f"metadata.{path}" for path in unknown), *dropped])

    def default(self, obj: Object) -> None:
        """Fill in defaults."""
        body = {key: value for key, value in obj.items() if key not in ("metadata", "apiVersion", "kind")}
        default(body, self._schema)
        for key in [key for key in obj if key not in (*body, "metadata", "apiVersion", "kind")]:
            del obj[key]
        for key, value in body.items():
            if key not in ("metadata", "apiVersion", "kind"):
                obj[key] = value

    def prepare_create(self, obj: Object, context: Any) -> None:
        """A new object: generation 1, no status."""
        obj["metadata"]["generation"] = 1
        if self._status:
            obj.pop("status", None)

    def prepare_update(self, new: Object, old: Object, context: Any) -> None:
        """The status stays; the generation rises with what is not metadata or status."""
        if self._status:
            if "status" in old:
                new["status"] = old["status"]
            else:
                new.pop("status", None)
        ignored = ("metadata", "status") if self._status else ("metadata",)
        changed = not equal_json(*({k: v for k, v in each.items() if k not in ignored} for each in (new, old)))
        new["metadata"]["generation"] = old["metadata"].get("generation", 1) + (1 if changed else 0)

    def allocate(self, obj: Object, old: Object | None, context: Any) -> None:
        """Nothing to give out."""

    def validate_create(self, obj: Object) -> list[FieldError]:
        """Faults of a new object."""
        faults = Faults()
        check_metadata(faults, obj, subdomain, custom=True)
        return self._check(faults, obj, None)

    def validate_update(self, new: Object, old: Object) -> list[FieldError]:
        """Faults of a changed object."""
        faults = Faults()
        check_metadata(faults, new, subdomain, custom=True)
        return self._check(faults, new, old)

    def _check(self, faults: Faults, new: Object, old: Object | None) -> list[FieldError]:
        """By the schema, by what `scale` needs, and by the rules of the schema."""
        updating = old is not None
        faults.errors += check_values(new, self._schema, "", old, updating=updating)
        self._check_scale(faults, new)
        return faults.errors + check_rules(new, self._schema, "", old, faults.errors, updating=updating)

    def _check_scale(self, faults: Faults, obj: Object) -> None:
        """Where there is a subresource `scale`, its fields must be what it needs."""
        for path in (self._scale or ())[:2]:
            if (fault := _no_map_on(obj, path)) is not None:
                faults.invalid(path, 0, f"{path} accessor error: {fault}, expected map[string]interface{{}}")
                continue
            found = find(obj, path)
            if not found or found[0] is None:
                continue
            replicas = found[0]
            if not isinstance(replicas, int) or isinstance(replicas, bool):
                faults.invalid(
                    path,
                    0,
                    f"{path} accessor error: {_shown(replicas)}, expected int64",
                )
            elif replicas < 0:
                faults.invalid(path, replicas, "should be a non-negative integer")
            elif replicas >= 2**31:
                faults.invalid(path, replicas, f"should be less than or equal to {2**31 - 1}")

    def warnings(self, obj: Object) -> list[str]:
        """Finalizers that do not say whose they are."""
        why = "prefer a domain-qualified finalizer name including a path (/) to avoid accidental conflicts with other finalizer writers"
        return [
            f'metadata.finalizers: "{each}": {why}'
            for each in obj["metadata"].get("finalizers") or ()
            if "/" not in each and each not in STANDARD_FINALIZERS
        ]
