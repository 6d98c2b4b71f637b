"""Values of custom resources that their schema does not allow: what is told, as kube-apiserver tells it."""

from __future__ import annotations

from typing import Any

import pytest

from sandlane.kube.resource import Resource
from sandlane.local.apiserver.crd.strategy import CustomStrategy
from sandlane.local.apiserver.schema import Schema

STR, INT32 = {"type": "string"}, {"type": "integer", "format": "int32"}
KEYED = {
    "type": "array",
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["name"],
    "items": {"type": "object", "properties": {"name": STR}, "required": ["name"]},
}
EITHER = [{"required": ["a"]}, {"properties": {"b": {"required": ["c"]}}, "required": ["b", "c"]}]


def thing(spec: Any, **metadata: Any) -> dict[str, Any]:
    """An object with a spec."""
    return {"metadata": {"name": "t", **metadata}, "spec": spec}


def strategy(spec: dict[str, Any], **more: Any) -> CustomStrategy:
    """The rules of a resource whose spec has that schema."""
    schema = {"type": "object", "properties": {"spec": spec}}
    return CustomStrategy(
        Resource("x.test", "v1", "things", "Thing", True), Schema.from_crd(schema), status=True, **more
    )


@pytest.mark.parametrize(
    ("schema", "value", "told"),
    [
        (
            {"type": "string", "enum": ["x"]},
            1,
            [
                'spec: Invalid value: "integer": spec in body must be of type string: "integer"',
                'spec: Unsupported value: 1: supported values: "x"',
            ],
        ),
        (INT32, {}, ['spec: Invalid value: "": spec in body must be of type int32: ""']),
        (
            INT32,
            1.5,
            [
                'spec: Invalid value: "float64": spec in body must be of type int32: "float64"',
                '<nil>: Invalid value: "": Checked value must be of type integer with format int32 in spec',
            ],
        ),
        (
            {"type": "string", "format": "date-time"},
            7,
            ['spec: Invalid value: "int64": spec in body must be of type date-time: "int64"'],
        ),
        ({"type": "string", "format": "date-time"}, [1], []),
        (
            KEYED,
            [1],
            [
                "spec[0]: Invalid value: 1: must be an object for an array of list-type map",
                'spec[0]: Invalid value: "integer": spec[0] in body must be of type object: "integer"',
            ],
        ),
        ({"type": "array", "maxItems": 1, "items": STR}, ["a", "b"], ["spec: Too many: 2: must have at most 1 item"]),
        ({"type": "string", "maxLength": 1}, "ab", ["spec: Too long: may not be more than 1 byte"]),
        (
            {"type": "object", "properties": {"b": {"type": "object"}}, "oneOf": EITHER},
            {},
            [
                '<nil>: Invalid value: "": "spec" must validate one and only one schema (oneOf). Found none valid',
                "spec.a: Required value",
            ],
        ),
        (
            {"type": "object", "properties": {"b": {"type": "object"}}, "anyOf": EITHER},
            {"b": {}},
            [
                '<nil>: Invalid value: "": "spec" must validate at least one schema (anyOf)',
                "spec.c: Required value",
                "spec.b.c: Required value",
            ],
        ),
    ],
)
def test_what_a_value_is_told(schema: dict[str, Any], value: Any, told: list[str]) -> None:
    """All that is wrong, with the alternative that came nearest, in the words of kube-apiserver."""
    errors = strategy(schema).validate_create(thing(value))
    assert [f"{error.field}: {error.message}" for error in errors] == told


def test_finalizers_of_custom_resources_may_have_plain_names() -> None:
    """As many controllers have them: a warning, no refusal."""
    rules = strategy({"type": "object"})
    obj = thing({}, finalizers=["finalizer.example.test", "example.test/f"])
    assert rules.validate_create(obj) == []
    assert [each.split(":")[1] for each in rules.warnings(obj)] == [' "finalizer.example.test"']


def test_no_map_where_a_path_of_scale_leads_through() -> None:
    """The subresource `scale` cannot be served then, and the author hears why."""
    rules = strategy({"x-kubernetes-preserve-unknown-fields": True}, scale=(".spec.replicas", ".status.replicas", ""))
    errors = rules.validate_create(thing([None]))
    why = ".spec.replicas accessor error: [<nil>] is of the type []interface {}, expected map[string]interface{}"
    assert [error.message for error in errors] == [f"Invalid value: 0: {why}"]


def test_rules_wait_for_good_metadata() -> None:
    """Where metadata is not good, the author is told that rules were not asked."""
    rules = strategy({"type": "object", "x-kubernetes-validations": [{"rule": "false"}]})
    errors = rules.validate_create({"metadata": {}, "spec": {}})
    assert [error.field for error in errors] == ["metadata.name", "<nil>"]
