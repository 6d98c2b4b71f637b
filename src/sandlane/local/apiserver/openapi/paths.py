"""The paths of a resource with their operations, in the form of OpenAPI 3 or 2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from sandlane.kube.resource import Resource
from sandlane.local.apiserver.openapi.schemas import V2

_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_PATCH_TYPES = (
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
)
_QUERY = {
    "fieldSelector": "string",
    "labelSelector": "string",
    "limit": "integer",
    "continue": "string",
    "resourceVersion": "string",
    "resourceVersionMatch": "string",
    "sendInitialEvents": "boolean",
    "allowWatchBookmarks": "boolean",
    "timeoutSeconds": "integer",
    "watch": "boolean",
    "dryRun": "string",
    "fieldManager": "string",
    "fieldValidation": "string",
    "force": "boolean",
    "gracePeriodSeconds": "integer",
    "orphanDependents": "boolean",
    "propagationPolicy": "string",
}
_LIST = (
    *("allowWatchBookmarks", "continue", "fieldSelector", "labelSelector", "limit", "resourceVersion"),
    *("resourceVersionMatch", "sendInitialEvents", "timeoutSeconds", "watch"),
)
_WRITE = ("dryRun", "fieldManager", "fieldValidation")
_DELETE = ("dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy")
_BY_ACTION = {
    "list": _LIST,
    "post": _WRITE,
    "deletecollection": (*_LIST, *_DELETE),
    "get": (),
    "put": _WRITE,
    "patch": (*_WRITE, "force"),
    "delete": _DELETE,
}


class PublishedSubresource(msgspec.Struct, frozen=True):
    """A subresource: its name, verbs, group version kind, and the name of its schema (empty for unknown)."""

    name: str
    verbs: frozenset[str]
    gvk: tuple[str, str, str]
    schema: str


class PublishedResource(msgspec.Struct, frozen=True):
    """What OpenAPI says of one resource. `schema` and `list_schema` are names of schemas."""

    resource: Resource
    verbs: frozenset[str]
    schema: str
    list_schema: str
    strategic: bool = True
    subresources: tuple[PublishedSubresource, ...] = ()


def paths_of(published: PublishedResource, prefix: str) -> dict[str, Any]:
    """All paths of a resource."""
    resource = published.resource
    gvk = (resource.group, resource.version, resource.kind)
    make = _Maker(published, prefix)
    collection, verbs = resource.path("{namespace}"), published.verbs
    paths: dict[str, Any] = {}
    operations = {}
    if "list" in verbs:
        operations["get"] = make("list", "list", gvk, published.list_schema)
    if "create" in verbs:
        operations["post"] = make("create", "post", gvk, published.schema)
    if "deletecollection" in verbs:
        operations["delete"] = make("deletecollection", "deletecollection", gvk, f"{_META}Status")
    paths[collection] = operations
    if resource.namespaced and "list" in verbs:
        paths[resource.path()] = {"get": make("listAll", "list", gvk, published.list_schema)}
    item = _item_operations(make, verbs, gvk, published.schema)
    if item:
        paths[f"{collection}/{{name}}"] = item
    for each in published.subresources:
        operations = _item_operations(make, each.verbs, each.gvk, each.schema, name=each.name)
        if "create" in each.verbs and each.schema:
            operations["post"] = make(f"create_{each.name}", "post", each.gvk, each.schema)
        if operations:
            paths[f"{collection}/{{name}}/{each.name}"] = operations
    for path, operations in paths.items():
        operations["parameters"] = make.path_parameters(path)
    return paths


def _item_operations(
    make: _Maker, verbs: frozenset[str], gvk: tuple[str, str, str], schema: str, name: str = ""
) -> dict[str, Any]:
    operations = {}
    if schema:
        for verb, method in (("get", "get"), ("update", "put"), ("patch", "patch")):
            if verb in verbs:
                operations[method] = make(f"{verb}_{name}" if name else verb, method, gvk, schema)
    if "delete" in verbs and not name:
        operations["delete"] = make("delete", "delete", gvk, f"{_META}Status")
    return operations


class _Maker:
    """Makes operations of one resource."""

    def __init__(self, published: PublishedResource, prefix: str) -> None:
        self._published = published
        self._prefix = prefix

    def __call__(self, name: str, action: str, gvk: tuple[str, str, str], schema: str) -> dict[str, Any]:
        resource = self._published.resource
        group, version, kind = gvk
        scope = "Namespaced" if resource.namespaced else ""
        operation: dict[str, Any] = {
            "description": f"{name} {resource.plural}",
            "operationId": f"{name}_{resource.group or 'core'}_{resource.version}_{scope}{resource.kind}".replace(
                ".", "_"
            ),
            "tags": [f"{resource.group.partition('.')[0] or 'core'}_{resource.version}"],
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
            "parameters": [self._query(each) for each in _BY_ACTION[action]],
        }
        body = {"post": schema, "put": schema, "delete": f"{_META}DeleteOptions", "patch": f"{_META}Patch"}.get(action)
        if self._prefix == V2:
            self._finish_v2(operation, action, body, schema)
        else:
            self._finish_v3(operation, action, body, schema)
        return operation

    def _reference(self, schema: str) -> dict[str, str]:
        return {"$ref": self._prefix + schema}

    def _patch_types(self) -> list[str]:
        return [each for each in _PATCH_TYPES if self._published.strategic or "strategic" not in each]

    def _finish_v3(self, operation: dict[str, Any], action: str, body: str | None, schema: str) -> None:
        content = {"application/json": {"schema": self._reference(schema)}}
        operation["responses"] = {"200": {"description": "OK", "content": content}}
        if body:
            types = self._patch_types() if action == "patch" else ["*/*"]
            operation["requestBody"] = {"content": {each: {"schema": self._reference(body)} for each in types}}
            if action in ("post", "put"):
                operation["requestBody"]["required"] = True

    def _finish_v2(self, operation: dict[str, Any], action: str, body: str | None, schema: str) -> None:
        operation["consumes"] = self._patch_types() if action == "patch" else ["*/*"]
        operation["produces"] = ["application/json", "application/yaml"]
        operation["schemes"] = ["https"]
        operation["responses"] = {"200": {"description": "OK", "schema": self._reference(schema)}}
        if body:
            parameter: dict[str, Any] = {"in": "body", "name": "body", "schema": self._reference(body)}
            if action in ("post", "put", "patch"):
                parameter["required"] = True
            operation["parameters"] = [*operation["parameters"], parameter]

    def _query(self, name: str) -> Mapping[str, Any]:
        kind = {"type": _QUERY[name], "uniqueItems": True}
        where = {"name": name, "in": "query"}
        return {**where, **kind} if self._prefix == V2 else {**where, "schema": kind}

    def path_parameters(self, path: str) -> list[dict[str, Any]]:
        """Parameters that all operations of a path have."""
        parameters: list[dict[str, Any]] = []
        for name in ("name", "namespace"):
            if f"{{{name}}}" in path:
                where = {"name": name, "in": "path", "required": True}
                kind = {"type": "string", "uniqueItems": True}
                parameters.append({**where, **kind} if self._prefix == V2 else {**where, "schema": kind})
        return parameters
