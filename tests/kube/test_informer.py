"""Informers lose nothing: not on broken watches, expired versions, silent servers, or our own writes."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog

from sandlane.kube.cache import Cache
from sandlane.kube.client import Client
from sandlane.kube.errors import TransportError
from sandlane.kube.informer import Change, Informer
from sandlane.kube.metadata import ObjectMeta
from sandlane.kube.resource import PODS, Key
from sandlane.kube.unstructured import Unstructured
from sandlane.testing.clock import ManualClock, settle
from support.scripted import ScriptedTransport, bookmark, json_response, listing, pod, status_response


class World:
    """A cache over a script, with a record of the changes its handlers saw."""

    def __init__(self, *, streaming: bool = False, **informer: Any) -> None:
        self.clock = ManualClock()
        self.server = ScriptedTransport()
        client = Client(self.server, clock=self.clock, rng=random.Random(1))
        self.cache = Cache(client, clock=self.clock, rng=random.Random(1), streaming=streaming)
        self.informer: Informer[Unstructured] = self.cache.informer(PODS, **informer)
        self.changes: list[str] = []
        self.informer.add_handler(self._note)

    def _note(self, change: Change[Unstructured]) -> None:
        sign = "+" if change.old is None else "-" if change.new is None else "~"
        self.changes.append(f"{sign}{change.key.name}{'!' if change.initial else ''}")

    @property
    def names(self) -> list[str]:
        """What is in the store."""
        return [f"{r.metadata.name}@{r.metadata.resource_version}" for r in self.informer.store.list()]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The cache runs meanwhile."""
        async with asyncio.TaskGroup() as tasks:
            job = tasks.create_task(self.cache.run())
            await settle()
            yield
            job.cancel()


def queries(world: World) -> list[dict[str, str]]:
    """The queries so far."""
    return [dict(request.query) for request in world.server.requests]


async def test_a_list_then_its_watch() -> None:
    """Initial objects are marked as such; events follow; bookmarks move the version on."""
    world = World()
    world.server.answer(listing(5, pod("a", 1), token="t"), listing(5, pod("b", 2)))
    watch = world.server.watch()
    async with world.running():
        assert world.informer.synced.is_set()
        assert world.changes == ["+a!", "+b!"]
        watch.send("MODIFIED", pod("a", 6))
        watch.send("ADDED", pod("c", 7))
        watch.send("DELETED", pod("b", 8))
        watch.send("BOOKMARK", bookmark(90))
        await settle()
        assert world.changes[2:] == ["~a", "+c", "-b"]
        assert world.names == ["a@6", "c@7"]
        watch.cut()
        await world.clock.advance(1)
        assert queries(world)[1]["continue"] == "t"
        assert queries(world)[-1]["resourceVersion"] == "90"


async def test_a_streaming_list_goes_on_as_its_watch() -> None:
    """Initial events, the bookmark that ends them, then events: one request."""
    world = World(streaming=True)
    watch = world.server.watch()
    async with world.running():
        watch.send("ADDED", pod("a", 1))
        await settle()
        assert not world.informer.synced.is_set()
        watch.send("BOOKMARK", bookmark(5, initial_end=True))
        watch.send("ADDED", pod("b", 6))
        await settle()
        assert world.informer.synced.is_set()
        assert world.changes == ["+a!", "+b"]
        assert len(world.server.requests) == 1
        assert queries(world)[0]["sendInitialEvents"] == "true"


@pytest.mark.parametrize("refusal", ["422", "ignored"])
async def test_a_server_without_streaming_lists_is_listed(refusal: str) -> None:
    """Whether it says so (422) or watches without ever ending the initial events."""
    world = World(streaming=True)
    first = world.server.watch(422, {"reason": "Invalid", "code": 422}) if refusal == "422" else world.server.watch()
    world.server.answer(listing(5, pod("a", 1)))
    world.server.watch()
    async with world.running():
        if refusal == "ignored":
            first.send("ADDED", pod("a", 1))
            await world.clock.advance(11)
        assert world.informer.synced.is_set()
        assert world.names == ["a@1"]


@pytest.mark.parametrize("expired", ["status", "event"])
@pytest.mark.parametrize("streaming", [False, True])
async def test_an_expired_version_is_listed_again_and_compared(expired: str, streaming: bool) -> None:
    """410 as a status or as an event: what vanished meanwhile is a delete, what is the same is no change."""
    world = World(streaming=streaming)
    if streaming:
        watch = world.server.watch()
        watch.send("ADDED", pod("a", 1))
        watch.send("ADDED", pod("b", 2))
        watch.send("BOOKMARK", bookmark(5, initial_end=True))
    else:
        world.server.answer(listing(5, pod("a", 1), pod("b", 2)))
        watch = world.server.watch()
    async with world.running():
        if expired == "event":
            watch.send("ERROR", {"kind": "Status", "code": 410, "reason": "Expired"})
        else:
            watch.cut()
            world.server.watch(410, {"code": 410, "reason": "Expired"})
        world.changes.clear()
        if streaming:
            again = world.server.watch()
            again.send("ADDED", pod("b", 2))
            again.send("ADDED", pod("c", 8))
            again.send("BOOKMARK", bookmark(9, initial_end=True))
        else:
            world.server.answer(listing(9, pod("b", 2), pod("c", 8)))
            world.server.watch()
        await world.clock.advance(2)
        assert sorted(world.changes) == ["+c", "-a"]
        assert world.names == ["b@2", "c@8"]


