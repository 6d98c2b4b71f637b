"""The OpenAPI documents as bytes, each made at most once until the served resources change."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import msgspec

from sandlane.kube.resource import Resource
from sandlane.local.apiserver.openapi.binary import encode_v2
from sandlane.local.apiserver.openapi.paths import PublishedResource, PublishedSubresource, paths_of
from sandlane.local.apiserver.openapi.schemas import V2, V3, closure, custom, published
from sandlane.local.apiserver.schema import Schema, definition_names, definitions

_FORMAT = 1  # raise when built-in documents come out differently, so that clients do not use cached ones
_INFO = {"title": "Kubernetes", "version": "v1.36.0"}
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_ALWAYS = frozenset(f"{_META}{kind}" for kind in ("DeleteOptions", "Patch", "Status", "APIResourceList", "WatchEvent"))


class DescribedSubresource(Protocol):
    """What is asked of a subresource; kind and group version are empty where they are the resource's own."""

    @property
    def name(self) -> str:
        """`status`, `scale`, ..."""

    @property
    def verbs(self) -> Iterable[str]:
        """`get`, `patch`, ..."""

    @property
    def kind(self) -> str:
        """The kind that it speaks."""

    @property
    def group(self) -> str:
        """The group of that kind."""

    @property
    def version(self) -> str:
        """The version of that kind."""


class Described(msgspec.Struct, frozen=True):
    """A served resource: `schema` is that of a custom resource, None for a built-in kind."""

    resource: Resource
    verbs: frozenset[str]
    subresources: tuple[DescribedSubresource, ...] = ()
    schema: Schema | None = None


class Document(msgspec.Struct, frozen=True):
    """A document and the hash by which clients cache it."""

    body: bytes
    hash: str


class OpenApi:
    """All documents for one set of served resources. Make a new one when the set changes."""

    def __init__(self, resources: Iterable[Described]) -> None:
        self._groups: dict[str, list[Described]] = {}
        for each in resources:
            resource = each.resource
            key = f"apis/{resource.group}/{resource.version}" if resource.group else f"api/{resource.version}"
            self._groups.setdefault(key, []).append(each)
        self._documents: dict[str, Document] = {}
        self._v2: Document | None = None
        self._v2_binary: Document | None = None

    def index(self) -> Document:
        """`/openapi/v3`: the hashed address of each group version's document."""
        paths = {
            key: {"serverRelativeURL": f"/openapi/v3/{key}?hash={self.hash_of(key)}"} for key in sorted(self._groups)
        }
        body = msgspec.json.encode({"paths": paths})
        return Document(body, _hash(body))

    def hash_of(self, key: str) -> str:
        """The hash of `apis/apps/v1` or `api/v1`, without making the document."""
        parts: list[Any] = [_FORMAT, key]
        for each in self._groups[key]:
            parts.append(
                [each.resource, sorted(each.verbs), [(sub.name, sorted(sub.verbs)) for sub in each.subresources]]
            )
            if each.schema is not None:
                parts.append(each.schema.raw)
        return _hash(msgspec.json.encode(parts))

    def v3(self, key: str) -> Document | None:
        """The document of a group version (`apis/apps/v1`, `api/v1`), or None."""
        if key not in self._groups:
            return None
        if key not in self._documents:
            schemas, paths = _build(self._groups[key], V3)
            body = msgspec.json.encode(
                {"openapi": "3.0.0", "info": _INFO, "paths": paths, "components": {"schemas": schemas}}
            )
            self._documents[key] = Document(body, self.hash_of(key))
        return self._documents[key]

    def v2(self) -> Document:
        """`/openapi/v2`: everything in one Swagger document."""
        if self._v2 is None:
            body = msgspec.json.encode(self._swagger())
            self._v2 = Document(body, _hash(body))
        return self._v2

    def v2_binary(self) -> Document:
        """`/openapi/v2` in protobuf (media type `binary.MEDIA_TYPE`)."""
        if self._v2_binary is None:
            body = encode_v2(self._swagger())
            self._v2_binary = Document(body, _hash(body))
        return self._v2_binary

    def _swagger(self) -> dict[str, Any]:
        schemas, paths = _build([each for group in self._groups.values() for each in group], V2)
        return {"swagger": "2.0", "info": _INFO, "paths": paths, "definitions": schemas}


def _hash(data: bytes) -> str:
    return hashlib.sha512(data).hexdigest().upper()


def custom_schema_name(resource: Resource) -> str:
    """The name of a custom resource's schema: its group reversed, version and kind."""
    return ".".join([*reversed(resource.group.split(".")), resource.version, resource.kind])


def _build(described: Iterable[Described], prefix: str) -> tuple[dict[str, Any], dict[str, Any]]:
    names: set[str] = set(_ALWAYS)
    own: dict[str, Any] = {}
    paths: dict[str, Any] = {}
    for each in described:
        gvk = (each.resource.group, each.resource.version, each.resource.kind)
        if each.schema is None:
            schema = definition_names()[gvk]
            list_schema = f"{schema}List"
        else:
            schema = custom_schema_name(each.resource)
            list_schema = f"{schema}List"
            own[schema] = {**custom(each.schema.raw, prefix), "x-kubernetes-group-version-kind": [_gvk(gvk)]}
            own[list_schema] = _list_schema(each.resource, schema, prefix)
            names |= {f"{_META}ObjectMeta", f"{_META}ListMeta"}
        subresources = tuple(_subresource(each, sub, schema) for sub in each.subresources)
        resource = PublishedResource(
            each.resource, each.verbs, schema, list_schema, strategic=each.schema is None, subresources=subresources
        )
        paths.update(paths_of(resource, prefix))
        names |= {schema, list_schema, *(sub.schema for sub in subresources)}
    schemas: dict[str, Any] = {name: published(name, prefix) for name in sorted(closure(names))}
    schemas.update(own)
    return schemas, paths


def _gvk(gvk: tuple[str, str, str]) -> Mapping[str, str]:
    return {"group": gvk[0], "kind": gvk[2], "version": gvk[1]}


def _subresource(owner: Described, sub: DescribedSubresource, schema: str) -> PublishedSubresource:
    """Subresources that only connect (exec, proxy) have no schema."""
    resource = owner.resource
    if not sub.kind:
        gvk = (resource.group, resource.version, resource.kind)
        return PublishedSubresource(sub.name, frozenset(sub.verbs), gvk, schema)
    gvk = (sub.group, sub.version, sub.kind) if sub.version else (resource.group, resource.version, sub.kind)
    name = definition_names().get(gvk, "")
    return PublishedSubresource(sub.name, frozenset(sub.verbs), gvk, name if name in definitions() else "")


def _list_schema(resource: Resource, schema: str, prefix: str) -> dict[str, Any]:
    kind = f"{resource.kind}List"
    return {
        "description": f"{kind} is a list of {resource.kind}",
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"$ref": f"{prefix}{_META}ListMeta"},
            "items": {"type": "array", "items": {"$ref": f"{prefix}{schema}"}},
        },
        "x-kubernetes-group-version-kind": [{"group": resource.group, "kind": kind, "version": resource.version}],
    }
