"""Custom resources in several versions: what a conversion webhook is asked, what its answers do, and where objects lie."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest

from sandlane.kube.transport import Request
from sandlane.testing.cluster import FakeCluster

Object = dict[str, Any]
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
CRD = f"{CRDS}/boxes.shapes.example.test"
V1, V2 = (f"/apis/shapes.example.test/{version}/namespaces/d/boxes" for version in ("v1", "v2"))
Send = Callable[..., Any]


@pytest.fixture
async def cluster() -> Any:
    """A cluster with the namespace `d`."""
    async with FakeCluster() as cluster:
        await cluster.ensure_namespace("d")
        yield cluster


@pytest.fixture
def send(cluster: FakeCluster) -> Send:
    """Sends a request and gives the code and the body."""

    async def sent(method: str, path: str, body: Any = None, media: str = "application/json") -> tuple[int, Any]:
        parts = urlsplit(path)
        query = tuple(tuple(pair.split("=", 1)) for pair in parts.query.split("&") if pair)
        data = json.dumps(body).encode() if body is not None else b""
        request = Request(method, parts.path, query, headers={"content-type": media}, body=data)
        answer = await cluster.transport.send(request, timeout=10)
        return answer.status, json.loads(answer.body) if answer.body[:1] == b"{" else answer.body

    return sent


def box(version: str = "v1", name: str = "b", **spec: Any) -> Object:
    """A box."""
    return {
        "apiVersion": f"shapes.example.test/{version}",
        "kind": "Box",
        "metadata": {"name": name, "labels": {"l": name}},
        "spec": spec,
    }


async def lines(cluster: FakeCluster, path: str, count: int) -> list[Object]:
    """The first events of a watch."""
    parts = urlsplit(path)
    query = tuple(tuple(pair.split("=", 1)) for pair in parts.query.split("&") if pair)
    seen: list[Object] = []
    async with asyncio.timeout(10):
        async with cluster.transport.stream(
            Request("GET", parts.path, (("watch", "true"), *query)), timeout=10
        ) as stream:
            async for line in stream.chunks():
                seen.append(json.loads(line))
                if len(seen) == count:
                    break
    return seen


async def test_each_version_shows_the_object_in_its_form(cluster: Any, send: Send, boxes: Any, converter: Any) -> None:
    """Written in one version, read, listed, selected, changed, applied and deleted in the other."""
    assert (await send("POST", CRDS, boxes()))[0] == 201
    code, made = await send("POST", V2, box("v2", width=2, height=3))
    assert (code, made["apiVersion"], made["spec"]) == (
        201,
        "shapes.example.test/v2",
        {"width": 2, "height": 3, "depth": 1},
    )
    assert (await send("GET", f"{V1}/b"))[1]["spec"]["size"] == "2x3"
    code, patched = await send("PATCH", f"{V1}/b", {"spec": {"size": "4x5"}}, "application/merge-patch+json")
    assert (code, patched["spec"]["size"], patched["metadata"]["generation"]) == (200, "4x5", 2)
    await send("POST", V1, box(name="c", size="9x9"))
    listed = (await send("GET", V2))[1]
    assert [item["spec"] for item in listed["items"]] == [
        {"width": 4, "height": 5},
        {"width": 9, "height": 9},
    ]
    assert {item["apiVersion"] for item in listed["items"]} == {"shapes.example.test/v2"}
    assert len(converter.reviews[-1]["request"]["objects"]) == 2
    page = (await send("GET", f"{V2}?limit=1"))[1]
    assert [item["metadata"]["name"] for item in page["items"]] == ["b"]
    rest = (await send("GET", f"{V2}?limit=1&continue={page['metadata']['continue']}"))[1]
    assert [item["spec"]["width"] for item in rest["items"]] == [9]
    selected = (await send("GET", f"{V2}?fieldSelector=spec.width=9"))[1]
    assert [item["metadata"]["name"] for item in selected["items"]] == ["c"]
    applied = box("v2", width=7)
    applied["metadata"] = {"name": "c"}
    code, got = await send("PATCH", f"{V2}/c?fieldManager=m&force=true", applied, "application/apply-patch+yaml")
    assert (code, got["spec"]) == (200, {"width": 7, "height": 9, "depth": 1})
    assert (await send("DELETE", f"{V2}/b"))[0] == 200
    assert (await send("GET", f"{V1}/b"))[0] == 404


async def test_watches_of_both_versions(cluster: Any, send: Send, boxes: Any) -> None:
    """A watch tells of the state that there is and of each change in the form of its version."""
    await send("POST", CRDS, boxes())
    await send("POST", V1, box(size="1x2"))
    version = (await send("GET", V2))[1]["metadata"]["resourceVersion"]
    await send("PATCH", f"{V1}/b", {"spec": {"size": "5x6"}}, "application/merge-patch+json")
    await send("DELETE", f"{V1}/b")
    seen = await lines(cluster, f"{V2}?resourceVersion={version}", 2)
    assert [(each["type"], each["object"]["spec"]["width"]) for each in seen] == [("MODIFIED", 5), ("DELETED", 5)]
    seen = await lines(cluster, f"{V1}?resourceVersion={version}", 2)
    assert [(each["type"], each["object"]["spec"]["size"]) for each in seen] == [
        ("MODIFIED", "5x6"),
        ("DELETED", "5x6"),
    ]
    await send("POST", V1, box(size="1x2"))
    seen = await lines(cluster, V2, 1)
    assert (seen[0]["type"], seen[0]["object"]["spec"]["height"]) == ("ADDED", 2)


async def test_the_review(cluster: Any, send: Send, boxes: Any, converter: Any) -> None:
    """A ConversionReview names the version that is wanted, and brings whole objects."""
    await send("POST", CRDS, boxes())
    await send("POST", V1, box(size="1x2"))
    assert converter.reviews == []  # written and kept in one version: nothing to ask
    await send("GET", f"{V2}/b")
    review = converter.reviews[-1]
    assert (review["kind"], review["apiVersion"]) == ("ConversionReview", "apiextensions.k8s.io/v1")
    assert review["request"]["desiredAPIVersion"] == "shapes.example.test/v2"
    [sent] = review["request"]["objects"]
    assert (sent["apiVersion"], sent["spec"], sent["metadata"]["name"]) == (
        "shapes.example.test/v1",
        {"size": "1x2"},
        "b",
    )


FAULTS: list[tuple[Callable[[Object], Any], str]] = [
    (lambda r: r | {"uid": "x"}, "failed: expected response.uid="),
    (lambda r: r | {"result": {"status": "Failure", "message": "not today"}}, "Kind=Box failed: not today"),
    (lambda r: r | {"result": {"status": "Failure"}}, "failed: response.result.status was 'Failure', not 'Success'"),
    (lambda r: r | {"convertedObjects": []}, "returned 0 objects, expected 1"),
    (lambda r: None, "failed: no response provided"),
    (lambda r: _changed(r, kind="Ball"), "invalid converted object at index 0: must have the same kind: Box != Ball"),
    (lambda r: _changed(r, apiVersion="shapes.example.test/v3"), "invalid groupVersion"),
    (lambda r: _changed(r, metadata={"name": "z"}), "must have the same name: b != z"),
    (lambda r: _changed(r, metadata=None), "it is no object with metadata"),
]


def _changed(response: Object, **fields: Any) -> Object:
    return response | {"convertedObjects": [each | fields for each in response["convertedObjects"]]}


@pytest.mark.parametrize(("spoil", "said"), FAULTS)
async def test_a_bad_answer_is_told(
    cluster: Any, send: Send, boxes: Any, converter: Any, spoil: Callable[[Object], Any], said: str
) -> None:
    """What is wrong with the webhook's answer reaches the client, on reads, lists and watches; the other version works."""
    await send("POST", CRDS, boxes())
    await send("POST", V1, box(size="1x2"))
    converter.spoil = spoil
    for path in (f"{V2}/b", V2):
        code, status = await send("GET", path)
        assert code == 500, status
        assert status["message"].startswith("conversion webhook for shapes.example.test/v1, Kind=Box ")
        assert said in status["message"]
    [event] = await lines(cluster, V2, 2)
    assert (event["type"], event["object"]["kind"]) == ("ERROR", "Status")
    assert said in event["object"]["message"]
    assert (await send("GET", f"{V1}/b"))[0] == 200
    assert (await send("POST", V2, box("v2", "new", width=1, height=1)))[0] == 500
    assert len((await send("GET", V1))[1]["items"]) == 1


