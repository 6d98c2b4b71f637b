"""ResourceQuota and LimitRange admission."""

from __future__ import annotations

from typing import Any

import pytest

from sandlane.kube.resource import CONFIG_MAPS, DEPLOYMENTS, PODS, SERVICES, Resource
from sandlane.local.apiserver.kinds.data import check_quota
from sandlane.local.apiserver.kinds.field_errors import Faults
from sandlane.local.apiserver.kinds.quota import default_from_ranges, quota_fault, quota_status, range_faults

CLAIMS = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")


def pod(*containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """A Pod whose containers have these resources."""
    made = [{"name": f"c{index}", "resources": each} for index, each in enumerate(containers)]
    return {"metadata": {"name": "p"}, "spec": {"containers": made, **spec}}


def quota(hard: dict[str, str], **spec: Any) -> dict[str, Any]:
    """A quota."""
    return {"metadata": {"name": "q"}, "spec": {"hard": hard, **spec}}


SMALL = {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}}


@pytest.mark.parametrize(
    ("resource", "hard", "obj", "live", "fault"),
    [
        (PODS, {"pods": "1"}, pod(), [], None),
        (PODS, {"pods": "1"}, pod(), [pod()], "exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1"),
        (PODS, {"pods": "1"}, pod(), [{**pod(), "status": {"phase": "Succeeded"}}], None),
        (
            PODS,
            {"requests.cpu": "250m", "limits.memory": "1Gi"},
            pod(SMALL, SMALL),
            [pod(SMALL)],
            "exceeded quota: q, requested: requests.cpu=200m, used: requests.cpu=100m, limited: requests.cpu=250m",
        ),
        (PODS, {"cpu": "1"}, pod(SMALL, {}), [], "failed quota: q: must specify cpu for: c1"),
        (
            CONFIG_MAPS,
            {"count/configmaps": "0"},
            {},
            [],
            "exceeded quota: q, requested: count/configmaps=1, used: count/configmaps=0, limited: count/configmaps=0",
        ),
        (DEPLOYMENTS, {"count/deployments.apps": "1"}, {}, [], None),
        (SERVICES, {"services.loadbalancers": "0"}, {"spec": {"type": "ClusterIP"}}, [], None),
        (SERVICES, {"pods": "0"}, {"spec": {}}, [], None),
    ],
)
def test_quota(resource: Resource, hard: Any, obj: Any, live: Any, fault: str | None) -> None:
    """A quota leaves room or says what was asked for, what is used and what the limit is."""
    assert quota_fault(resource, obj, None, [quota(hard)], lambda group, plural: live) == fault


def test_quota_of_an_update() -> None:
    """An update counts for what it adds; one that adds nothing passes an exhausted quota."""
    full = [quota({"requests.cpu": "100m"})]
    more = pod({"requests": {"cpu": "150m"}})
    assert quota_fault(PODS, pod(SMALL), pod(SMALL), full, lambda group, plural: [pod(SMALL)]) is None
    assert "requested: requests.cpu=50m" in str(
        quota_fault(PODS, more, pod(SMALL), full, lambda group, plural: [pod(SMALL)])
    )


