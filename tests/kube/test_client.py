"""The client: typed errors, retries that do not hammer, pages, rates, and requests as the API wants them."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from sandlane.kube.bucket import Bucket
from sandlane.kube.client import Client, PatchType
from sandlane.kube.errors import (
    AlreadyExists,
    ApiError,
    BadRequest,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    KubeError,
    MethodNotAllowed,
    NotFound,
    ServerError,
    TooManyRequests,
    TransportError,
    Unauthorized,
)
from sandlane.kube.pods import logs, port_forward
from sandlane.kube.resource import DEPLOYMENTS, NAMESPACES, PODS, Key
from sandlane.kube.transport import Request
from sandlane.testing.clock import ManualClock
from support.scripted import ScriptedTransport, json_response, listing, pod, status_response


class Rig:
    """A client over a script, whose clock runs by itself."""

    def __init__(self, **options: Any) -> None:
        self.clock = SelfWinding()
        self.server = ScriptedTransport()
        self.client = Client(self.server, clock=self.clock, rng=random.Random(1), **options)

    @property
    def sent(self) -> Request:
        """The last request."""
        return self.server.requests[-1]


class SelfWinding(ManualClock):
    """A manual clock for one sleeper: it moves when somebody sleeps."""

    async def sleep(self, seconds: float) -> None:
        self.freeze_past(max(0.0, seconds))


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (400, "BadRequest", BadRequest),
        (401, "Unauthorized", Unauthorized),
        (403, "Forbidden", Forbidden),
        (404, "NotFound", NotFound),
        (405, "MethodNotAllowed", MethodNotAllowed),
        (409, "AlreadyExists", AlreadyExists),
        (409, "Conflict", Conflict),
        (410, "Expired", Gone),
        (422, "Invalid", Invalid),
        (418, "", ApiError),
    ],
)
async def test_each_status_has_its_error(code: int, reason: str, kind: type[ApiError]) -> None:
    """Raised at once, with the server's own words."""
    rig = Rig()
    rig.server.answer(status_response(code, reason, "in words"))
    with pytest.raises(kind, match="in words") as caught:
        await rig.client.get(PODS, "a", "d")
    assert (caught.value.status, caught.value.reason) == (code, reason)
    assert len(rig.server.requests) == 1


async def test_an_answer_that_is_no_status_is_told_as_it_is() -> None:
    """A proxy's page, for example."""
    rig = Rig()
    rig.server.answer(json_response("<html>", 403))
    with pytest.raises(Forbidden, match="<html>"):
        await rig.client.get(PODS, "a", "d")


@pytest.mark.parametrize("failure", [status_response(429), status_response(503), status_response(504)])
async def test_what_promises_success_is_tried_again(failure: Any) -> None:
    """With growing, jittered pauses; in the end the error is raised."""
    rig = Rig()
    rig.server.answer(*[failure] * 3, pod("a", 1))
    assert (await rig.client.get(PODS, "a", "d"))["metadata"]["name"] == "a"
    assert 0.3 < rig.clock.monotonic() < 1.5
    rig.server.answer(*[failure] * 5)
    with pytest.raises((TooManyRequests, ServerError)):
        await rig.client.get(PODS, "a", "d")
    assert len(rig.server.requests) == 9


async def test_retry_after_is_honoured() -> None:
    """Also for a 500, which is not tried again without it."""
    rig = Rig()
    rig.server.answer(status_response(429, retry_after="7"), status_response(500, retry_after="3"), pod("a", 1))
    await rig.client.get(PODS, "a", "d")
    assert 10 <= rig.clock.monotonic() < 11
    rig.server.answer(status_response(500, "InternalError"))
    with pytest.raises(ServerError):
        await rig.client.get(PODS, "a", "d")


async def test_a_lost_connection_is_tried_again_where_that_is_harmless() -> None:
    """Reads, apply, delete and named creates; not patches, whose effect may be there already."""
    rig = Rig()
    lost = TransportError("lost")
    rig.server.answer(lost, pod("a", 1), lost, pod("a", 1), lost, {}, lost, status_response(409, "AlreadyExists"))
    await rig.client.get(PODS, "a", "d")
    await rig.client.apply(PODS, {"metadata": {"name": "a", "namespace": "d"}})
    await rig.client.delete(PODS, "a", "d")
    with pytest.raises(AlreadyExists):
        await rig.client.create(PODS, pod("a", 1))
    rig.server.answer(lost)
    with pytest.raises(TransportError):
        await rig.client.patch(PODS, "a", {}, namespace="d")
    rig.server.answer(lost)
    with pytest.raises(TransportError):
        await rig.client.create(PODS, {"metadata": {"generateName": "a-", "namespace": "d"}})


async def test_lists_follow_their_pages() -> None:
    """And begin again in one page when those expire."""
    rig = Rig()
    rig.server.answer(listing(5, pod("a", 1), token="t"), listing(5, pod("b", 2)))
    found = await rig.client.list(PODS, "d", label_selector="x=y", field_selector="a=b")
    assert [item["metadata"]["name"] for item in found.items] == ["a", "b"]
    assert found.items[0]["kind"] == "Pod"
    query = dict(rig.sent.query)
    assert (query["continue"], query["limit"], query["labelSelector"], query["fieldSelector"]) == (
        "t",
        "500",
        "x=y",
        "a=b",
    )
    rig.server.answer(listing(5, pod("a", 1), token="t"), status_response(410), listing(6, pod("c", 3)))
    assert [item["metadata"]["name"] for item in (await rig.client.list(PODS)).items] == ["c"]
    assert rig.sent.target == "/api/v1/pods"