async def test_only_labels_and_annotations_of_the_metadata_may_change(
    cluster: Any, send: Send, boxes: Any, converter: Any
) -> None:
    """Whatever else a webhook does to the metadata is undone."""
    await send("POST", CRDS, boxes())
    await send("POST", V1, box(size="1x2"))

    def spoil(response: Object) -> Object:
        for each in response["convertedObjects"]:
            more = {"labels": {"seen": "yes"}, "annotations": {"a": "b"}, "finalizers": ["x.y/z"], "generation": 77}
            each["metadata"] = each["metadata"] | more
        return response

    converter.spoil = spoil
    metadata = (await send("GET", f"{V2}/b"))[1]["metadata"]
    assert (metadata["labels"], metadata["annotations"], metadata["generation"]) == ({"seen": "yes"}, {"a": "b"}, 1)
    assert "finalizers" not in metadata


async def test_nobody_answers(cluster: Any, send: Send, boxes: Any) -> None:
    """A webhook that cannot be reached, or whose certificate nobody trusts, fails the request with the reason."""
    await send("POST", CRDS, boxes(client={"url": "https://127.0.0.1:1/convert"}))
    await send("POST", V1, box(size="1x2"))
    code, status = await send("GET", f"{V2}/b")
    assert code == 500
    assert 'failed: failed to call webhook: Post "https://127.0.0.1:1/convert"' in status["message"]


