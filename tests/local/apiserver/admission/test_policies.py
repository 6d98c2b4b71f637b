"""ValidatingAdmissionPolicies: what is refused when they are written, what their status says, what they do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from sandlane.kube.errors import ApiError
from sandlane.kube.resource import CONFIG_MAPS, Resource
from sandlane.testing.cluster import FakeCluster

Object = dict[str, Any]
VERSION = "admissionregistration.k8s.io/v1"
POLICY = Resource(
    "admissionregistration.k8s.io", "v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy", False
)
AUTOSCALERS = Resource("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", True)


@pytest.fixture
async def cluster() -> AsyncIterator[FakeCluster]:
    """A cluster with the namespace `d`."""
    async with FakeCluster() as made:
        await made.ensure_namespace("d")
        yield made


def rule(group: str, version: str, *resources: str) -> Object:
    """A rule for what is written of some resources."""
    return {"apiGroups": [group], "apiVersions": [version], "operations": ["*"], "resources": list(resources)}


def policy(*rules: Object, **spec: Any) -> Object:
    """A policy that asks for something harmless unless told otherwise."""
    spec = {"matchConstraints": {"resourceRules": list(rules)}, "validations": [{"expression": "true"}]} | spec
    return {"apiVersion": VERSION, "kind": POLICY.kind, "metadata": {"name": "p"}, "spec": spec}


def binding(**spec: Any) -> Object:
    """A binding that denies."""
    spec = {"policyName": "p", "validationActions": ["Deny"]} | spec
    return {"apiVersion": VERSION, "kind": f"{POLICY.kind}Binding", "metadata": {"name": "b"}, "spec": spec}


MAPS = rule("", "v1", "configmaps")
FAULTS: list[tuple[Object, str]] = [
    (policy(), "spec.matchConstraints.resourceRules: Required value"),
    (policy(MAPS | {"operations": ["READ"]}), 'resourceRules[0].operations[0]: Unsupported value: "READ"'),
    (policy(MAPS | {"operations": ["*", "CREATE"]}), "if '*' is present, must not specify other operations"),
    (policy(MAPS | {"apiGroups": []}), "spec.matchConstraints.resourceRules[0].apiGroups: Required value"),
    (policy(MAPS, paramKind={"apiVersion": "v1", "kind": "Config Map"}), "may have mixed case, but should otherwise"),
    (policy(MAPS, variables=[{"name": "a-b", "expression": "1"}]), "must be a valid CEL identifier"),
    (
        policy(MAPS, variables=[{"name": "a", "expression": "'x'"}, {"name": "b", "expression": "variables.a + 1"}]),
        "found no matching overload for '_+_' applied to '(string, int)'",
    ),
    (policy(MAPS, validations=[{"expression": "true", "message": "a\nb"}]), ": must not contain line breaks"),
    (policy(MAPS, validations=[{"expression": "object.data.x"}]), "must evaluate to bool but got dyn"),
    (policy(MAPS, validations=[{"expression": "true", "reason": "Nope"}]), 'reason: Unsupported value: "Nope"'),
    (policy(MAPS, validations=[{"expression": "namespaceObject.nope == ''"}]), "undefined field 'nope'"),
    (policy(MAPS, auditAnnotations=[{"key": "a b", "valueExpression": "'x'"}]), "spec.auditAnnotations[0].key: Invalid"),
    (policy(MAPS, auditAnnotations=[{"key": "k", "valueExpression": "1"}]), "must evaluate to one of [string null_type] but got int"),
    (binding(validationActions=["Deny", "Warn"]), "must not contain both Deny and Warn"),
    (binding(validationActions=[]), "at least one validation action is required"),
    (binding(paramRef={"parameterNotFoundAction": "Deny"}), "one of name or selector must be specified"),
    (binding(paramRef={"name": "x"}), "spec.paramRef.parameterNotFoundAction: Required value"),
]  # fmt: skip


@pytest.mark.parametrize(("obj", "why"), FAULTS)
async def test_what_cannot_work_is_refused(cluster: FakeCluster, obj: Object, why: str) -> None:
    """A policy or binding with a fault is not written; the fault is named with its field."""
    with pytest.raises(ApiError) as caught:
        await cluster.add(obj)
    assert caught.value.status == 422
    assert why in str(caught.value)


async def test_types_of_objects_give_warnings(cluster: FakeCluster) -> None:
    """What the matched kinds have no field for is told in the status, for each generation once; the policy stands."""
    rules = rule("apps", "v1", "deployments", "*/scale"), rule("batch", "v1", "cronjobs")
    made = policy(
        *rules,
        variables=[{"name": "n", "expression": "object.spec.replicas"}],
        validations=[
            {"expression": "variables.n > 1", "messageExpression": "'at ' + string(object.metadata.creationTimestamp)"},
            {"expression": "object.spec.template.spec.containers.all(c, c.resources.limits['cpu'] != '0')"},
            {"expression": "object.spec.nope == 1"},
        ],
    )
    assert (await cluster.add(made))["status"] == {}
    status = (await cluster.client.get(POLICY, "p"))["status"]
    assert status["observedGeneration"] == 1
    found = {each["fieldRef"]: each["warning"] for each in status["typeChecking"]["expressionWarnings"]}
    assert list(found) == [f"spec.validations[{index}].expression" for index in (1, 2)]
    assert found["spec.validations[1].expression"].startswith(
        "apps/v1, Kind=Deployment: ERROR: <input>:1:56: undefined field 'limits'\n | object.spec"
    )
    assert [line for line in found["spec.validations[2].expression"].splitlines() if "Kind=" in line] == [
        "apps/v1, Kind=Deployment: ERROR: <input>:1:12: undefined field 'nope'",
        "batch/v1, Kind=CronJob: ERROR: <input>:1:12: undefined field 'nope'",
    ]
    live = await cluster.client.get(POLICY, "p")
    live["spec"]["validations"] = [{"expression": "object.metadata.name != ''"}]
    await cluster.client.replace(POLICY, live)
    assert (await cluster.client.get(POLICY, "p"))["status"] == {"observedGeneration": 2, "typeChecking": {}}


CONFIG: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "d"}}
REFERENCE = {"name": "limits", "parameterNotFoundAction": "Deny"}
KIND = {"apiVersion": "v1", "kind": "ConfigMap"}


@pytest.mark.parametrize(
    ("spec", "bound", "why"),
    [
        ({"paramKind": KIND}, {"paramRef": REFERENCE}, "no params found for policy binding with `Deny`"),
        (
            {"paramKind": {"apiVersion": "x.test/v1", "kind": "Limit"}},
            {"paramRef": REFERENCE},
            "failed to find resource referenced by paramKind: 'x.test/v1, Kind=Limit'",
        ),
        ({"paramKind": KIND}, {"paramRef": REFERENCE | {"parameterNotFoundAction": "Allow"}}, None),
        ({"paramKind": KIND, "failurePolicy": "Ignore"}, {"paramRef": REFERENCE}, None),
        ({"paramKind": KIND, "validations": [{"expression": "params == null"}]}, {}, None),
        ({"auditAnnotations": [{"key": "k", "valueExpression": "string(object.data.x)"}]}, {}, "no such key: data"),
        ({"auditAnnotations": [{"key": "k", "valueExpression": "string(object.metadata.name)"}]}, {}, None),
    ],
)
async def test_parameters_and_annotations(cluster: FakeCluster, spec: Object, bound: Object, why: str | None) -> None:
    """A binding that cannot be evaluated denies, unless the policy ignores failures; so does a failing annotation."""
    await cluster.add(policy(MAPS, **spec))
    await cluster.add(binding(**bound))
    if why is None:
        await cluster.add(CONFIG)
    else:
        with pytest.raises(ApiError) as caught:
            await cluster.add(CONFIG)
        assert why in str(caught.value)


async def test_objects_are_seen_in_the_version_of_the_rule(cluster: FakeCluster) -> None:
    """What is written as autoscaling/v2 is converted for a rule about v1, and the request says both versions."""
    seen = "object.spec.targetCPUUtilizationPercentage != 50 || request.kind.version != 'v1'"
    asked = "request.requestKind.version == 'v2'"
    rules = rule("autoscaling", "v1", "horizontalpodautoscalers")
    await cluster.add(policy(rules, validations=[{"expression": seen}, {"expression": asked}]))
    await cluster.add(binding())
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"}
    cpu = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}
    spec = {"scaleTargetRef": target, "maxReplicas": 3, "metrics": [cpu]}
    with pytest.raises(ApiError, match="targetCPUUtilizationPercentage"):
        await cluster.client.create(AUTOSCALERS, {"metadata": {"name": "h", "namespace": "d"}, "spec": spec})
    cpu["resource"]["target"]["averageUtilization"] = 60  # type: ignore[index]
    await cluster.client.create(AUTOSCALERS, {"metadata": {"name": "h", "namespace": "d"}, "spec": spec})
    await cluster.client.create(CONFIG_MAPS, CONFIG)
