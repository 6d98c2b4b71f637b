"""Views over OpenAPI schemas: built-in definitions and those of custom resources."""

from __future__ import annotations

import msgspec

from sandlane.local.apiserver.schema import Schema, definition_names

DEPLOYMENT = "io.k8s.api.apps.v1.Deployment"


def test_builtin_list_markers() -> None:
    """List type, keys and strategic merge markers of a built-in list are known, also beside a reference."""
    pod = Schema.builtin(DEPLOYMENT).properties["spec"].properties["template"].properties["spec"]
    containers = pod.properties["containers"]
    assert (containers.type, containers.list_type, containers.list_keys) == ("array", "map", ("name",))
    assert (containers.merge_key, containers.merge_strategy) == ("name", {"merge"})
    assert pod.properties["volumes"].merge_strategy == {"merge", "retainKeys"}
    assert containers.items is not None
    ports = containers.items.properties["ports"].items
    assert ports is not None
    assert ports.properties["protocol"].default == "TCP"
    assert ports.properties["name"].default is msgspec.UNSET


def test_builtin_scalars_with_own_marshallers() -> None:
    """Quantities, IntOrString and free-form values are marked as such."""
    container = Schema.builtin("io.k8s.api.core.v1.Container")
    limits = container.properties["resources"].properties["limits"].additional
    assert limits is not None
    assert (limits.int_or_string, limits.format) == (True, "quantity")
    surge = Schema.builtin("io.k8s.api.apps.v1.RollingUpdateDeployment").properties["maxSurge"]
    assert (surge.int_or_string, surge.format) == (True, "int-or-string")
    assert Schema.builtin("io.k8s.apimachinery.pkg.runtime.RawExtension").preserve_unknown


def test_builtin_views_are_shared() -> None:
    """A definition is viewed once, whoever asks, and may refer to itself."""
    assert Schema.builtin(DEPLOYMENT) is Schema.builtin(DEPLOYMENT)
    props = Schema.builtin("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps")
    assert props.properties["not"].properties["not"] is not None
    assert props.properties["properties"].additional is props


def test_definition_names() -> None:
    """Each built-in group, version and kind finds its definition."""
    assert definition_names()["apps", "v1", "Deployment"] == DEPLOYMENT
    assert definition_names()["", "v1", "Pod"] == "io.k8s.api.core.v1.Pod"


def test_custom_resource() -> None:
    """A custom resource's schema gets the fields of every object, and so does an object embedded in it."""
    schema = Schema.from_crd(
        {
            "type": "object",
            "properties": {
                "metadata": {"type": "object"},
                "spec": {
                    "type": "object",
                    "nullable": True,
                    "properties": {
                        "n": {"type": "integer", "default": 3, "enum": [1, 3]},
                        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                        "inner": {"type": "object", "x-kubernetes-embedded-resource": True},
                        "any": {"type": "object", "additionalProperties": True},
                    },
                },
            },
        }
    )
    assert schema.properties["metadata"].properties["finalizers"].list_type == "set"
    spec = schema.properties["spec"]
    assert spec.nullable
    assert (spec.properties["n"].default, spec.properties["n"].enum) == (3, (1, 3))
    assert spec.properties["free"].preserve_unknown
    assert "metadata" in spec.properties["inner"].properties
    assert spec.properties["any"].additional is not None
    assert spec.properties["any"].additional.preserve_unknown