async def test_an_untrusted_certificate(cluster: Any, send: Send, boxes: Any, converter: Any) -> None:
    """Without `caBundle` the system's authorities decide."""
    await send("POST", CRDS, boxes(client={"url": converter.client["url"]}))
    await send("POST", V1, box(size="1x2"))
    code, status = await send("GET", f"{V2}/b")
    assert (code, "CERTIFICATE_VERIFY_FAILED" in status["message"]) == (500, True)
    assert converter.reviews == []


async def test_a_webhook_behind_a_service(cluster: Any, send: Send, boxes: Any, converter: Any) -> None:
    """A `service` is reached at its endpoint, with a certificate for NAME.NAMESPACE.svc."""
    port = urlsplit(converter.client["url"]).port
    await cluster.ensure_namespace("hooks")
    service = {"ports": [{"port": 443, "targetPort": port}]}
    await cluster.add(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "conv", "namespace": "hooks"}, "spec": service}
    )
    await cluster.add(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "conv-1", "namespace": "hooks", "labels": {"kubernetes.io/service-name": "conv"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
            "ports": [{"name": "", "port": port, "protocol": "TCP"}],
        }
    )
    service = {"namespace": "hooks", "name": "conv", "path": "/convert"}
    _, made = await send("POST", CRDS, boxes(client={"service": service, "caBundle": converter.client["caBundle"]}))
    assert made["spec"]["conversion"]["webhook"]["clientConfig"]["service"]["port"] == 443
    await send("POST", V1, box(size="1x2"))
    assert (await send("GET", f"{V2}/b"))[1]["spec"]["height"] == 2


async def test_stored_versions(cluster: Any, send: Send, boxes: Any, converter: Any) -> None:
    """A new storage version is noted; objects of the old one are converted, and rewritten by any write; only then it may go."""
    await send("POST", CRDS, boxes())
    await send("POST", V1, box(size="1x2"))
    code, changed = await send("PUT", CRD, boxes(storage="v2") | _version(await send("GET", CRD)))
    assert (code, changed["status"]["storedVersions"]) == (200, ["v1", "v2"])
    assert (await send("GET", f"{V2}/b"))[1]["spec"]["width"] == 1
    only = boxes(storage="v2")
    only["spec"]["versions"].pop(0)
    code, status = await send("PUT", CRD, only | _version(await send("GET", CRD)))
    assert code == 422
    assert "status.storedVersions[0]" in status["message"]
    assert "must remain in spec.versions until a storage migration" in status["message"]
    assert (await send("PUT", f"{V2}/b", (await send("GET", f"{V2}/b"))[1]))[0] == 200
    merge = "application/merge-patch+json"
    assert (await send("PATCH", f"{CRD}/status", {"status": {"storedVersions": ["v9"]}}, merge))[
        0
    ] == 200  # as upstream
    code, patched = await send("PATCH", f"{CRD}/status", {"status": {"storedVersions": ["v2"]}}, merge)
    assert (code, patched["status"]["storedVersions"]) == (200, ["v2"])
    code, changed = await send("PUT", CRD, only | _version(await send("GET", CRD)))
    assert (code, [version["name"] for version in changed["spec"]["versions"]]) == (200, ["v2"])
    converter.reviews.clear()
    assert (await send("GET", f"{V2}/b"))[1]["spec"] == {"width": 1, "height": 2, "depth": 1}
    assert converter.reviews == []  # the update wrote it in the new version, although nothing else changed
    assert (await send("GET", f"{V1}/b"))[0] == 404


