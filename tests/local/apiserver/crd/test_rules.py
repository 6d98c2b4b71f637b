"""CEL rules of custom resources: what definitions may say, and what objects are told."""

from __future__ import annotations

from typing import Any

import pytest

from sandlane.local.apiserver.crd.cel_rules import check, resolve_path
from sandlane.local.apiserver.crd.definition_rules import check_definition, default_definition
from sandlane.local.apiserver.kinds.field_errors import Faults
from sandlane.local.apiserver.schema import Schema

INT, STR = {"type": "integer"}, {"type": "string"}
NUMBERS = {"type": "array", "items": INT}


def spec(properties: Any, *rules: Any, **more: Any) -> dict[str, Any]:
    """The schema of an object with a spec that has rules."""
    below = {"type": "object", "properties": properties, "x-kubernetes-validations": list(rules), **more}
    return {"type": "object", "properties": {"spec": below}}


def faults_of(schema: dict[str, Any]) -> list[str]:
    """What is wrong with a definition of that schema: `field: message`."""
    versions = [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}]
    names = {"plural": "things", "kind": "Thing"}
    obj: dict[str, Any] = {"metadata": {"name": "things.example.test"}}
    obj["spec"] = {"group": "example.test", "scope": "Namespaced", "names": names, "versions": versions}
    default_definition(obj)
    faults = Faults()
    check_definition(faults, obj)
    return [f"{error.field.rpartition('x-kubernetes-validations')[2]}: {error.message}" for error in faults.errors]


def told(schema: dict[str, Any], value: Any, old: Any = None) -> list[str]:
    """What the author of an object is told."""
    errors: list[Any] = []
    check(value, Schema.from_crd(schema), "", errors, old, old is not None)
    return [f"{error.field}: {error.message}" for error in errors]


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ({"rule": "self.a > 'x'"}, "found no matching overload for '_>_' applied to '(int, string)'"),
        ({"rule": "self.a == self.b"}, "found no matching overload for '_==_' applied to '(int, string)'"),
        (
            {"rule": "self.no > 1"},
            '[0].rule: Invalid value: {"Rule":"self.no \\u003e 1","Message":"","MessageExpression":"","Reason":null,',
        ),
        ({"rule": "self.no == 1"}, "undefined field 'no'"),
        ({"rule": "self.u.x == 1"}, "undefined field 'x'"),
        ({"rule": "self.a"}, "must evaluate to a bool"),
        ({"rule": " "}, "[0].rule: Required value: rule is not specified"),
        ({"rule": "true", "messageExpression": "self.a"}, "messageExpression must evaluate to a string"),
        ({"rule": "true", "message": "a\nb"}, ": must not contain line breaks"),
        ({"rule": "true &&\ntrue"}, "message must be specified if rule contains line breaks"),
        ({"rule": "true", "reason": "No"}, 'Unsupported value: "No"'),
        ({"rule": "true", "fieldPath": ".zz"}, '.fieldPath: Invalid value: ".zz": must be a valid path'),
        ({"rule": "true", "fieldPath": "a"}, '.fieldPath: Invalid value: "a": must be a valid path'),
        ({"rule": "true", "optionalOldSelf": True}, "may not be set if oldSelf is not used in rule"),
        ({"rule": "self.l.all(x, self.l.all(y, x != y))"}, "estimated rule cost exceeds budget by factor of more"),
    ],
)
def test_faults_of_rules(rule: dict[str, Any], wanted: str) -> None:
    """A rule that cannot work is a fault of the definition, which says where and why."""
    free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    found = faults_of(spec({"a": INT, "b": STR, "l": NUMBERS, "u": free}, rule))
    assert len(found) == (3 if "cost" in wanted else 1)  # the sum of all rules is over its own limit, too
    assert wanted in found[0]


