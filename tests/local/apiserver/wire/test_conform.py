"""What kube-apiserver keeps of JSON values."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandlane.local.apiserver.schema import definitions
from sandlane.local.apiserver.wire.conform import DecodeError, conform
from sandlane.local.apiserver.wire.types import fields_of, known

CORE = "io.k8s.api.core.v1."
DEPLOYMENT = "io.k8s.api.apps.v1.Deployment"


def test_go_round_trip() -> None:
    """Empty optional values vanish, values behind a pointer stay, structs and required values are always there."""
    obj = {
        "metadata": {"name": "d", "labels": {}, "creationTimestamp": None, "finalizers": []},
        "spec": {"replicas": 0, "paused": False, "minReadySeconds": 0, "selector": {}, "template": {"spec": {}}},
    }
    result, unknown = conform(obj, DEPLOYMENT)
    assert unknown == []
    assert result == {
        "metadata": {"name": "d"},
        "spec": {
            "replicas": 0,
            "selector": {},
            "template": {"metadata": {}, "spec": {"containers": None}},
            "strategy": {},
        },
        "status": {},
    }


def test_unknown_fields_are_named_in_document_order() -> None:
    """Unknown fields are dropped; each is named by its path, inner ones where they stand."""
    obj = {
        "spec": {"template": {"spec": {"containers": [{"name": "a", "imagee": "x"}], "bad": 1}}, "nonsense": 1},
        "z": 0,
    }
    result, unknown = conform(obj, DEPLOYMENT)
    assert unknown == ["spec.template.spec.containers[0].imagee", "spec.template.spec.bad", "spec.nonsense", "z"]
    assert "nonsense" not in result["spec"]


def test_inlined_types() -> None:
    """Fields of inlined types stand among the outer type's own: volume sources, probe handlers, references."""
    pod = {"volumes": [{"name": "v", "emptyDir": {}, "oddDir": {}}], "containers": []}
    result, unknown = conform(pod, "io.k8s.api.core.v1.PodSpec")
    assert result["volumes"] == [{"name": "v", "emptyDir": {}}]
    assert unknown == ["volumes[0].oddDir"]


def test_canonical_forms() -> None:
    """Quantities and times come back in one form; numbers will do for quantities."""
    limits = {"limits": {"cpu": 0.5, "memory": "1024Ki", "x": 1}}
    assert conform(limits, "io.k8s.api.core.v1.ResourceRequirements")[0]["limits"] == {
        "cpu": "500m",
        "memory": "1Mi",
        "x": "1",
    }
    lease = {"spec": {"renewTime": "2020-01-01T01:00:01.500000+01:00"}}
    assert conform(lease, "io.k8s.api.coordination.v1.Lease")[0]["spec"]["renewTime"] == "2020-01-01T00:00:01.500000Z"
    meta = {"deletionTimestamp": "2020-01-01T01:00:00.7+01:00"}
    assert conform(meta, "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")[0] == {
        "deletionTimestamp": "2020-01-01T00:00:00Z"
    }


@pytest.mark.parametrize(
    ("obj", "definition", "message"),
    [
        (
            {"spec": {"replicas": "three"}},
            DEPLOYMENT,
            "string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        ({"spec": {"paused": "no"}}, DEPLOYMENT, "string into Go struct field DeploymentSpec.spec.paused of type bool"),
        ({"spec": {"replicas": 3_000_000_000}}, DEPLOYMENT, "number 3000000000 into"),
        ({"spec": {"replicas": True}}, DEPLOYMENT, "bool into"),
        ({"spec": []}, DEPLOYMENT, "array into Go struct field Deployment.spec of type v1.DeploymentSpec"),
        ({"env": [{"value": 1}]}, f"{CORE}Container", "number into Go struct field EnvVar.env.value of type string"),
        ({"data": {"a": 1}}, f"{CORE}ConfigMap", "number into Go struct field ConfigMap.data of type string"),
        ({"data": {"a": "not base64!"}}, f"{CORE}Secret", "illegal base64 data"),
        ({"spec": {"renewTime": "2020-01-01T00:00:01.5Z"}}, "io.k8s.api.coordination.v1.Lease", "parsing time"),
        ({"hard": {"cpu": "1X"}}, f"{CORE}ResourceQuotaSpec", "quantities must match"),
        ({"limits": []}, f"{CORE}ResourceRequirements", r"of type map\[string\]string"),
        ({"ports": {}}, f"{CORE}Container", r"of type \[\]v1.ContainerPort"),
    ],
)
def test_wrong_types(obj: Any, definition: str, message: str) -> None:
    """A value of the wrong type is refused with the text of Go's decoder."""
    with pytest.raises(DecodeError, match=message):
        conform(obj, definition)


def test_table_agrees_with_openapi() -> None:
    """The table of fields names the same fields as the published OpenAPI definitions."""

    def names(definition: str) -> set[str]:
        return {
            name
            for field in fields_of(definition)
            for name in (names(field.type[1:]) if field.inline else {field.name})
        }

    checked = 0
    for name, raw in definitions().items():
        if known(name):
            assert names(name) == set(raw.get("properties", {})), name
            checked += 1
    assert checked > 400


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["metadata", "spec", "template", "containers", "replicas", "name", "x"]), inner, max_size=3
        )
    ),
    max_leaves=10,
)


@given(VALUES)
def test_never_anything_but_a_decode_error(value: Any) -> None:
    """Whatever comes, the answer is an object or a DecodeError, and a second pass changes nothing."""
    try:
        once, _ = conform(value, DEPLOYMENT)
    except DecodeError:
        return
    assert conform(once, DEPLOYMENT) == (once, [])
