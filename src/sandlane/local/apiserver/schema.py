"""A frozen, lazy view over an OpenAPI v3 schema, the same for built-in kinds and for custom resources.

Definitions of the built-in kinds (Kubernetes 1.36) come from the wheel `kubernetes-validate`; they are decoded at the
first use (about 6 ms) and every view is made at most once, when somebody asks for it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar

import msgspec

_VERSION = "v1.36.0-local"
_CORE = "io.k8s.api.core.v1."
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_UTIL = "io.k8s.apimachinery.pkg."

# Scalars with a marshaller of their own; the published definitions do not say all that is needed here.
_SCALARS: dict[str, dict[str, Any]] = {
    f"{_UTIL}api.resource.Quantity": {"x-kubernetes-int-or-string": True, "format": "quantity"},
    f"{_UTIL}util.intstr.IntOrString": {"x-kubernetes-int-or-string": True, "format": "int-or-string"},
    f"{_UTIL}runtime.RawExtension": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    f"{_META}FieldsV1": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    f"{_META}MicroTime": {"type": "string", "format": "micro-time"},
}

# Defaults of keys of associative lists, as Kubernetes publishes them in OpenAPI v3; server-side apply needs them.
_DEFAULTS: dict[str, dict[str, Any]] = {
    f"{_CORE}ContainerPort": {"protocol": "TCP"},
    f"{_CORE}LocalObjectReference": {"name": ""},
    f"{_CORE}ServicePort": {"protocol": "TCP"},
}


class Schema:
    """One node of a schema. Values are read once and kept; equal nodes of built-in definitions are the same object."""

    _empty: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, raw: Mapping[str, Any], *, defaults: Mapping[str, Any] | None = None) -> None:
        """View `raw`; `#/$defs/` references in it mean built-in definitions. `defaults`: defaults of its properties."""
        self.raw = raw
        self._defaults = defaults or {}

    @staticmethod
    def builtin(definition: str) -> Schema:
        """The schema of a built-in definition such as `io.k8s.api.apps.v1.Deployment`. Raises KeyError if unknown."""
        return _builtin(definition)

    @staticmethod
    def from_crd(schema: Mapping[str, Any]) -> Schema:
        """The schema of a CustomResourceDefinition's `openAPIV3Schema`, with all of metadata."""
        return Schema(_whole_object(schema))

    @cached_property
    def type(self) -> str:
        """`object`, `array`, `string`, `integer`, `number`, `boolean`, or empty where any value will do."""
        kind = self.raw.get("type", "")
        if isinstance(kind, list):
            return next((each for each in kind if each != "null"), "")
        return str(kind)

    @cached_property
    def properties(self) -> Mapping[str, Schema]:
        """Named fields of an object."""
        properties = self.raw.get("properties")
        if not properties:
            return self._empty
        defaults = self._defaults
        return {
            name: _node(raw if name not in defaults else {**raw, "default": defaults[name]})
            for name, raw in properties.items()
        }

    @cached_property
    def items(self) -> Schema | None:
        """What each item of an array is; None where not said."""
        raw = self.raw.get("items")
        return _node(raw) if isinstance(raw, Mapping) else None

    @cached_property
    def additional(self) -> Schema | None:
        """What each value of a map is, or None for no map. `additionalProperties: true` is a schema for anything."""
        raw = self.raw.get("additionalProperties")
        if raw is True:
            return _ANYTHING
        return _node(raw) if isinstance(raw, Mapping) else None

    @cached_property
    def list_type(self) -> str:
        """`atomic` (also where not said), `set` or `map`."""
        return str(self.raw.get("x-kubernetes-list-type", "atomic"))

    @cached_property
    def list_keys(self) -> tuple[str, ...]:
        """Fields that identify an item of a list of type `map`."""
        return tuple(self.raw.get("x-kubernetes-list-map-keys", ()))

    @cached_property
    def map_type(self) -> str:
        """`granular` (also where not said) or `atomic`."""
        return str(self.raw.get("x-kubernetes-map-type", "granular"))

    @cached_property
    def merge_key(self) -> str:
        """The key of a strategic merge patch for this list, or empty."""
        return str(self.raw.get("x-kubernetes-patch-merge-key", ""))

    @cached_property
    def merge_strategy(self) -> frozenset[str]:
        """Strategies of a strategic merge patch: any of `merge`, `replace`, `retainKeys`."""
        return frozenset(filter(None, str(self.raw.get("x-kubernetes-patch-strategy", "")).split(",")))

    @cached_property
    def preserve_unknown(self) -> bool:
        """Whether fields that the schema does not name are kept."""
        return self.raw.get("x-kubernetes-preserve-unknown-fields") is True

    @cached_property
    def int_or_string(self) -> bool:
        """Whether both an integer and a string will do (quantities, too)."""
        return self.raw.get("x-kubernetes-int-or-string") is True

    @cached_property
    def embedded(self) -> bool:
        """Whether the value is a whole object with apiVersion, kind and metadata."""
        return self.raw.get("x-kubernetes-embedded-resource") is True

    @cached_property
    def nullable(self) -> bool:
        """Whether null is a value of its own."""
        kind = self.raw.get("type")
        return self.raw.get("nullable") is True or (isinstance(kind, list) and "null" in kind)

    @cached_property
    def required(self) -> frozenset[str]:
        """Names of properties that must be there."""
        return frozenset(self.raw.get("required", ()))

    @property
    def default(self) -> Any:
        """The default, or `msgspec.UNSET` where there is none. Copy it before use."""
        return self.raw.get("default", msgspec.UNSET)

    @cached_property
    def format(self) -> str:
        """`date-time`, `byte`, `int32`, `quantity`, ..., or empty."""
        return str(self.raw.get("format", ""))

    @cached_property
    def enum(self) -> tuple[Any, ...]:
        """Allowed values, or empty for no limit."""
        return tuple(self.raw.get("enum", ()))

    @property
    def description(self) -> str:
        """What the field is for."""
        return str(self.raw.get("description", ""))

    def __repr__(self) -> str:
        return f"Schema({self.type or 'any'}, {len(self.properties)} properties)"


