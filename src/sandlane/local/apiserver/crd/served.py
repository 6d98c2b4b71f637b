"""The resources that a CustomResourceDefinition makes the server serve."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from sandlane.kube.resource import Object, Resource
from sandlane.local.apiserver.crd.jsonpath import PathError, find
from sandlane.local.apiserver.crd.strategy import CustomStrategy
from sandlane.local.apiserver.kinds.kind import SCALE, STATUS
from sandlane.local.apiserver.registry import version_order
from sandlane.local.apiserver.resource_type import Column, Conversion, ResourceType
from sandlane.local.apiserver.schema import Schema


def resource_types(definition: Object, conversion: Conversion | None = None) -> list[ResourceType]:
    """The resources that a definition makes the server serve, one for each served version."""
    spec = definition["spec"]
    names, group = spec["names"], spec["group"]
    storage_version = next(version["name"] for version in spec["versions"] if version.get("storage"))
    made: list[ResourceType] = []
    versions: dict[str, ResourceType] = {}
    for version in spec["versions"]:
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
        versions[api_version] = ResourceType(
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
            from_storage=_shown(api_version, strategy, versions),
            to_storage=_kept(stored_as, versions),
            conversion=conversion,
            selectable_fields={
                field["jsonPath"].lstrip("."): _selectable(field["jsonPath"])
                for field in version.get("selectableFields") or ()
            },
            scale_paths=paths,
            custom=True,
            deprecated=_deprecated(spec, version),
            versions=versions,
        )
        if version.get("served"):
            made.append(versions[api_version])
    return made


def _deprecated(spec: Object, version: Object) -> str:
    """The warning of a version that goes out of use; without one of its own, the newest version to use instead is named."""
    if not version.get("deprecated"):
        return ""
    if version.get("deprecationWarning"):
        return str(version["deprecationWarning"])
    group, kind, name = spec["group"], spec["names"]["kind"], version["name"]
    others = [each["name"] for each in spec["versions"] if each.get("served") and not each.get("deprecated")]
    newer = sorted((other for other in others if version_order(other) < version_order(name)), key=version_order)
    instead = f"; use {group}/{newer[0]} {kind}" if newer else ""
    return f"{group}/{name} {kind} is deprecated{instead}"


def _kept(api_version: str, versions: Mapping[str, ResourceType]) -> Callable[[Object], Object]:
    """Conversion None: the version's name differs, and what the version at rest has no fields for is left out."""

    def convert(obj: Object) -> Object:
        if obj["apiVersion"] != api_version:
            obj["apiVersion"] = api_version
            versions[api_version].strategy.prune(obj)
        return obj

    return convert


def _shown(
    api_version: str, strategy: CustomStrategy, versions: Mapping[str, ResourceType]
) -> Callable[[Object], Object]:
    """What a version shows of an object in any version: defaults are those of the version that it is in, and what the
    shown version has no fields for is left out."""

    def convert(obj: Object) -> Object:
        own = versions.get(obj["apiVersion"])
        if own is not None:
            own.strategy.default(obj)
        if obj["apiVersion"] != api_version:
            obj["apiVersion"] = api_version
            strategy.prune(obj)
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
        if column["type"] == "string":
            return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), sort_keys=True)
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