def test_scopes() -> None:
    """A quota with scopes counts only the Pods that they match."""
    best_effort = [quota({"pods": "0"}, scopes=["BestEffort"])]
    assert quota_fault(PODS, pod(SMALL), None, best_effort, lambda group, plural: []) is None
    assert quota_fault(PODS, pod({}), None, best_effort, lambda group, plural: []) is not None
    terminating = [quota({"pods": "0"}, scopes=["Terminating"])]
    assert quota_fault(PODS, pod(activeDeadlineSeconds=1), None, terminating, lambda group, plural: []) is not None
    expression = {"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}
    high = [quota({"pods": "0"}, scopeSelector={"matchExpressions": [expression]})]
    assert quota_fault(PODS, pod(), None, high, lambda group, plural: []) is None
    assert quota_fault(PODS, pod(priorityClassName="high"), None, high, lambda group, plural: []) is not None


def test_quota_status() -> None:
    """The status of a quota shows each limit and what is used of it."""
    hard = {"pods": "4", "requests.memory": "1024Mi", "count/deployments.apps": "2"}
    live = {"pods": [pod(SMALL), pod(SMALL)], "deployments": [{}]}
    status = quota_status(quota(hard), lambda group, plural: live.get(plural, []), [PODS, DEPLOYMENTS, SERVICES])
    assert status == {
        "hard": {"pods": "4", "requests.memory": "1Gi", "count/deployments.apps": "2"},
        "used": {"pods": "2", "requests.memory": "128Mi", "count/deployments.apps": "1"},
    }


def limit_range(kind: str = "Container", **limit: Any) -> dict[str, Any]:
    """A LimitRange with one limit."""
    return {"spec": {"limits": [{"type": kind, **limit}]}}


def test_limit_range_defaults() -> None:
    """Containers get what a range sets by default, where they say nothing."""
    obj = pod({}, {"limits": {"cpu": "2"}})
    default_from_ranges(obj, [limit_range(default={"cpu": "1"}, defaultRequest={"cpu": "500m"})])
    resources = [each["resources"] for each in obj["spec"]["containers"]]
    assert resources == [
        {"limits": {"cpu": "1"}, "requests": {"cpu": "500m"}},
        {"limits": {"cpu": "2"}, "requests": {"cpu": "500m"}},
    ]


@pytest.mark.parametrize(
    ("resource", "obj", "range_", "faults"),
    [
        (PODS, pod(SMALL), limit_range(max={"cpu": "1"}, min={"cpu": "10m"}), []),
        (
            PODS,
            pod(SMALL),
            limit_range(max={"cpu": "100m"}),
            ["maximum cpu usage per Container is 100m, but limit is 200m"],
        ),
        (
            PODS,
            pod({}),
            limit_range(max={"cpu": "1"}),
            ["maximum cpu usage per Container is 1.  No limit is specified"],
        ),
        (
            PODS,
            pod(SMALL),
            limit_range(min={"memory": "1Gi"}),
            ["minimum memory usage per Container is 1Gi, but request is 64Mi"],
        ),
        (
            PODS,
            pod({}),
            limit_range(min={"cpu": "1"}),
            ["minimum cpu usage per Container is 1.  No request is specified"],
        ),
        (
            PODS,
            pod(SMALL, SMALL),
            limit_range("Pod", max={"cpu": "300m"}),
            ["maximum cpu usage per Pod is 300m, but limit is 400m"],
        ),
        (
            PODS,
            pod(SMALL),
            limit_range(maxLimitRequestRatio={"cpu": "1"}),
            ["cpu max limit to request ratio per Container is 1, but provided ratio is 2.000000"],
        ),
        (
            CLAIMS,
            {"spec": {"resources": {"requests": {"storage": "2Gi"}}}},
            limit_range("PersistentVolumeClaim", max={"storage": "1Gi"}),
            ["maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 2Gi"],
        ),
        (SERVICES, {}, limit_range(max={"cpu": "1"}), []),
    ],
)
def test_limit_range(resource: Resource, obj: Any, range_: Any, faults: list[str]) -> None:
    """A range refuses what is outside of it, with Kubernetes' texts."""
    assert range_faults(resource, obj, [range_]) == faults


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"hard": {"cpu": "1", "pods": "2"}, "scopes": ["BestEffort"]}, "unsupported scope applied to resource"),
        ({"hard": {"pods": "2"}, "scopes": ["Best"]}, "unsupported scope"),
        ({"hard": {"pods": "2"}, "scopes": ["Terminating", "NotTerminating"]}, "conflicting scopes"),
        ({"hard": {"gpus": "2"}}, "must be a standard resource for quota"),
        ({"hard": {"pods": "2"}, "scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In"}]}}, "at least one value"),
        ({"hard": {"pods": "2"}, "scopeSelector": {"matchExpressions": [{"scopeName": "BestEffort", "operator": "In", "values": ["x"]}]}}, "must be 'Exists' when scope"),
        ({"hard": {"requests.nvidia.com/gpu": "1", "count/jobs.batch": "3", "limits.cpu": "1"}, "scopes": ["NotBestEffort"]}, ""),
    ],
)  # fmt: skip
def test_what_a_quota_may_say(spec: dict[str, Any], why: str) -> None:
    """Names and scopes that cannot be are faults."""
    faults = Faults()
    check_quota(faults, {"metadata": {"name": "q"}, "spec": spec})
    found = [error.detail for error in faults.errors]
    assert any(why in detail for detail in found) if why else found == []
