"""ConfigMaps, Secrets, metadata and the kinds that are one object under two names."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandlane.kube.patch.values import copy_json
from sandlane.local.apiserver.kinds import conversions
from sandlane.local.apiserver.kinds.table import builtin_kinds


def test_secret(server: Any, make: Any) -> None:
    """stringData goes into data; type and, once immutable, data may not change."""
    secret = server.create(make("v1", "Secret", stringData={"u": "root"}, data={"r": "AAE="}, immutable=True))
    assert secret["data"] == {"r": "AAE=", "u": "cm9vdA=="}
    assert secret["type"] == "Opaque"
    assert "stringData" not in secret
    new = {**copy_json(secret), "type": "example.test/other", "data": {}, "immutable": False}
    assert sorted(each.field for each in server.update(secret, new)[1]) == ["data", "immutable", "type"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"data": {"bad key!": "v"}}, "data[bad key!]"),
        ({"data": {"k": "v"}, "binaryData": {"k": "AAEC"}}, "data[k]"),
        ({"data": {"..": "v"}}, "data[..]"),
        ({"data": {"k": "x" * 1_100_000}}, ""),
    ],
)
def test_invalid_config_map(server: Any, make: Any, fields: Any, expected: str) -> None:
    """Keys and size of a ConfigMap are checked."""
    _, errors = server.try_create(make("v1", "ConfigMap", **fields))
    assert [each.field for each in errors] == [expected]


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"name": "Upper_Case"}, 'metadata.name: Invalid value: "Upper_Case": a lowercase RFC 1123 subdomain must'),
        ({"name": "a" * 254}, f'metadata.name: Invalid value: "{"a" * 254}": must be no more than 253 characters'),
        ({"name": ""}, "metadata.name: Required value: name or generateName is required"),
        (
            {"name": "x", "labels": {"bad label!": "v"}},
            'metadata.labels: Invalid value: "bad label!": name part must consist',
        ),
        (
            {"name": "x", "labels": {"l": "bad value!"}},
            'metadata.labels: Invalid value: "bad value!": a valid label must be',
        ),
        (
            {"name": "x", "annotations": {"a b": "c"}},
            'metadata.annotations: Invalid value: "a b": name part must consist',
        ),
        (
            {"name": "x", "finalizers": ["odd"]},
            'metadata.finalizers[0]: Invalid value: "odd": name is neither a standard',
        ),
        (
            {"name": "x", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p"}]},
            "metadata.ownerReferences.uid",
        ),
    ],
)
def test_metadata(server: Any, make: Any, metadata: Any, message: str) -> None:
    """Faults of metadata have Kubernetes' texts."""
    obj = {**make("v1", "ConfigMap"), "metadata": metadata}
    _, errors = server.try_create(obj)
    assert f"{errors[0].field}: {errors[0].message}".startswith(message)


def test_event_round_trip() -> None:
    """An Event reads the same in its own group after it was stored as a core Event."""
    event = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": "e"},
        "regarding": {"kind": "ConfigMap", "name": "one"},
        "eventTime": "2020-01-01T00:00:00.000001Z",
        "reportingController": "example.test/conf",
        "reportingInstance": "conf-0",
        "note": "hi",
        "type": "Warning",
        "deprecatedSource": {},
        "deprecatedFirstTimestamp": None,
        "deprecatedLastTimestamp": None,
    }
    core = conversions.event_to_core(event)
    assert (core["message"], core["involvedObject"], core["reportingComponent"]) == (
        "hi",
        event["regarding"],
        "example.test/conf",
    )
    assert conversions.event_from_core(core) == event


@given(
    st.integers(1, 9),
    st.none() | st.integers(1, 100),
    st.booleans(),
)
def test_autoscaler_round_trip(maximum: int, cpu: int | None, memory: bool) -> None:
    """An autoscaler keeps everything when it is read and written through the older version."""
    metrics: list[Any] = []
    if cpu is not None:
        target: Any = {"type": "Utilization", "averageUtilization": cpu}
        metrics.append({"type": "Resource", "resource": {"name": "cpu", "target": target}})
    if memory:
        target = {"type": "AverageValue", "averageValue": "1Gi"}
        metrics.append({"type": "Resource", "resource": {"name": "memory", "target": target}})
    spec: dict[str, Any] = {"maxReplicas": maximum, "scaleTargetRef": {"kind": "Deployment", "name": "d"}}
    stored = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "h"},
        "spec": dict(spec),
    }
    if metrics:
        stored["spec"]["metrics"] = metrics  # type: ignore[index]
    older = conversions.autoscaler_to_v1(stored)
    assert older["spec"].get("targetCPUUtilizationPercentage") == cpu
    back = conversions.autoscaler_from_v1(older)
    assert (back["spec"], back["metadata"]) == (stored["spec"], stored["metadata"])


def test_every_kind_takes_a_minimal_object(server: Any, make: Any) -> None:
    """Whatever the kind, a bare object is defaulted, prepared and validated without an exception."""
    for kind in builtin_kinds():
        strategy = kind.strategy
        obj = make(kind.resource.api_version, kind.resource.kind)
        assert strategy.prune(obj) == []
        strategy.default(obj)
        strategy.prepare_create(obj, server)
        strategy.validate_create(obj)
        strategy.warnings(obj)
        again = copy_json(obj)
        strategy.prepare_update(again, obj, server)
        strategy.validate_update(again, obj)
        stored = kind.to_storage(copy_json(obj)) if kind.to_storage else obj
        shown = kind.from_storage(copy_json(stored)) if kind.from_storage else stored
        assert strategy.prune(copy_json(shown)) == []


def test_table_is_unique() -> None:
    """No group, version and plural is served twice."""
    seen = [(each.resource.group, each.resource.version, each.resource.plural) for each in builtin_kinds()]
    assert len(seen) == len(set(seen)) > 50
