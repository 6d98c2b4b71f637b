"""Defaults and validation of workloads and Pods."""

from __future__ import annotations

from typing import Any

import pytest

from sandlane.kube.patch.values import copy_json
from sandlane.local.apiserver.kinds.pods import tolerate_for_a_while

TEMPLATE = {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "main", "image": "i:1"}]}}
SPEC = {"selector": {"matchLabels": {"app": "d"}}, "template": TEMPLATE}


def causes(errors: Any) -> list[tuple[str, str]]:
    """Field and reason of each fault, sorted."""
    return sorted((each.field, each.type.removeprefix("FieldValue")) for each in errors)


def test_deployment_defaults(server: Any, make: Any) -> None:
    """A minimal Deployment gets every default of its spec and of its template, and generation 1."""
    obj = server.create(make("apps/v1", "Deployment", spec=copy_json(SPEC), status={"replicas": 9}))
    spec = obj["spec"]
    assert (spec["replicas"], spec["revisionHistoryLimit"], spec["progressDeadlineSeconds"]) == (1, 10, 600)
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}}
    assert spec["template"]["spec"]["containers"][0]["imagePullPolicy"] == "IfNotPresent"
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] == 30
    assert (obj["metadata"]["generation"], obj["status"]) == (1, {})


def test_generation_rises_with_the_spec(server: Any, make: Any) -> None:
    """Spec and annotations raise a Deployment's generation; labels, status and a client's own number do not."""
    old = server.create(make("apps/v1", "Deployment", spec=copy_json(SPEC)))

    def generation(**metadata: Any) -> int:
        new = copy_json(old)
        new["metadata"].update(metadata, generation=77)
        return server.update(old, new)[0]["metadata"]["generation"]

    assert generation(labels={"a": "b"}) == 1
    assert generation(annotations={"a": "b"}) == 2
    changed = copy_json(old)
    changed["spec"]["replicas"] = 0
    changed["status"] = {"replicas": 3}
    updated, errors = server.update(old, changed)
    assert (errors, updated["metadata"]["generation"], updated["status"]) == ([], 2, {})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"replicas": -1}, [("spec.replicas", "Invalid")]),
        ({"selector": None}, [("spec.selector", "Required"), ("spec.template.metadata.labels", "Invalid")]),
        ({"selector": {"matchLabels": {"a": "z"}}}, [("spec.template.metadata.labels", "Invalid")]),
        ({"strategy": {"type": "Recreate", "rollingUpdate": {}}}, [("spec.strategy.rollingUpdate", "Forbidden")]),
        (
            {"strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": "0%"}}},
            [("spec.strategy.rollingUpdate.maxUnavailable", "Invalid")],
        ),
        ({"strategy": {"type": "Odd"}}, [("spec.strategy", "NotSupported")]),
        ({"progressDeadlineSeconds": 5, "minReadySeconds": 5}, [("spec.progressDeadlineSeconds", "Invalid")]),
    ],
)
def test_invalid_deployment(server: Any, make: Any, change: Any, expected: Any) -> None:
    """Faults of a Deployment's spec are named by field and reason."""
    _, errors = server.try_create(make("apps/v1", "Deployment", spec={**copy_json(SPEC), **change}))
    assert causes(errors) == expected


@pytest.mark.parametrize(
    ("container", "field", "reason"),
    [
        ({"image": ""}, "image", "Required"),
        ({"name": "UP"}, "name", "Invalid"),
        ({"ports": [{"containerPort": 99999}]}, "ports[0].containerPort", "Invalid"),
        ({"ports": [{"containerPort": 80, "name": "-"}]}, "ports[0].name", "Invalid"),
        ({"imagePullPolicy": "Odd"}, "imagePullPolicy", "NotSupported"),
        ({"env": [{"value": "x"}]}, "env[0].name", "Required"),
        ({"env": [{"name": "A", "valueFrom": {}}]}, "env[0].valueFrom", "Invalid"),
        ({"livenessProbe": {}}, "livenessProbe", "Required"),
        (
            {"livenessProbe": {"tcpSocket": {"port": 1}, "successThreshold": 2}},
            "livenessProbe.successThreshold",
            "Invalid",
        ),
        ({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}, "volumeMounts[0].name", "NotFound"),
        ({"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}, "resources.requests", "Invalid"),
    ],
)
def test_invalid_container(server: Any, make: Any, container: Any, field: str, reason: str) -> None:
    """Faults of a container are named by field and reason."""
    containers = [{"name": "a", "image": "i", **container}]
    _, errors = server.try_create(make("v1", "Pod", spec={"containers": containers}))
    found = [fault for fault in causes(errors) if fault[0].endswith(field)]
    assert found[0] == (f"spec.containers[0].{field}", reason)


def test_containers_are_there_and_unique(server: Any, make: Any) -> None:
    """A Pod has containers, and each has a name of its own, init containers among them."""
    _, errors = server.try_create(make("v1", "Pod", spec={"containers": []}))
    assert causes(errors) == [("spec.containers", "Required")]
    same = {"name": "a", "image": "i"}
    _, errors = server.try_create(make("v1", "Pod", spec={"initContainers": [dict(same)], "containers": [dict(same)]}))
    assert causes(errors) == [("spec.initContainers[0].name", "Duplicate")]


def test_pod_is_prepared(server: Any, make: Any) -> None:
    """A Pod gets its account, priority, phase and QoS class, and tolerations before admission; requests follow limits."""
    limits = {"cpu": "100m", "memory": "64Mi"}
    containers = [{"name": "a", "image": "i:latest", "resources": {"limits": limits}}]
    pod = server.create(make("v1", "Pod", spec={"containers": containers}, status={"phase": "Running"}))
    assert pod["spec"]["serviceAccountName"] == "default"
    tolerate_for_a_while(pod)
    assert [each["key"] for each in pod["spec"]["tolerations"]] == [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ]
    assert pod["spec"]["containers"][0]["resources"]["requests"] == limits
    assert pod["spec"]["containers"][0]["imagePullPolicy"] == "Always"
    assert pod["status"] == {"phase": "Pending", "qosClass": "Guaranteed"}


def test_pod_update(server: Any, make: Any) -> None:
    """An image of a Pod may change, nearly nothing else may."""
    old = server.create(make("v1", "Pod", spec={"containers": [{"name": "a", "image": "i"}]}))
    new = copy_json(old)
    new["spec"]["containers"][0]["image"] = "i:2"
    assert server.update(old, new)[1] == []
    new["spec"]["restartPolicy"] = "Never"
    assert causes(server.update(old, new)[1]) == [("spec", "Forbidden")]


def test_job_gets_its_selector(server: Any, make: Any) -> None:
    """A Job's selector and labels come from its uid."""
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}
    job = server.create(make("batch/v1", "Job", "s", spec={"template": template}))
    labels = {"batch.kubernetes.io/job-name": "s", "job-name": "s"}
    labels |= {"batch.kubernetes.io/controller-uid": "u-1", "controller-uid": "u-1"}
    assert job["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": "u-1"}}
    assert job["metadata"]["labels"] == job["spec"]["template"]["metadata"]["labels"] == labels
    assert (job["spec"]["completions"], job["spec"]["backoffLimit"], job["spec"]["completionMode"]) == (
        1,
        6,
        "NonIndexed",
    )


