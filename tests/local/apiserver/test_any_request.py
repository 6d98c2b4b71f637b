"""Whatever is asked, the server answers properly: never a fault of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandlane.kube.transport import Request
from sandlane.local.apiserver.answers import StreamResponse
from sandlane.testing.cluster import FakeCluster
from support.thorough import cases

NAMES = st.sampled_from(["a", "b", "default", "kube-system", "things.g.test", "no!", ""])
PLURALS = st.sampled_from(
    [
        ("", "v1", "configmaps"),
        ("", "v1", "pods"),
        ("", "v1", "services"),
        ("", "v1", "namespaces"),
        ("", "v1", "events"),
        ("", "v1", "serviceaccounts"),
        ("apps", "v1", "deployments"),
        ("events.k8s.io", "v1", "events"),
        ("autoscaling", "v1", "horizontalpodautoscalers"),
        ("policy", "v1", "poddisruptionbudgets"),
        ("g.test", "v1", "things"),
        ("apiextensions.k8s.io", "v1", "customresourcedefinitions"),
        ("admissionregistration.k8s.io", "v1", "validatingadmissionpolicies"),
        ("authorization.k8s.io", "v1", "selfsubjectaccessreviews"),
        ("authentication.k8s.io", "v1", "tokenreviews"),
        ("rbac.authorization.k8s.io", "v1", "clusterroles"),
    ]
)
SUBRESOURCES = st.sampled_from(
    ["", "", "", "status", "scale", "binding", "eviction", "token", "log", "finalize", "nope"]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 2**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
METADATA = st.fixed_dictionaries(
    {},
    optional={
        "name": NAMES | VALUES,
        "namespace": NAMES | VALUES,
        "labels": st.dictionaries(st.sampled_from(["a", "b/c", "-"]), st.text(max_size=3)) | VALUES,
        "annotations": VALUES,
        "finalizers": st.lists(st.sampled_from(["x.y/z", "orphan", "bad"])) | VALUES,
        "resourceVersion": st.sampled_from(["1", "101", "x", ""]) | VALUES,
        "uid": VALUES,
        "generateName": st.sampled_from(["g-", "G!"]) | VALUES,
        "ownerReferences": VALUES,
        "managedFields": VALUES,
        "deletionTimestamp": VALUES,
    },
)
SPEC = st.fixed_dictionaries(
    {},
    optional={
        "replicas": st.integers(-2, 5) | VALUES,
        "selector": st.sampled_from([{"matchLabels": {"a": "b"}}, {"a": "b"}]) | VALUES,
        "template": VALUES,
        "containers": st.lists(st.fixed_dictionaries({}, optional={"name": NAMES, "image": VALUES, "ports": VALUES}))
        | VALUES,
        "ports": st.lists(st.fixed_dictionaries({}, optional={"port": VALUES, "name": NAMES})) | VALUES,
        "validations": VALUES,
        "user": VALUES,
        "resourceAttributes": VALUES,
        "token": VALUES,
        "versions": VALUES,
        "names": VALUES,
        "group": VALUES,
    },
)
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "apiVersion": st.sampled_from(["v1", "apps/v1", "g.test/v1"]) | VALUES,
        "kind": st.sampled_from(["ConfigMap", "Pod", "Deployment", "Thing", "Scale", "DeleteOptions"]) | VALUES,
        "metadata": METADATA | VALUES,
        "spec": SPEC | VALUES,
        "status": VALUES,
        "data": VALUES,
        "target": VALUES,
        "preconditions": VALUES,
        "propagationPolicy": VALUES,
        "gracePeriodSeconds": VALUES,
        "dryRun": VALUES,
    },
)
PATCHES = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]) | VALUES,
            "path": st.sampled_from(["", "/spec", "/metadata", "/metadata/name", "/metadata/labels/a", "/x/0/-"])
            | VALUES,
            "from": st.sampled_from(["/spec", "/metadata"]) | VALUES,
            "value": VALUES,
        },
    ),
    max_size=3,
)
MEDIA = st.sampled_from(
    [
        "application/json",
        "application/json",
        "application/yaml",
        "application/merge-patch+json",
        "application/json-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
        "application/vnd.kubernetes.protobuf",
        "text/plain",
    ]
)
QUERIES = st.dictionaries(
    st.sampled_from(
        [
            "labelSelector",
            "fieldSelector",
            "limit",
            "continue",
            "resourceVersion",
            "resourceVersionMatch",
            "dryRun",
            "fieldManager",
            "force",
            "fieldValidation",
            "propagationPolicy",
            "gracePeriodSeconds",
            "sendInitialEvents",
            "timeoutSeconds",
            "includeObject",
        ]
    ),
    st.sampled_from(
        ["", "1", "0", "true", "All", "x", "-1", "a=b", "a in (", "Exact", "Strict", "Background", "metadata.name=a"]
    )
    | st.text(max_size=5),
    max_size=3,
)
ACCEPTS = st.sampled_from(
    [
        "",
        "*/*",
        "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
        "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
        "application/yaml",
        "nonsense",
    ]
)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """A request that could almost be right."""
    group, version, plural = draw(PLURALS)
    path = f"/apis/{group}/{version}" if group else f"/api/{version}"
    if draw(st.booleans()):
        path += f"/namespaces/{draw(NAMES)}"
    path += f"/{plural}"
    name, sub = draw(NAMES), draw(SUBRESOURCES)
    if name and draw(st.booleans()):
        path += f"/{name}" + (f"/{sub}" if sub else "")
    body = draw(BODIES | BODIES | BODIES | PATCHES | VALUES)
    headers = {"content-type": draw(MEDIA), "accept": draw(ACCEPTS)}
    method = draw(st.sampled_from(["GET", "POST", "PUT", "PATCH", "PATCH", "DELETE", "OPTIONS"]))
    return Request(method, path, tuple(draw(QUERIES).items()), headers, json.dumps(body).encode())


THINGS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "things.g.test"},
    "spec": {
        "group": "g.test",
        "scope": "Namespaced",
        "names": {"plural": "things", "kind": "Thing"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {
                    "status": {},
                    "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"},
                },
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                        },
                    }
                },
            }
        ],
    },
}


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    """One event loop, so that objects pile up over the examples."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def cluster(loop: asyncio.Runner) -> Iterator[FakeCluster]:
    """A cluster with a few objects."""
    made = FakeCluster.with_objects(
        THINGS,
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}},
        {"apiVersion": "g.test/v1", "kind": "Thing", "metadata": {"name": "a"}, "spec": {"replicas": 1}},
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "a"},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
        },
    )
    loop.run(made.__aenter__())
    yield made
    loop.run(made.__aexit__(None, None, None))


@given(request_=requests())
@settings(max_examples=cases(120), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_request_is_a_fault_of_the_server(cluster: FakeCluster, loop: asyncio.Runner, request_: Request) -> None:
    """Each answer is JSON, YAML or text, and no code is 500 but where kube-apiserver says so too."""

    async def ask() -> tuple[int, Any]:
        answer = await cluster.server.handle(request_)
        if isinstance(answer, StreamResponse):
            await answer.lines.aclose()  # type: ignore[attr-defined]
            return answer.status, None
        kind = dict(answer.headers).get("content-type", "")
        return answer.status, json.loads(answer.body) if kind.startswith("application/json") else None

    status, body = loop.run(ask())
    assert 200 <= status < 600
    fault = status == 500 and isinstance(body, dict) and body.get("reason") == "InternalError"
    assert not fault or "replicas" in body["message"], body