async def test_a_dropped_connection_resumes_without_a_list() -> None:
    """A cut, a server error and garbage all resume from the last version seen, with pauses."""
    world = World()
    world.server.answer(listing(5))
    first = world.server.watch()
    async with world.running():
        first.send("ADDED", pod("a", 6))
        first.cut()
        world.server.watch(500, {"code": 500})
        world.server.watch().raw(b"{nonsense\n")
        world.server.watch().send("DELETED", pod("a", 7))
        await world.clock.advance(5)
        assert world.changes == ["+a", "-a"]
        assert [q.get("resourceVersion") for q in queries(world)[1:]] == ["5", "6", "6", "6"]


async def test_a_silent_watch_is_replaced() -> None:
    """No byte for the silence time: another watch, from the same version, and it is counted."""
    world = World()
    world.server.answer(listing(5))
    silent = world.server.watch()
    async with world.running():
        world.server.watch().send("ADDED", pod("a", 6))
        await world.clock.advance(89)
        assert world.changes == []
        await world.clock.advance(3)
        assert silent.closed.is_set()
        assert world.changes == ["+a"]
        assert world.informer.counts["silent"] == 1


@pytest.mark.parametrize("told", [False, True])
async def test_only_a_watch_that_has_fallen_silent_is_a_warning(told: bool) -> None:
    """A server that never had anything to tell of a kind may not even send bookmarks: nobody is warned of that."""
    world = World()
    world.server.answer(listing(5))
    watch = world.server.watch()
    with structlog.testing.capture_logs() as logs:
        async with world.running():
            world.server.watch()
            await world.clock.advance(1)
            if told:
                watch.send("ADDED", pod("a", 6))
            await world.clock.advance(92)
    assert [each["log_level"] for each in logs if each["event"] == "watch_silent"] == ["warning" if told else "info"]


async def test_a_server_that_ends_every_watch_is_not_hammered() -> None:
    """Requests over ten minutes of watches that end at once stay few."""
    world = World()
    world.server.answer(listing(5))
    for _ in range(100):
        world.server.watch().end()
    async with world.running():
        await world.clock.advance(600)
        assert 15 < len(world.server.requests) < 60


async def test_a_server_that_is_away_is_asked_less_and_less() -> None:
    """Lists that fail are repeated with back-off, and Retry-After is honoured."""
    world = World()
    world.server.answer(*[TransportError("away")] * 10, *[status_response(429, retry_after="20")] * 5, listing(5))
    world.server.watch()
    async with world.running():
        await world.clock.advance(90)
        assert not world.informer.synced.is_set()
        await world.clock.advance(60)
        assert world.informer.synced.is_set()


async def test_pages_that_expire_are_read_again_in_one() -> None:
    """410 in the middle of a paged list: a whole list."""
    world = World()
    world.server.answer(listing(5, pod("a", 1), token="t"), status_response(410, "Expired"), listing(6, pod("b", 2)))
    world.server.watch()
    async with world.running():
        await world.clock.advance(1)
        assert world.changes == ["+b!"]
        assert "limit" not in queries(world)[2]


async def test_own_writes_are_never_undone_by_older_news() -> None:
    """An answer that was observed wins over an event and over a list that are older; so does a delete."""
    world = World()
    world.server.answer(listing(5, pod("a", 1), pod("b", 2)))
    watch = world.server.watch()
    async with world.running():
        world.cache.observe(PODS, pod("a", 9))
        world.cache.observe(PODS, pod("new", 10))
        world.cache.observe_deleted(PODS, Key("d", "b"))
        watch.send("MODIFIED", pod("a", 7))
        watch.send("MODIFIED", pod("b", 2))
        await settle()
        assert world.names == ["a@9", "new@10"]
        watch.send("ERROR", {"code": 410})
        world.server.answer(listing(12, pod("a", 9)))
        world.server.watch()
        await world.clock.advance(1)
        assert world.names == ["a@9"]


async def test_observing_respects_selectors_and_namespaces() -> None:
    """An informer of some objects does not take in others; one that stops matching leaves."""
    world = World(label_selector="app=x", namespaces=["d"])
    world.server.answer(listing(5, pod("a", 1, labels={"app": "x"})))
    world.server.watch()
    async with world.running():
        world.cache.observe(PODS, pod("b", 6, labels={"app": "y"}))
        world.cache.observe(PODS, pod("c", 7, namespace="other", labels={"app": "x"}))
        assert world.names == ["a@1"]
        world.cache.observe(PODS, pod("a", 8, labels={}))
        assert world.names == []
        assert queries(world)[0]["labelSelector"] == "app=x"
        assert "/namespaces/d/pods" in world.server.requests[0].path


