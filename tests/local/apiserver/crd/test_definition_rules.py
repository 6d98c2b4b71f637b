"""What a CustomResourceDefinition may say: structural schemas, names, versions, columns, fields to select by."""

from __future__ import annotations

from typing import Any

import pytest

from sandlane.local.apiserver.crd.definition_rules import check_definition, default_definition
from sandlane.local.apiserver.kinds.field_errors import Faults

STR, INT = {"type": "string"}, {"type": "integer"}


def faults_of(schema: Any = None, names: Any = None, group: str = "example.test", **version: Any) -> list[str]:
    """The faults of a definition, without the beginning of their fields."""
    made = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema or {"type": "object"}}}
    obj: dict[str, Any] = {"metadata": {"name": f"things.{group}"}}
    names = {"plural": "things", "kind": "Thing"} | (names or {})
    obj["spec"] = {"group": group, "scope": "Namespaced", "names": names, "versions": [made | version]}
    default_definition(obj)
    faults = Faults()
    check_definition(faults, obj)
    start = "spec.validation.openAPIV3Schema."
    return [f"{e.field}: {e.message}".removeprefix(start).removeprefix("spec.versions[0].") for e in faults.errors]


def of_field(field: Any) -> list[str]:
    """The faults of a schema with that field `x`."""
    found = faults_of({"type": "object", "properties": {"x": field}})
    return [fault.removeprefix("properties[x].") for fault in found]


@pytest.mark.parametrize(
    ("field", "fault"),
    [
        ({}, "type: Required value: must not be empty for specified object fields"),
        ({"type": "array", "items": {}}, "items.type: Required value: must not be empty for specified array items"),
        ({"type": "array"}, "items: Required value: must be specified"),
        ({"type": "null"}, "type: Forbidden: type cannot be set to null"),
        ({"type": "set"}, 'type: Unsupported value: "set"'),
        ({"type": "string", "$ref": "#/x"}, "$ref: Forbidden: $ref is not supported"),
        ({"type": "array", "items": STR, "uniqueItems": True}, "uniqueItems: Forbidden: uniqueItems cannot be set"),
        ({"type": "object", "properties": {"a": STR}, "additionalProperties": STR}, "additionalProperties: Forbidden: additionalProperties and properties are mutual"),
        ({"type": "object", "x-kubernetes-preserve-unknown-fields": False}, "x-kubernetes-preserve-unknown-fields: Invalid value: false: must be true"),
        ({"type": "object", "x-kubernetes-embedded-resource": True}, "properties: Required value: must not be empty if x-kubernetes-embedded"),
        ({"type": "string", "x-kubernetes-list-type": "set"}, "type: Invalid value: \"string\": must be array if"),
        ({"type": "array", "items": STR, "x-kubernetes-list-type": "bag"}, 'x-kubernetes-list-type: Unsupported value: "bag"'),
        ({"type": "array", "items": STR, "x-kubernetes-list-map-keys": ["a"]}, "x-kubernetes-list-type: Required value: must be map"),
        ({"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "set"}, "items.x-kubernetes-map-type: Invalid value: \"\": must be atomic"),
        ({"type": "string", "x-kubernetes-map-type": "atomic"}, "type: Invalid value: \"string\": must be object if"),
        ({"type": "string", "anyOf": [{"type": "string"}]}, "anyOf[0].type: Forbidden: must be empty to be structural"),
        ({"type": "object", "not": {"description": "x"}}, "not.description: Forbidden: must be empty to be structural"),
        ({"type": "object", "oneOf": [{"properties": {"a": {"minLength": 1}}}]}, "properties[a]: Required value: because it is defined in"),
        ({"type": "object", "allOf": [{"additionalProperties": True}]}, "allOf[0].additionalProperties: Forbidden: must be undefined"),
        ({"type": "string", "pattern": "("}, "pattern: Invalid value: \"(\": must be a valid regular expression"),
        ({"type": "string", "pattern": "(?=a)"}, "pattern: Invalid value: \"(?=a)\": must be a valid regular expression"),
        ({"type": "integer", "default": "x"}, "default: Invalid value"),
    ],
)  # fmt: skip
def test_faults_of_schemas(field: Any, fault: str) -> None:
    """A schema that is not structural is refused, with the field and the reason."""
    found = of_field(field)
    assert len(found) == 1
    assert found[0].startswith(fault)


@pytest.mark.parametrize(
    "field",
    [
        {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]},
        {"x-kubernetes-int-or-string": True, "type": "string"},
        {"type": "object", "properties": {"a": STR}, "oneOf": [{"required": ["a"]}, {"properties": {"a": {"minLength": 2}}}]},
        {"type": "object", "properties": {"a": STR}, "additionalProperties": True},
        {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "anyOf": [{"properties": {"b": {"pattern": "x"}}}]},
        {"type": "object", "x-kubernetes-embedded-resource": True, "x-kubernetes-preserve-unknown-fields": True},
        {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "object", "x-kubernetes-map-type": "atomic"}},
    ],
)  # fmt: skip
def test_structural_schemas(field: Any) -> None:
    """What other people's definitions say is taken."""
    assert of_field(field) == []