async def test_requests_are_what_the_api_wants() -> None:
    """Paths, queries, content types and bodies of each verb."""
    rig = Rig(user_agent="test/1")
    obj = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "namespace": "d"}}
    base = "/apis/apps/v1/namespaces/d/deployments"
    rig.server.answer(*[obj] * 9)
    await rig.client.create(DEPLOYMENTS, obj, dry_run=True)
    assert (rig.sent.method, rig.sent.target) == ("POST", f"{base}?dryRun=All")
    await rig.client.replace(DEPLOYMENTS, obj, subresource="status")
    assert (rig.sent.method, rig.sent.target) == ("PUT", f"{base}/a/status")
    for kind in (PatchType.JSON, PatchType.MERGE, PatchType.STRATEGIC):
        await rig.client.patch(DEPLOYMENTS, "a", [], namespace="d", patch_type=kind, field_manager="m")
        assert rig.sent.headers["content-type"] == kind.value
        assert rig.sent.target == f"{base}/a?fieldManager=m"
    await rig.client.apply(DEPLOYMENTS, {"metadata": {"name": "a", "namespace": "d"}}, field_manager="me")
    assert rig.sent.target == f"{base}/a?fieldManager=me&force=true"
    assert rig.sent.headers["content-type"] == "application/apply-patch+yaml"
    assert msgspec.json.decode(rig.sent.body)["kind"] == "Deployment"
    await rig.client.get(DEPLOYMENTS, "a", "d", subresource="scale")
    assert rig.sent.target == f"{base}/a/scale"
    await rig.client.delete(
        DEPLOYMENTS, "a", "d", uid="u", resource_version="5", propagation="Foreground", grace_seconds=0
    )
    assert msgspec.json.decode(rig.sent.body) == {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "preconditions": {"uid": "u", "resourceVersion": "5"},
        "propagationPolicy": "Foreground",
        "gracePeriodSeconds": 0,
    }
    await rig.client.get(NAMESPACES, "d", "ignored")
    assert rig.sent.target == "/api/v1/namespaces/d"
    assert rig.sent.headers["user-agent"] == "test/1"


async def test_the_rate_is_bounded() -> None:
    """A burst at once, then so many per second."""
    rig = Rig(qps=10, burst=5)
    rig.server.answer(*[{}] * 25)
    for _ in range(25):
        await rig.client.get(PODS, "a", "d")
    assert rig.clock.monotonic() == pytest.approx(2.0)
    bucket = Bucket(rig.clock, 1, 1)
    assert [bucket.try_take(), bucket.try_take()] == [True, False]


async def test_each_request_is_observed_and_guarded() -> None:
    """Status and time of each; a guard stops a request before it is sent, but not on an unguarded client."""
    seen: list[tuple[str, int]] = []
    rig = Rig(observe=lambda request, status, seconds: seen.append((request.method, status)))
    rig.server.answer({}, status_response(404), TransportError("lost"), TransportError("lost"), {})
    await rig.client.get(PODS, "a", "d")
    with pytest.raises(NotFound):
        await rig.client.get(PODS, "a", "d")
    with pytest.raises(TransportError):
        await rig.client.patch(PODS, "a", {}, namespace="d")

    def guard(request: Request) -> float | None:
        raise KubeError("not now")

    rig.client.guard = guard
    with pytest.raises(KubeError, match="not now"):
        await rig.client.delete(PODS, "a", "d")
    assert seen == [("GET", 200), ("GET", 404), ("PATCH", 0)]
    rig.server.answers.popleft()
    await rig.client.unguarded().delete(PODS, "a", "d")


async def test_lines_of_a_watch_are_whole_whatever_the_chunks() -> None:
    """Long ones, short ones, several in a chunk."""
    rig = Rig()
    watch = rig.server.watch()
    for piece in (b'{"a":1}\n{"b"', b":2", b"}\n\n", b"x" * 300_000, b"\n"):
        watch.raw(piece)
    watch.end()
    async with rig.client.watch(PODS, resource_version="1", timeout_seconds=5) as lines:
        assert [line async for line in lines] == [b'{"a":1}', b'{"b":2}', b"x" * 300_000]
    assert dict(rig.sent.query)["allowWatchBookmarks"] == "true"
    rig.server.watch(410, {"code": 410, "reason": "Expired"})
    with pytest.raises(Gone):
        async with rig.client.watch(PODS, resource_version="1"):
            pass


async def test_logs() -> None:
    """As bytes, as they come."""
    rig = Rig()
    watch = rig.server.watch()
    watch.raw(b"one\n")
    watch.raw(b"two\n")
    watch.end()
    async with logs(rig.client, Key("d", "p"), container="c", follow=True, tail_lines=5) as pieces:
        assert b"".join([piece async for piece in pieces]) == b"one\ntwo\n"
    assert rig.sent.target == "/api/v1/namespaces/d/pods/p/log?container=c&follow=true&tailLines=5"


async def test_a_transport_without_websockets_says_so() -> None:
    """Port-forward needs one."""
    with pytest.raises(KubeError, match="no WebSockets"):
        async with port_forward(Rig().client, Key("d", "p"), 80):
            pass