async def test_a_definition_goes_without_its_webhook(cluster: Any, send: Send, boxes: Any) -> None:
    """Objects in a version that nobody converts any more go with their definition; a finalizer holds both."""
    body = boxes(client={"url": "https://127.0.0.1:1/convert"})
    body["spec"]["versions"].reverse()
    await send("POST", CRDS, body)
    await send("POST", V1, box(size="1x2"))
    held = box(name="held", size="1x2")
    held["metadata"]["finalizers"] = ["example.test/hold"]
    await send("POST", V1, held)
    assert (await send("DELETE", CRD))[0] == 200
    left = (await send("GET", V1))[1]["items"]
    assert [(item["metadata"]["name"], item["spec"], item["apiVersion"]) for item in left] == [
        ("held", {"size": "1x2"}, "shapes.example.test/v1")
    ]
    merge = "application/merge-patch+json"
    assert (await send("PATCH", f"{V1}/held", {"metadata": {"finalizers": []}}, merge))[0] == 200
    assert (await send("GET", CRD))[0] == 404


def _version(answer: tuple[int, Object]) -> Object:
    """The metadata for an update of what was read."""
    return {"metadata": answer[1]["metadata"]}


@pytest.mark.parametrize(
    ("conversion", "field"),
    [
        ({"strategy": "Sorcery"}, "spec.conversion.strategy"),
        ({"strategy": "Webhook"}, "spec.conversion.webhookClientConfig"),
        (
            {"strategy": "Webhook", "webhook": {"clientConfig": {"url": "https://a/"}}},
            "spec.conversion.conversionReviewVersions",
        ),
        (
            {"strategy": "Webhook", "webhook": {"clientConfig": {}, "conversionReviewVersions": ["v1"]}},
            "spec.conversion.webhookClientConfig",
        ),
        (
            {
                "strategy": "Webhook",
                "webhook": {"clientConfig": {"url": "http://a/"}, "conversionReviewVersions": ["v1"]},
            },
            "spec.conversion.webhookClientConfig.url",
        ),
        (
            {
                "strategy": "Webhook",
                "webhook": {"clientConfig": {"url": "https://a/"}, "conversionReviewVersions": ["v7"]},
            },
            "spec.conversion.conversionReviewVersions",
        ),
    ],
)
async def test_faults_of_a_conversion(cluster: Any, send: Send, boxes: Any, conversion: Object, field: str) -> None:
    """A conversion that could not work is refused with the definition."""
    body = boxes()
    body["spec"]["conversion"] = conversion
    code, status = await send("POST", CRDS, body)
    assert code == 422, status
    assert field in [cause["field"] for cause in status["details"]["causes"]]


APPLY = "application/apply-patch+yaml"


def owners(obj: Object) -> dict[str, Any]:
    """Who has which field of the spec."""
    entries = obj["metadata"].get("managedFields") or ()
    return {e["manager"]: sorted((e["fieldsV1"].get("f:spec") or {}).keys() - {"."}) for e in entries}


async def test_ownership_is_compared_in_each_managers_version(cluster: Any, send: Send, boxes: Any) -> None:
    """What one manager applied in a version conflicts with what another writes in another, and goes over by force."""
    body = boxes()
    await send("POST", CRDS, body)
    sized, wide = box(size="2x3"), box("v2", width=4, height=3)
    await send("PATCH", f"{V1}/b?fieldManager=one", sized, APPLY)
    code, status = await send("PATCH", f"{V2}/b?fieldManager=two", wide, APPLY)
    assert (code, status["message"]) == (
        409,
        'Apply failed with 1 conflict: conflict with "one": .spec.size',
    )
    code, shared = await send("PATCH", f"{V2}/b?fieldManager=two", box("v2", width=2, height=3), APPLY)
    assert (code, owners(shared)) == (200, {"one": ["f:size"], "two": ["f:height", "f:width"]})
    code, taken = await send("PATCH", f"{V2}/b?fieldManager=two&force=true", wide, APPLY)
    assert (code, owners(taken)) == (200, {"one": [], "two": ["f:height", "f:width"]})
    put = (await send("GET", f"{V1}/b"))[1]
    put["spec"]["size"] = "9x3"
    code, updated = await send("PUT", f"{V1}/b?fieldManager=three", put)
    assert (code, owners(updated)) == (200, {"one": [], "two": ["f:height"], "three": ["f:size"]})


