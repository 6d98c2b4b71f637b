"""Controllers: what wakes them, what their outcomes lead to, and that one key's trouble is its own."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sandlane.kube.errors import Conflict, NotFound, ServerError
from sandlane.kube.metadata import ObjectMeta
from sandlane.kube.resource import CONFIG_MAPS, NAMESPACES, SECRETS, Key
from sandlane.runtime.builder import Builder
from sandlane.runtime.controller import Controller
from sandlane.runtime.manager import Manager
from sandlane.runtime.owners import controller_reference
from sandlane.runtime.predicates import annotations_changed, any_of, generation_changed, labels_changed
from sandlane.runtime.result import PermanentError, Request, Result, TransientError
from sandlane.testing.clock import settle
from sandlane.testing.events import captured_events

A = Key("d", "a")


class Recorded:
    """A reconciler that notes its keys and does what a test says."""

    def __init__(self, act: Callable[[Request], Awaitable[Result]] | None = None) -> None:
        self.seen: list[Request] = []
        self._act = act

    async def reconcile(self, request: Request) -> Result:
        """Note the key."""
        self.seen.append(request)
        return Result.done() if self._act is None else await self._act(request)


def for_config_maps(manager: Manager) -> Builder:
    """The beginning of every sentence here."""
    return Controller.managed_by(manager).for_(CONFIG_MAPS)


async def test_its_own_objects_wake_it(rig: Any) -> None:
    """Existing ones at start, then each that comes, changes and goes."""
    await rig.config_map("a")
    manager, seen = rig.manager(), Recorded()
    for_config_maps(manager).complete(seen)
    async with rig.running(manager):
        await rig.rest(manager)
        assert A in seen.seen
        seen.seen.clear()
        await rig.cluster.client.patch(CONFIG_MAPS, "a", {"data": {"x": "y"}}, namespace="d")
        await rig.rest(manager)
        await rig.cluster.client.delete(CONFIG_MAPS, "a", "d")
        await rig.rest(manager)
        assert seen.seen == [A, A]


async def test_owned_objects_wake_their_controller(rig: Any) -> None:
    """By the controller reference, and only when it is of the right group and kind."""
    manager, seen = rig.manager(), Recorded()
    for_config_maps(manager).owns(SECRETS).complete(seen)
    owner = ObjectMeta(name="a", namespace="d", uid="u")
    references = {
        "mine": [controller_reference(CONFIG_MAPS, owner)],
        "another-kind": [controller_reference(NAMESPACES, owner)],
        "nobodys": [],
    }
    async with rig.running(manager):
        await rig.rest(manager)
        seen.seen.clear()
        for name, reference in references.items():
            body = {"metadata": {"name": name, "namespace": "d", "ownerReferences": reference}}
            await rig.cluster.client.create(SECRETS, body | {"apiVersion": "v1", "kind": "Secret"})
        await rig.rest(manager)
        assert seen.seen == [A]


async def test_watched_objects_wake_what_the_map_function_says(rig: Any) -> None:
    """Old and new state are asked; a map function that crashes harms nobody."""
    manager, seen = rig.manager(), Recorded()

    def targets(record: Any) -> list[Key]:
        if record.metadata.name == "bad":
            raise RuntimeError("a bug")
        return [Key("d", record.metadata.labels["for"])]

    Controller.managed_by(manager).named("watcher").watches(SECRETS, to_requests=targets).complete(seen)
    client = rig.cluster.client
    async with rig.running(manager):
        for name in ("bad", "good"):
            body = {"metadata": {"name": name, "namespace": "d", "labels": {"for": "a"}}}
            await client.create(SECRETS, body | {"apiVersion": "v1", "kind": "Secret"})
        await rig.rest(manager)
        assert seen.seen == [A]
        await client.patch(SECRETS, "good", {"metadata": {"labels": {"for": "b"}}}, namespace="d")
        await rig.rest(manager)
        assert sorted(seen.seen[1:]) == [A, Key("d", "b")]


async def test_predicates(rig: Any) -> None:
    """Only the changes that matter wake it."""
    cases = (
        (labels_changed, {"metadata": {"labels": {"x": "y"}}}, True),
        (labels_changed, {"data": {"x": "y"}}, False),
        (annotations_changed, {"metadata": {"annotations": {"x": "y"}}}, True),
        (annotations_changed, {"data": {"x": "z"}}, False),
        (generation_changed, {"data": {"x": "1"}}, False),  # ConfigMaps count no generations
        (any_of(labels_changed, annotations_changed), {"metadata": {"labels": {"x": "2"}}}, True),
    )
    for number, (predicate, patch, wakes) in enumerate(cases):
        manager, seen = rig.manager(), Recorded()
        for_config_maps(manager).with_event_filter(predicate).complete(seen)
        name = f"p{number}"
        await rig.config_map(name)
        async with rig.running(manager):
            await rig.rest(manager)
            seen.seen.clear()
            await rig.cluster.client.patch(CONFIG_MAPS, name, patch, namespace="d")
            await rig.rest(manager)
            assert bool(seen.seen) is wakes, (predicate, patch)


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (TransientError("later"), "error"),
        (Conflict(409, "Conflict", "", {}), "error"),
        (NotFound(404, "NotFound", "namespace", {}), "error"),
        (ServerError(500, "", "", {}), "error"),
        (KeyError("a bug"), "error"),
    ],
)
async def test_errors_back_off_and_are_tried_again(rig: Any, error: Exception, result: str) -> None:
    """Until it works; then the back-off is over."""
    await rig.config_map("a")
    times: list[float] = []

    async def act(request: Request) -> Result:
        if request == A and len(times) < 5:
            times.append(rig.clock.monotonic())
            raise error
        return Result.done()

    manager = rig.manager()
    controller = for_config_maps(manager).complete(Recorded(act))
    async with rig.running(manager):
        await rig.until(lambda: len(times) == 5)
        await rig.clock.advance(1)
        gaps = [round(b - a, 4) for a, b in itertools.pairwise(times)]
        assert gaps == [0.005, 0.01, 0.02, 0.04]
        assert controller.queue.failures(A) == 0
        assert manager.metrics.reconciles.counts["configmap", result] == 5


async def test_a_permanent_error_waits_for_a_change(rig: Any) -> None:
    """No retry by itself, an Event about the object; the next change is looked at."""
    await rig.config_map("a")

    async def act(request: Request) -> Result:
        raise PermanentError("Nonsense", "this cannot work")

    manager, seen = rig.manager(), Recorded(act)
    for_config_maps(manager).with_event_filter(lambda change: change.key == A).complete(seen)
    async with rig.running(manager):
        await rig.clock.advance(100)
        assert seen.seen == [A]
        assert await captured_events(rig.cluster.client, "d") == ["ConfigMap/a: Nonsense"]
        await rig.cluster.client.patch(CONFIG_MAPS, "a", {"data": {"x": "y"}}, namespace="d")
        await rig.rest(manager)
        assert seen.seen == [A, A]


async def test_not_found_is_done_once_the_object_is_gone(rig: Any) -> None:
    """A write that finds the object gone is no failure."""
    manager = rig.manager()

    async def act(request: Request) -> Result:
        if request != A:
            return Result.done()
        await rig.cluster.client.delete(CONFIG_MAPS, "a", "d")
        manager.cache.observe_deleted(CONFIG_MAPS, A)
        raise NotFound(404, "NotFound", "gone", {})

    controller = for_config_maps(manager).complete(Recorded(act))
    async with rig.running(manager):
        await rig.config_map("a")
        await rig.clock.advance(1)
        assert controller.queue.failures(A) == 0
        assert manager.metrics.errors.counts == {}


async def test_again_after_a_delay(rig: Any) -> None:
    """`requeue_after` comes at its time, `requeue` with the key's back-off."""
    await rig.config_map("a")
    times: list[float] = []

    async def act(request: Request) -> Result:
        if request != A:
            return Result.done()
        times.append(rig.clock.monotonic())
        return [Result.requeue_after(30), Result.requeue(), Result.done()][len(times) - 1]

    manager = rig.manager()
    for_config_maps(manager).complete(Recorded(act))
    async with rig.running(manager):
        await rig.until(lambda: len(times) == 3)
    assert times[1] - times[0] == pytest.approx(30)
    assert times[2] - times[1] == pytest.approx(0.005)