def test_limits_make_rules_cheap() -> None:
    """What was too much without a limit is fine with one; a rule on items counts once for each."""
    pairs = {"rule": "self.l.all(x, self.l.all(y, x != y))"}
    assert faults_of(spec({"l": {**NUMBERS, "maxItems": 100}}, pairs)) == []
    every = {"type": "array", "items": {**STR, "maxLength": 500, "x-kubernetes-validations": [{"rule": "self.contains('abcdefghijklmnopqrstuvwxyz')"}]}}  # fmt: skip
    assert "estimated rule cost exceeds" in faults_of(spec({"l": every}))[0]
    assert faults_of(spec({"l": {**every, "maxItems": 100}})) == []


@pytest.mark.parametrize(
    ("field", "rule"),
    [
        ({"l": NUMBERS}, "(has(self.l) ? self.l : []).size() < 3"),
        ({"l": NUMBERS}, "(has(self.l) ? self.l : []).exists(x, x > 1)"),
        ({"l": NUMBERS}, "([] + self.l).all(x, x > 1)"),
        ({"m": {"type": "object", "additionalProperties": STR}}, "(has(self.m) ? self.m : {}).size() > 0"),
        ({"m": {"type": "object", "additionalProperties": STR, "maxProperties": 16}}, "self.m.all(key, key.matches('^[a-z]+([-a-z0-9]*)[.]?/?$'))"),
        ({"m": {"type": "object", "additionalProperties": STR, "maxProperties": 16}}, 'self.m.all(key, key.split("/")[0].size() < 253)'),
        ({"l": {"type": "array", "items": {"type": "object", "properties": {"a": STR, "b": STR}, "x-kubernetes-validations": [
            {"rule": "!(has(self.a) && has(self.b) && duration(self.a) != duration('0s') && duration(self.b) > duration(self.a))"}]}}}, "true"),
    ],
)  # fmt: skip
def test_rules_of_widely_used_definitions(field: dict[str, Any], rule: str) -> None:
    """Empty lists and maps are of any type; keys of maps and conversions cost no more than upstream says."""
    assert faults_of(spec(field, {"rule": rule})) == []


def test_old_values_in_lists_without_keys() -> None:
    """Nobody knows the old value of an item of an atomic list; of a list with keys it is known."""
    rule = [{"rule": "self.n >= oldSelf.n"}]
    item = {"type": "object", "properties": {"k": STR, "n": INT}, "required": ["k"], "x-kubernetes-validations": rule}
    plain = {"type": "array", "maxItems": 5, "items": item}
    keyed = {**plain, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]}
    assert "uncorrelatable portion of the schema" in faults_of(spec({"l": plain}))[0]
    schema = spec({"l": keyed})
    assert faults_of(schema) == []
    old = {"spec": {"l": [{"k": "a", "n": 2}, {"k": "b", "n": 2}]}}
    new = {"spec": {"l": [{"k": "b", "n": 1}, {"k": "c", "n": 1}, {"k": "a", "n": 3}]}}
    assert told(schema, new, old) == ["spec.l[0]: Invalid value: failed rule: self.n >= oldSelf.n"]


@pytest.mark.parametrize(
    ("properties", "rule", "value"),
    [
        ({"t": {**STR, "format": "date-time"}}, "self.t.getFullYear() == 2020", {"t": "2020-01-01T00:00:00Z"}),
        ({"t": {**STR, "format": "date"}}, "self.t < timestamp('2021-01-01T00:00:00Z')", {"t": "2020-01-01"}),
        ({"d": {**STR, "format": "duration"}}, "self.d > duration('1m')", {"d": "2m"}),
        ({"b": {**STR, "format": "byte"}}, "self.b == b'a'", {"b": "YQ=="}),
        ({"n": {"type": "number"}}, "self.n / 2.0 == 0.5", {"n": 1}),
        ({"x": {"x-kubernetes-int-or-string": True}}, "type(self.x) == int ? self.x > 0 : self.x == 'a'", {"x": "a"}),
        ({"namespace": STR, "x-y": INT}, "self.__namespace__ == 'n' && self.x__dash__y == 1", {"namespace": "n", "x-y": 1}),
        ({"m": {"type": "object", "additionalProperties": INT}}, "self.m['k'] == 1 && self.m.all(k, v, v == 1)", {"m": {"k": 1}}),
        ({"s": {"type": "array", "items": STR, "x-kubernetes-list-type": "set"}}, "self.s == ['b', 'a'] && self.s + ['a'] == ['a', 'b']", {"s": ["a", "b"]}),
        ({"n": {**INT, "nullable": True}}, "has(self.n) && self.n == null", {"n": None}),
    ],
)  # fmt: skip
def test_values_have_the_types_of_their_schema(properties: Any, rule: str, value: Any) -> None:
    """Formats, numbers, sets, maps and names that are no identifiers are what Kubernetes makes of them."""
    schema = spec(properties, {"rule": rule})
    assert [fault for fault in faults_of(schema) if "cost" not in fault] == []
    assert told(schema, {"spec": value}) == []


