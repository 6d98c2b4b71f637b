"""OpenAPI documents of built-in kinds and custom resources."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from sandlane.kube.resource import Resource
from sandlane.local.apiserver.kinds.table import ALL_VERBS, STATUS, builtin_kinds
from sandlane.local.apiserver.openapi.documents import Described, Document, OpenApi
from sandlane.local.apiserver.schema import Schema

THINGS = Resource("widgets.example.test", "v1", "things", "Thing")
SPEC = {
    "description": "What is wanted.",
    "type": "object",
    "required": ["a"],
    "properties": {
        "a": {"type": "integer", "minimum": 1, "default": 2},
        "l": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
    },
}
CRD = Schema.from_crd({"type": "object", "properties": {"spec": SPEC}})


@pytest.fixture(scope="module")
def api() -> OpenApi:
    """All built-in kinds and one custom resource."""
    described = [Described(each.resource, frozenset(each.verbs), each.subresources) for each in builtin_kinds()]
    return OpenApi([*described, Described(THINGS, frozenset(ALL_VERBS), (STATUS,), CRD)])


def load(document: Document | None) -> Any:
    """The decoded document."""
    assert document is not None
    return msgspec.json.decode(document.body)


def test_index_names_every_document(api: OpenApi) -> None:
    """Each group version has an address with the hash of its document."""
    paths = load(api.index())["paths"]
    assert {"api/v1", "apis/apps/v1", "apis/widgets.example.test/v1"} <= paths.keys()
    for key, entry in paths.items():
        document = api.v3(key)
        assert document is not None
        assert entry["serverRelativeURL"] == f"/openapi/v3/{key}?hash={document.hash}"
        assert re.fullmatch("[0-9A-F]{128}", document.hash)
    assert api.v3("apis/nope/v1") is None


def test_documents_are_closed(api: OpenApi) -> None:
    """Every reference in every document has its target there, in both versions."""
    for key in load(api.index())["paths"]:
        document = api.v3(key)
        assert document is not None
        references = set(re.findall(rb'"#/components/schemas/([^"]+)"', document.body))
        assert references <= {name.encode() for name in load(document)["components"]["schemas"]}
    references = set(re.findall(rb'"#/definitions/([^"]+)"', api.v2().body))
    assert references <= {name.encode() for name in load(api.v2())["definitions"]}


def test_builtin_schema(api: OpenApi) -> None:
    """References are wrapped in allOf with a default, list markers are there, kind and apiVersion are free."""
    document = load(api.v3("apis/apps/v1"))
    schemas = document["components"]["schemas"]
    deployment = schemas["io.k8s.api.apps.v1.Deployment"]
    assert deployment["properties"]["spec"]["allOf"] == [
        {"$ref": "#/components/schemas/io.k8s.api.apps.v1.DeploymentSpec"}
    ]
    assert deployment["x-kubernetes-group-version-kind"] == [{"group": "apps", "kind": "Deployment", "version": "v1"}]
    container = schemas["io.k8s.api.core.v1.Container"]["properties"]
    assert container["imagePullPolicy"]["enum"] == ["Always", "IfNotPresent", "Never"]
    assert "enum" not in deployment["properties"]["kind"]
    assert schemas["io.k8s.api.core.v1.ContainerPort"]["properties"]["protocol"]["default"] == "TCP"
    operations = document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]
    assert {each["name"] for each in operations["patch"]["parameters"]} >= {"dryRun", "fieldValidation", "force"}
    assert operations["patch"]["x-kubernetes-group-version-kind"] == {
        "group": "apps",
        "version": "v1",
        "kind": "Deployment",
    }
    scale = document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"]["get"]
    assert scale["x-kubernetes-group-version-kind"] == {"group": "autoscaling", "version": "v1", "kind": "Scale"}


def test_custom_schema(api: OpenApi) -> None:
    """A custom resource's schema is published as it was written, under its reversed group."""
    document = load(api.v3("apis/widgets.example.test/v1"))
    thing = document["components"]["schemas"]["test.example.widgets.v1.Thing"]
    assert thing["properties"]["spec"] == SPEC
    path = "/apis/widgets.example.test/v1/namespaces/{namespace}/things"
    assert document["paths"][path]["get"]["x-kubernetes-action"] == "list"
    patch = document["paths"][f"{path}/{{name}}"]["patch"]
    assert "application/strategic-merge-patch+json" not in patch["requestBody"]["content"]
    assert (
        "default"
        not in load(api.v2())["definitions"]["test.example.widgets.v1.Thing"]["properties"]["spec"]["properties"]["a"]
    )


def test_hash_follows_the_schema() -> None:
    """Another schema has another hash; the same one keeps it."""
    key = "apis/widgets.example.test/v1"
    other = Schema.from_crd({"type": "object"})
    hashes = [OpenApi([Described(THINGS, frozenset(ALL_VERBS), (), each)]).hash_of(key) for each in (CRD, CRD, other)]
    assert hashes[0] == hashes[1] != hashes[2]