def test_immutable_selectors(server: Any, make: Any) -> None:
    """The selector of a workload may not change."""
    for kind, extra in (
        ("Deployment", {}),
        ("ReplicaSet", {}),
        ("DaemonSet", {}),
        ("StatefulSet", {"serviceName": "s"}),
    ):
        old = server.create(make("apps/v1", kind, spec={**copy_json(SPEC), **extra}))
        new = copy_json(old)
        new["spec"]["selector"] = {"matchExpressions": [{"key": "app", "operator": "Exists"}]}
        assert [field for field, _ in causes(server.update(old, new)[1])] in (["spec.selector"], ["spec"]), kind


def test_claim_templates_are_volumes(server: Any, make: Any) -> None:
    """Containers of a StatefulSet may mount what its claim templates give its Pods, and nothing that nobody gives."""
    spec = {**copy_json(SPEC), "serviceName": "s"}
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    spec["volumeClaimTemplates"] = [{"metadata": {"name": "data"}, "spec": claim}]
    spec["template"]["spec"]["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    old = server.create(make("apps/v1", "StatefulSet", spec=spec))
    new = copy_json(old)
    new["spec"]["template"]["spec"]["containers"][0]["volumeMounts"][0]["name"] = "other"
    fault = "spec.template.spec.containers[0].volumeMounts[0].name"
    assert causes(server.update(old, new)[1]) == [(fault, "NotFound")]


def test_warnings(server: Any, make: Any) -> None:
    """A port that is defined twice is warned of."""
    spec = copy_json(SPEC)
    spec["template"]["spec"]["containers"][0]["ports"] = [
        {"containerPort": 80},
        {"containerPort": 80, "protocol": "TCP"},
    ]
    obj = server.create(make("apps/v1", "Deployment", spec=spec))
    at = "spec.template.spec.containers[0].ports"
    assert server.kind(obj).strategy.warnings(obj) == [f"{at}[1]: duplicate port definition with {at}[0]"]


def test_daemon_set_template_generation(server: Any, make: Any) -> None:
    """The annotation with the template's generation rises with the template only, whatever a client sends."""
    old = server.create(make("apps/v1", "DaemonSet", spec=copy_json(SPEC)))
    key = "deprecated.daemonset.template.generation"
    assert old["metadata"]["annotations"] == {key: "1"}
    new = copy_json(old)
    new["metadata"]["annotations"] = {key: "77"}
    assert server.update(old, copy_json(new))[0]["metadata"]["annotations"] == {key: "1"}
    new["spec"]["template"]["spec"]["containers"][0]["image"] = "i:2"
    assert server.update(old, new)[0]["metadata"]["annotations"] == {key: "2"}


def test_claim_update(server: Any, make: Any) -> None:
    """A claim may be bound, and grow once it is, but not change its modes."""
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    old = server.create(make("v1", "PersistentVolumeClaim", spec=spec))
    new = copy_json(old)
    new["spec"]["volumeName"] = "v"
    assert server.update(old, copy_json(new))[1] == []
    new["spec"]["resources"]["requests"]["storage"] = "2Gi"
    assert causes(server.update(old, copy_json(new))[1]) == [("spec", "Forbidden")]
    old["status"]["phase"] = "Bound"
    assert server.update(old, copy_json(new))[1] == []
    new["spec"]["accessModes"] = ["ReadOnlyMany"]
    assert causes(server.update(old, new)[1]) == [("spec", "Forbidden")]