def test_of_metadata_the_name_alone() -> None:
    """Rules at the root see the name of the object, and no more of its metadata."""
    schema = {"type": "object", "x-kubernetes-validations": [{"rule": "self.metadata.name == 'a'"}]}
    assert faults_of(schema) == []
    assert told(schema, {"metadata": {"name": "a"}}) == []
    schema["x-kubernetes-validations"] = [{"rule": "has(self.metadata.labels)"}]
    assert "undefined field 'labels'" in faults_of(schema)[0]


def test_what_objects_are_told() -> None:
    """Message, messageExpression, reason and path; an expression without a value says why."""
    named = {"type": "object", "additionalProperties": {"type": "integer", "x-kubernetes-validations": [{"rule": "self > 0"}]}}  # fmt: skip
    rules = [
        {"rule": "self.a < 5", "messageExpression": "'a is ' + string(self.a)", "fieldPath": ".a", "reason": "FieldValueForbidden"},
        {"rule": "self.a < 5", "messageExpression": "string(self.b)", "message": " plain "},
        {"rule": "self.b < 5"},
        {"rule": "self.a / 0 == 1", "message": "never"},
    ]  # fmt: skip
    schema = spec({"a": INT, "b": INT, "m": named}, *rules)
    assert told(schema, {"spec": {"a": 7, "m": {"x y": 0}}}) == [
        "spec.a: Forbidden: a is 7",
        "spec: Invalid value: plain",
        'spec: Invalid value: "object": no such key: b evaluating rule: self.b < 5',
        'spec: Invalid value: "object": division by zero evaluating rule: never',
        "spec.m[x y]: Invalid value: 0: failed rule: self > 0",
    ]


@pytest.mark.parametrize(("old", "value", "good"), [(None, "a", True), ("a", "a", True), ("a", "b", False)])
def test_an_optional_old_value(old: str | None, value: str, good: bool) -> None:
    """A rule with `optionalOldSelf` also runs where there is no old value, and can ask for it."""
    rules = [
        {"rule": "!oldSelf.hasValue() || self == oldSelf.value()", "optionalOldSelf": True},
        {"rule": "oldSelf.optMap(was, was == self).orValue(true)", "optionalOldSelf": True},
    ]
    errors: list[Any] = []
    schema = Schema({"type": "string", "x-kubernetes-validations": rules})
    check(value, schema, "spec.x", errors, old, updating=old is not None)
    assert len(errors) == (0 if good else 2)


def test_budget_of_an_object() -> None:
    """Many rules that are fine one by one do not run on when they take too long together; the object is refused."""
    item = {**NUMBERS, "x-kubernetes-validations": [{"rule": "self.all(a, self.all(b, a == b))"}]}
    schema = spec({"lists": {"type": "array", "items": item}})
    assert told(schema, {"spec": {"lists": [[1] * 10] * 20}}) == []
    found = told(schema, {"spec": {"lists": [[1] * 250] * 30}})
    assert len(found) == 1
    assert "running out of cost budget" in found[0]


def test_paths_of_fields() -> None:
    """Names in brackets and keys of maps are paths of fields, too."""
    schema = Schema({"type": "object", "properties": {"a-b": {"type": "object", "additionalProperties": INT}}})
    assert resolve_path("['a-b'].x", schema) == ".a-b[x]"
    with pytest.raises(ValueError, match="does not refer to a valid field"):
        resolve_path(".c", schema)