_ANYTHING = Schema({"x-kubernetes-preserve-unknown-fields": True})


@cache
def definitions() -> Mapping[str, Mapping[str, Any]]:
    """All built-in definitions by name, as published. Treat as frozen."""
    spec = importlib.util.find_spec("kubernetes_validate")  # finds without importing: the package is slow to import
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError(
            "the embedded API server needs the package kubernetes-validate: pip install 'sandlane[local]'"
        )
    folder = Path(spec.submodule_search_locations[0])
    data = (folder / "kubernetes-json-schema" / _VERSION / "_definitions.json").read_bytes()
    decoded: dict[str, dict[str, Any]] = msgspec.json.decode(data)["$defs"]
    return decoded


@cache
def definition_names() -> Mapping[tuple[str, str, str], str]:
    """The definition of each built-in (group, version, kind)."""
    names: dict[tuple[str, str, str], str] = {}
    for name, raw in definitions().items():
        kinds = raw.get("x-kubernetes-group-version-kind", ())
        if len(kinds) == 1:  # options such as DeleteOptions belong to every group
            kind = kinds[0]
            names[kind["group"], kind["version"], kind["kind"]] = name
    return names


@cache
def _builtin(definition: str) -> Schema:
    raw = _SCALARS.get(definition) or definitions()[definition]
    if raw.get("type") in ("object", ["object", "null"]) and "properties" not in raw:
        raw = {**raw, "x-kubernetes-preserve-unknown-fields": "additionalProperties" not in raw}
    return Schema(raw, defaults=_DEFAULTS.get(definition))


def _node(raw: Mapping[str, Any]) -> Schema:
    """A nested schema; what stands beside a `$ref` (a description, list markers) is laid over its target."""
    reference = raw.get("$ref")
    if not isinstance(reference, str) or not reference.startswith("#/$defs/"):
        return Schema(_whole_object(raw) if raw.get("x-kubernetes-embedded-resource") is True else raw)
    definition = reference.removeprefix("#/$defs/")
    extra = {key: value for key, value in raw.items() if key not in ("$ref", "description")}
    target = _builtin(definition)
    return Schema({**target.raw, **extra}, defaults=_DEFAULTS.get(definition)) if extra else target


def _whole_object(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """A schema of a custom resource (or of an object embedded in one) with the fields that all objects have."""
    properties = {
        **raw.get("properties", {}),
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"$ref": f"#/$defs/{_META}ObjectMeta"},
    }
    return {**raw, "properties": properties}