def test_lists_with_keys() -> None:
    """The keys of a list are scalars that are always there."""
    item = {"type": "object", "properties": {"k": STR, "l": {"type": "array", "items": STR}}, "required": ["l"]}
    keyed = {"type": "array", "x-kubernetes-list-type": "map", "items": item}
    assert "list-map-keys: Required value" in of_field(keyed)[0]
    assert "names of item properties" in of_field({**keyed, "x-kubernetes-list-map-keys": ["z"]})[0]
    assert "must have a default or be a required" in of_field({**keyed, "x-kubernetes-list-map-keys": ["k"]})[0]
    assert "must be a scalar type" in of_field({**keyed, "x-kubernetes-list-map-keys": ["l"]})[0]
    assert "must be object if parent" in of_field({**keyed, "items": STR, "x-kubernetes-list-map-keys": ["k"]})[0]


def test_metadata_is_not_for_schemas() -> None:
    """Of metadata a schema may limit the name; apiVersion and kind are texts."""
    named = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 5}}}
    assert faults_of({"type": "object", "properties": {"metadata": named}}) == []
    labels = {"type": "object", "properties": {"labels": {"type": "object"}}}
    assert "must not specify anything other" in faults_of({"type": "object", "properties": {"metadata": labels}})[0]
    assert "must be string" in faults_of({"type": "object", "properties": {"kind": INT}})[0]


@pytest.mark.parametrize(
    ("version", "fault"),
    [
        ({"name": "1"}, 'name: Invalid value: "1": a DNS-1035 label'),
        ({"additionalPrinterColumns": [{"name": "a", "type": "text", "jsonPath": ".a"}]}, "additionalPrinterColumns[0].type: Invalid value: \"text\": must be one of boolean,"),
        ({"additionalPrinterColumns": [{"name": "a", "type": "string"}]}, "additionalPrinterColumns[0].JSONPath: Required value"),
        ({"subresources": {"scale": {"specReplicasPath": ".x", "statusReplicasPath": ".status.n"}}}, "subresources.scale.specReplicasPath: Invalid value: \".x\": should be a json path under .spec"),
        ({"selectableFields": [{"jsonPath": ".no"}]}, "selectableFields[0].jsonPath: Invalid value: \".no\": is an invalid path"),
        ({"selectableFields": [{"jsonPath": ".metadata.name"}]}, "selectableFields[0].jsonPath: Invalid value: \".metadata.name\": must not point"),
    ],
)  # fmt: skip
def test_faults_of_versions(version: Any, fault: str) -> None:
    """Names, columns, paths of the scale and fields to select by are checked; what all versions share is told of once."""
    found = faults_of(**version)
    assert len(found) == (2 if "name" in version else 1)
    assert found[0].removeprefix("spec.").startswith(fault)


def test_faults_of_names() -> None:
    """Names are labels, the list has a kind of its own, and groups of Kubernetes ask for approval."""
    assert "should otherwise match" in faults_of(names={"kind": "Thi_ng"})[1]
    assert "kind and listKind may not be the same" in faults_of(names={"listKind": "Thing"})[0]
    assert "shortNames[0]: Invalid value" in faults_of(names={"shortNames": ["A"]})[0]
    assert "must have approval annotation" in faults_of(group="example.k8s.io")[0]