async def test_several_namespaces_are_synced_when_all_are() -> None:
    """One task per namespace; a list of one does not delete the other's."""
    world = World(namespaces=["d", "e"])
    world.server.answer(listing(5, pod("a", 1)), TransportError("away"), listing(6, pod("b", 2, namespace="e")))
    world.server.watch()
    world.server.watch()
    async with world.running():
        assert not world.informer.synced.is_set()
        await world.clock.advance(2)
        assert world.informer.synced.is_set()
        assert world.names == ["a@1", "b@2"]


async def test_waiting_for_a_version() -> None:
    """`wait_for` returns with the event, or the bookmark, that reaches it, and times out."""
    world = World()
    world.server.answer(listing(5))
    watch = world.server.watch()
    async with world.running():
        await world.cache.wait_for(PODS, Key("d", "a"), "4")
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(world.cache.wait_for(PODS, Key("d", "a"), "8"))
            watch.send("ADDED", pod("x", 7))
            await settle()
            assert not waiting.done()
            watch.send("BOOKMARK", bookmark(8))
        async with asyncio.TaskGroup() as tasks:
            late = tasks.create_task(_outcome(world.cache.wait_for(PODS, Key("d", "a"), "80", timeout=5)))
            await world.clock.advance(6)
        assert isinstance(late.result(), TimeoutError)


async def test_a_server_restored_from_a_backup_is_believed() -> None:
    """When versions go back, the list counts, not what was known."""
    world = World()
    world.server.answer(listing(100, pod("a", 90), pod("b", 91)))
    watch = world.server.watch()
    async with world.running():
        watch.send("ERROR", {"code": 410})
        world.server.answer(listing(50, pod("a", 20)))
        again = world.server.watch()
        await world.clock.advance(1)
        assert world.names == ["a@20"]
        again.send("MODIFIED", pod("a", 51))
        await settle()
        assert world.names == ["a@51"]


async def test_one_object_that_does_not_fit_does_not_stop_the_others() -> None:
    """It is left out, counted and logged."""
    world = World()
    bad = pod("bad", 1) | {"metadata": {"name": 7, "resourceVersion": "1"}}
    world.server.answer(json_response(listing(5, bad, pod("a", 2))))
    watch = world.server.watch()
    async with world.running():
        watch.send("ADDED", bad)
        watch.send("ADDED", pod("b", 6))
        await settle()
        assert world.names == ["a@2", "b@6"]
        assert world.informer.counts["undecodable"] == 2


async def test_a_transform_and_managed_fields() -> None:
    """Records are changed before they are kept; managedFields are dropped."""

    def strip(record: Unstructured) -> Unstructured:
        return Unstructured(ObjectMeta(name=record.metadata.name, namespace="d", resource_version="1"), record.raw)

    world = World(transform=strip)
    world.server.answer(listing(5, pod("a", 1, labels={"a": "b"}, managedFields=[{"manager": "x"}])))
    world.server.watch()
    async with world.running():
        record = world.informer.store.get(Key("d", "a"))
        assert record is not None
        assert record.metadata.labels == {}
        assert "managedFields" not in record.object()["metadata"]


async def test_a_cache_that_never_syncs_says_which() -> None:
    """The error names the kinds that are late."""
    world = World()
    world.server.answer(*[TransportError("away")] * 100)
    async with world.running(), asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(_outcome(world.cache.wait_synced(5)))
        await world.clock.advance(6)
        assert "pods" in str(waiting.result())
    with pytest.raises(ValueError, match="Unstructured"):
        world.cache.informer(PODS, Change)  # type: ignore[type-var]


async def _outcome(work: Any) -> Any:
    try:
        return await work
    except Exception as error:
        return error


async def test_one_silent_namespace_is_not_hidden_by_the_others() -> None:
    """The age of a kind's watches is that of the oldest one; so is the time without an attempt."""
    world = World(namespaces=("a", "b"))
    world.server.answer(listing(5), listing(5))
    busy, silent = world.server.watch(), world.server.watch()
    async with world.running():
        for n in range(8):
            await world.clock.advance(10)
            busy.send("ADDED", pod(f"p{n}", 10 + n))
        await settle()
        assert world.clock.monotonic() - world.informer.last_heard == 80
        assert world.clock.monotonic() - world.informer.last_attempt == 80
        silent.send("ADDED", pod("q", 9))
        await settle()
        assert world.clock.monotonic() - world.informer.last_heard == 0


async def test_the_garbage_collector_rests_while_records_are_made() -> None:
    """It is off for the initial list; what that left is frozen, and it is on again from then on."""
    seen: list[bool] = []

    def note(record: Unstructured) -> Unstructured:
        seen.append(gc.isenabled())
        return record

    world = World(transform=note)
    world.cache.tune_collector = True
    world.server.answer(listing(5, pod("a", 1)))
    watch = world.server.watch()
    frozen = gc.get_freeze_count()
    try:
        async with world.running():
            assert seen == [False]
            assert gc.isenabled()
            assert gc.get_freeze_count() > frozen
            watch.send("ADDED", pod("b", 6))
            await settle()
            assert seen == [False, True]
    finally:
        gc.unfreeze()