async def test_an_applier_that_changes_versions_withdraws_in_the_old_one(cluster: Any, send: Send, boxes: Any) -> None:
    """Fields that were applied in one version and are not in the next apply, in another, are removed; others' stay."""
    body = boxes(client=None)
    for version in body["spec"]["versions"]:
        spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
        spec["properties"] = {name: {"type": "string"} for name in ("color", "owner", "kept", "size", "width")}
    await send("POST", CRDS, body)
    await send("PATCH", f"{V1}/b?fieldManager=one", box(size="1x1", color="red", owner="me", kept="a"), APPLY)
    await send("PATCH", f"{V1}/b?fieldManager=two", box(kept="a"), APPLY)
    code, made = await send("PATCH", f"{V2}/b?fieldManager=one", box("v2", owner="me", width="3"), APPLY)
    assert (code, made["spec"]) == (200, {"owner": "me", "kept": "a", "width": "3"})
    assert owners(made) == {"one": ["f:owner", "f:width"], "two": ["f:kept"]}
    assert [e["apiVersion"][-2:] for e in made["metadata"]["managedFields"]] == ["v2", "v1"]


async def test_entries_of_a_version_that_is_gone(cluster: Any, send: Send, boxes: Any) -> None:
    """An apply meets the error that kube-apiserver has for it; an update goes through and leaves no managers."""
    three = boxes(client=None)
    three["spec"]["versions"].append(three["spec"]["versions"][0] | {"name": "v3", "storage": False})
    await send("POST", CRDS, three)
    await send("PATCH", f"{V1.replace('v1', 'v3')}/b?fieldManager=old", box("v3", size="1x2"), APPLY)
    three["spec"]["versions"].pop()
    assert (await send("PUT", CRD, three | _version(await send("GET", CRD))))[0] == 200
    code, status = await send("PATCH", f"{V1}/b?fieldManager=new", box(size="1x2"), APPLY)
    why = "request to convert CR to an invalid group/version: shapes.example.test/v3"
    assert (code, status["message"]) == (500, why)
    code, made = await send("PATCH", f"{V1}/b", {"spec": {"size": "2x2"}}, "application/merge-patch+json")
    assert (code, "managedFields" in made["metadata"]) == (200, False)
    assert (await send("PATCH", f"{V1}/b?fieldManager=new", box(size="2x2"), APPLY))[0] == 200


async def test_a_status_that_is_taken_off_comes_back_with_its_defaults(
    send: Send, boxes: Callable[..., Object]
) -> None:
    """Who creates an object sees what the next reader sees; a dry run, too, goes the way of the version at rest."""
    made = boxes(None)
    for version in made["spec"]["versions"]:
        below = {"type": "object", "default": {"phase": "New"}, "properties": {"phase": {"type": "string"}}}
        version["schema"]["openAPIV3Schema"]["properties"]["status"] = below
    await send("POST", CRDS, made)
    _, created = await send("POST", V1, {**box(size="1x2"), "status": {"phase": "Mine"}})
    _, read = await send("GET", f"{V1}/b")
    assert created == read
    assert read["status"] == {"phase": "New"}
    _, tried = await send("POST", f"{V2}?dryRun=All", box("v2", "c", width=1))
    assert "width" not in tried["spec"]  # v1, which is at rest, has no such field


async def test_versions_that_go_out_of_use_are_warned_of(cluster: FakeCluster, send: Send, boxes: Any) -> None:
    """Whoever speaks of them hears the definition's own words, or which version to use instead, also with a refusal."""
    made = boxes(None)
    made["spec"]["versions"][0]["deprecated"] = True
    await send("POST", CRDS, made)

    async def warned(method: str, path: str, body: Any = None) -> list[str]:
        data = json.dumps(body).encode() if body is not None else b""
        request = Request(method, path, (), headers={"content-type": "application/json"}, body=data)
        answer = await cluster.transport.send(request, timeout=10)
        return [value for name, value in answer.headers if name.lower() == "warning"]

    told = '299 - "shapes.example.test/v1 Box is deprecated; use shapes.example.test/v2 Box"'
    assert await warned("POST", V1, box(size="1x2")) == await warned("GET", f"{V1}/none") == [told]
    assert await warned("GET", V2) == []
    _, stored = await send("GET", CRD)
    stored["spec"]["versions"][0]["deprecationWarning"] = "boxes have gone out of shape"
    await send("PUT", CRD, stored)
    assert await warned("GET", V1) == ['299 - "boxes have gone out of shape"']