async def test_one_key_at_a_time_and_several_keys_at_once(rig: Any) -> None:
    """The same key is never with two workers; other keys do not wait for it."""
    inside: list[Key] = []
    most: list[int] = []
    gate = asyncio.Event()

    async def act(request: Request) -> Result:
        assert request not in inside
        inside.append(request)
        most.append(len(inside))
        await gate.wait()
        inside.remove(request)
        return Result.done()

    manager = rig.manager()
    controller = for_config_maps(manager).with_workers(3).complete(Recorded(act))
    async with rig.running(manager):
        for name in "abcde":
            controller.enqueue(Key("d", name))
            controller.enqueue(Key("d", name))
        await settle()
        controller.enqueue(A)
        await settle()
        assert max(most) == 3
        gate.set()
        await rig.rest(manager)


async def test_a_reconcile_that_never_ends_is_ended(rig: Any) -> None:
    """Its deadline frees the worker, is counted, and the key comes again."""
    manager = rig.manager()
    forever = asyncio.Event()
    times = []

    async def act(request: Request) -> Result:
        times.append(request)
        if len(times) == 1:
            await forever.wait()
        return Result.done()

    controller = for_config_maps(manager).with_workers(1).with_deadline(0.05).complete(Recorded(act))
    async with rig.running(manager):
        controller.enqueue(A)
        async with asyncio.timeout(10):
            while not manager.metrics.timeouts.counts:
                await asyncio.sleep(0.01)
        await rig.until(lambda: times.count(A) == 2)


async def test_waiting_for_something_cancelled_does_not_kill_the_worker(rig: Any) -> None:
    """A CancelledError that nobody sent to the worker is an error like others."""
    manager = rig.manager()
    dead: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    dead.cancel()
    times = []

    async def act(request: Request) -> Result:
        times.append(request)
        if times.count(A) == 1 and request == A:
            await dead
        return Result.done()

    controller = for_config_maps(manager).with_workers(1).complete(Recorded(act))
    async with rig.running(manager):
        controller.enqueue(A)
        await rig.until(lambda: times.count(A) == 2)


async def test_a_sentence_without_its_subject_is_refused(rig: Any) -> None:
    """A controller needs a kind or a name; `owns` needs the kind first."""
    with pytest.raises(ValueError, match="for_"):
        Controller.managed_by(rig.manager()).complete(Recorded())
    with pytest.raises(ValueError, match="for_"):
        Controller.managed_by(rig.manager()).owns(SECRETS)
