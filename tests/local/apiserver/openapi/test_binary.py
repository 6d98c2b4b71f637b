"""The Swagger document in protobuf, read back with the reader of request bodies."""

from __future__ import annotations

from typing import Any

from sandlane.local.apiserver.kinds.table import builtin_kinds
from sandlane.local.apiserver.openapi.documents import Described, OpenApi
from sandlane.local.apiserver.protobuf.reader import read_fields


def fields(data: Any, number: int) -> list[Any]:
    """All values of one field."""
    return [value for each, _, value in read_fields(memoryview(data)) if each == number]


def named(data: Any, number: int) -> dict[str, Any]:
    """Pairs of name and value."""
    return {str(fields(each, 1)[0], "utf-8"): fields(each, 2)[0] for each in fields(data, number)}


def test_document() -> None:
    """Definitions keep types, references, required fields and extensions; paths their operations and parameters."""
    api = OpenApi(Described(each.resource, frozenset(each.verbs), each.subresources) for each in builtin_kinds())
    body = api.v2_binary().body
    assert fields(body, 1) == [b"2.0"]
    definitions = named(fields(body, 9)[0], 1)
    deployment = definitions["io.k8s.api.apps.v1.Deployment"]
    properties = named(fields(deployment, 25)[0], 1)
    assert fields(properties["spec"], 1) == [b"#/definitions/io.k8s.api.apps.v1.DeploymentSpec"]
    assert fields(fields(properties["kind"], 22)[0], 1) == [b"string"]
    extension = named(deployment, 31)["x-kubernetes-group-version-kind"]
    assert fields(extension, 2) == [b'[{"group":"apps","kind":"Deployment","version":"v1"}]']
    assert fields(definitions["io.k8s.api.core.v1.ContainerPort"], 19) == [b"containerPort"]
    path = named(fields(body, 8)[0], 2)["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]
    patch = fields(path, 8)[0]
    names = {str(fields(query, 4)[0], "utf-8") for query in _query_parameters(patch)}
    assert names == {"dryRun", "fieldManager", "fieldValidation", "force"}
    kind = named(patch, 13)["x-kubernetes-group-version-kind"]
    assert fields(kind, 2) == [b'{"group":"apps","version":"v1","kind":"Deployment"}']


def _query_parameters(operation: Any) -> list[Any]:
    found = []
    for item in fields(operation, 8):
        for plain in fields(fields(item, 1)[0], 2):
            found += fields(plain, 3)
    return found
