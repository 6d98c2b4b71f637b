"""The CRDs say what the types say."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from sandlane.api import types as t
from sandlane.api.crd import definitions
from sandlane.local.apiserver.schema import Schema

SPECS = {"Sandbox": t.SandboxSpec, "RouteGroup": t.RouteGroupSpec, "LocalWorkload": t.LocalWorkloadSpec}


def schema_of(kind: str) -> dict[str, Any]:
    """The schema of a kind."""
    crd = next(each for each in definitions() if each["spec"]["names"]["kind"] == kind)
    found: dict[str, Any] = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def walk(schema: dict[str, Any], path: str = "") -> Any:
    """Every schema inside, with its path."""
    yield path, schema
    for name, child in (schema.get("properties") or {}).items():
        yield from walk(child, f"{path}.{name}")
    if "items" in schema:
        yield from walk(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from walk(schema["additionalProperties"], f"{path}{{}}")


@pytest.mark.parametrize("kind", SPECS)
def test_every_field_is_described_and_structural(kind: str) -> None:
    """Every field has a type and a description, so that `kubectl explain` can show it."""
    for path, schema in walk(schema_of(kind)):
        assert schema.get("type") or any(key.startswith("x-kubernetes") for key in schema), path
        if (
            path
            and not path.endswith(("[]", "{}"))
            and path not in (".apiVersion", ".kind", ".metadata", ".spec", ".status")
        ):
            assert schema.get("description"), path


@pytest.mark.parametrize("kind", SPECS)
def test_patterns_are_those_of_both_languages(kind: str) -> None:
    """Patterns compile, are anchored, and use nothing that RE2 has not."""
    for path, schema in walk(schema_of(kind)):
        if pattern := schema.get("pattern"):
            re.compile(pattern)
            assert pattern.startswith("^"), path
            assert "(?" not in pattern, path


def test_defaults_are_those_of_the_types() -> None:
    """An object that a server has defaulted decodes to the same value as one that it has not."""
    spec = {
        "forks": [
            {
                "forkOf": {"name": "route"},
                "customizations": {
                    "env": [{"name": "A", "valueFrom": {"fork": {"forkOf": {"name": "driver"}}}}],
                    "patch": {"value": {}},
                },
            }
        ],
        "local": [{"name": "l", "from": {"name": "x"}, "mappings": [{"port": 1, "to": "h:1"}]}],
        "ttl": {"duration": "2d"},
    }
    schema = schema_of("Sandbox")["properties"]["spec"]
    defaulted = with_defaults(spec, schema)
    assert defaulted != spec
    assert msgspec.convert(defaulted, t.SandboxSpec) == msgspec.convert(spec, t.SandboxSpec)


def with_defaults(value: Any, schema: dict[str, Any]) -> Any:
    """A value with the schema's defaults."""
    if isinstance(value, dict) and "properties" in schema:
        filled = {name: with_defaults(each, schema["properties"].get(name, {})) for name, each in value.items()}
        for name, child in schema["properties"].items():
            if name not in filled and "default" in child:
                filled[name] = child["default"]
        return filled
    if isinstance(value, list):
        return [with_defaults(each, schema.get("items", {})) for each in value]
    return value


@pytest.mark.parametrize("kind", SPECS)
def test_the_embedded_server_understands_the_schema(kind: str) -> None:
    """The lists that are told apart by keys are seen as such."""
    schema = Schema.from_crd(schema_of(kind))
    conditions = schema.properties["status"].properties["conditions"]
    assert conditions.list_type == "map"
    assert list(conditions.list_keys) == ["type"]


def test_matches_nest_three_levels() -> None:
    """A structural schema cannot recurse: the third level takes labels only."""
    match = schema_of("RouteGroup")["properties"]["spec"]["properties"]["match"]
    second = match["properties"]["any"]["items"]
    third = second["properties"]["all"]["items"]
    assert set(third["properties"]) == {"label"}
