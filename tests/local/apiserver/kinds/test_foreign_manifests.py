"""What well-known manifests ask of built-in kinds, answered as kube-apiserver answers it."""

from __future__ import annotations

from typing import Any

import pytest

from sandlane.kube.patch.values import copy_json
from sandlane.local.apiserver.kinds.pods import default_pod

TEMPLATE = {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "main", "image": "i:1"}]}}
SPEC = {"selector": {"matchLabels": {"app": "d"}}, "template": TEMPLATE}


def with_metadata(obj: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    """The object with more metadata."""
    return {**obj, "metadata": {**obj["metadata"], **metadata}}


JOB = {"template": {"metadata": {"labels": {"app": "d"}}, "spec": {**TEMPLATE["spec"], "restartPolicy": "Never"}}}


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("a", "Always"),
        ("localhost:5000/a", "Always"),
        ("docker.io/a/b/c:latest", "Always"),
        ("a:1", "IfNotPresent"),
        ("a@sha256:1", "IfNotPresent"),
        ("ko://a/b", "IfNotPresent"),
        ("$(IMAGE)", "IfNotPresent"),
        ("x/Y:latest", "IfNotPresent"),
    ],
)
def test_the_pull_policy_of_an_image(image: str, policy: str) -> None:
    """Always for what has no version; what is no name of an image counts as if it had one."""
    pod: dict[str, Any] = {"spec": {"containers": [{"name": "a", "image": image}]}}
    default_pod(pod)
    assert pod["spec"]["containers"][0]["imagePullPolicy"] == policy


def test_labels_that_a_job_gets(server: Any, make: Any) -> None:
    """A Job has the labels of its template; labels of its own are left alone."""
    with_own = server.create(with_metadata(make("batch/v1", "Job", spec=copy_json(JOB)), labels={"mine": "x"}))
    assert with_own["metadata"]["labels"] == {"mine": "x"}
    without = server.create(make("batch/v1", "Job", spec=copy_json(JOB)))
    assert without["metadata"]["labels"] == without["spec"]["template"]["metadata"]["labels"]
    assert {"app", "job-name"} < set(without["metadata"]["labels"])


def test_small_defaults(server: Any, make: Any) -> None:
    """A StatefulSet that names its strategy, a DaemonSet's generation of the template, and a CSIDriver's spec."""
    spec = {**copy_json(SPEC), "serviceName": "d", "updateStrategy": {"type": "RollingUpdate"}}
    assert server.create(make("apps/v1", "StatefulSet", spec=spec))["spec"]["updateStrategy"] == {
        "type": "RollingUpdate"
    }
    key = "deprecated.daemonset.template.generation"
    daemons = server.create(with_metadata(make("apps/v1", "DaemonSet", spec=copy_json(SPEC)), annotations={key: "3"}))
    assert daemons["metadata"]["annotations"][key] == "3"
    driver = server.create(make("storage.k8s.io/v1", "CSIDriver", spec={}))
    assert driver["spec"]["volumeLifecycleModes"] == ["Persistent"]


def test_what_an_autoscaler_may_scale(server: Any, make: Any) -> None:
    """The target names its API group, in both versions; replication controllers have none."""
    for version in ("v1", "v2"):

        def told(kind: str, api_version: str, version: str = version) -> list[str]:
            target = {"kind": kind, "name": "x", "apiVersion": api_version}
            obj = make(
                f"autoscaling/{version}", "HorizontalPodAutoscaler", spec={"maxReplicas": 2, "scaleTargetRef": target}
            )
            return [error.field.rpartition(".")[2] for error in server.try_create(obj)[1]]

        assert told("Deployment", "apps/v1") == told("ReplicationController", "v1") == []
        assert told("Deployment", "v1") == told("Deployment", "a/b/c") == ["apiVersion"]
        assert told("a/b", "apps/v1") == ["kind"]


def test_warnings_about_old_ways(server: Any, make: Any) -> None:
    """Annotations that have become fields, and volumes that do nothing any more."""

    def warned(*given: Any, annotations: Any = None, **fields: Any) -> list[str]:
        obj = with_metadata(make(*given, **fields), annotations=annotations)
        return server.kind(obj).strategy.warnings(server.create(obj))

    backend = {"service": {"name": "x", "port": {"number": 1}}}
    old = {"kubernetes.io/ingress.class": "x"}
    ingress = warned("networking.k8s.io/v1", "Ingress", annotations=old, spec={"defaultBackend": backend})
    assert "spec.ingressClassName" in ingress[0]
    old = {"volume.beta.kubernetes.io/storage-class": "x"}
    size = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    assert "storageClassName" in warned("v1", "PersistentVolumeClaim", annotations=old, spec=size)[0]
    template = copy_json(TEMPLATE)
    template["spec"]["volumes"] = [{"name": "v", "flocker": {"datasetName": "x"}}]
    deployment = warned("apps/v1", "Deployment", spec={**copy_json(SPEC), "template": template})
    assert deployment == ["spec.template.spec.volumes[0].flocker: deprecated in v1.22, non-functional in v1.25+"]
