"""The fault harness finds the bugs that it is there for, and passes a controller that has none."""

from __future__ import annotations

import re
from typing import Any

import pytest

from sandlane.kube.apply import Applier
from sandlane.kube.client import Client
from sandlane.kube.errors import AlreadyExists, NotFound
from sandlane.kube.resource import CONFIG_MAPS, SECRETS, SERVICES, Key, Object
from sandlane.runtime.controller import Controller
from sandlane.runtime.finalizers import add_finalizer, remove_finalizer
from sandlane.runtime.manager import Manager
from sandlane.runtime.owners import controller_reference
from sandlane.runtime.result import Request, Result
from sandlane.testing.events import captured_events
from sandlane.testing.faults import Failure, Schedule, Watching
from sandlane.testing.garbage import garbage_collection
from sandlane.testing.harness import Differs, Harness

FINALIZER = "example.com/keep"
SELECTOR = "kind=guestbook"


def guestbook(name: str = "a") -> Object:
    """A ConfigMap that asks for a Secret."""
    metadata = {"name": name, "namespace": "d", "labels": {"kind": "guestbook"}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"size": "3"}}


class Good:
    """Level-triggered: reads everything, assumes nothing."""

    def __init__(self, manager: Manager) -> None:
        self.client, self.cache, self.recorder = manager.client, manager.cache, manager.recorder
        self.applier = Applier(manager.client, manager.cache)
        self.books = manager.cache.informer(CONFIG_MAPS, label_selector=SELECTOR).store
        Controller.managed_by(manager).for_(CONFIG_MAPS, label_selector=SELECTOR).owns(SECRETS).complete(self)

    async def reconcile(self, request: Request) -> Result:
        """One Secret per guestbook, which says when it is done."""
        book = self.books.get(request)
        if book is None:
            return Result.done()
        owner = book.metadata
        if owner.deleting:
            if await self.applier.remove(SECRETS, self.secret(request), owner=owner):
                self.note(await remove_finalizer(self.client, CONFIG_MAPS, owner, FINALIZER))
            return Result.done()
        if (made := await add_finalizer(self.client, CONFIG_MAPS, owner, FINALIZER)) is not None:
            self.note(made)
            return Result.done()
        size = book.object()["data"]["size"]
        await self.applier.ensure(SECRETS, self.desired(request, owner, size), owner=owner)
        if owner.annotations.get("done") != size:
            self.recorder.event(CONFIG_MAPS, owner, "Done", f"size {size}")
            body = {"metadata": {"annotations": {"done": size}, "resourceVersion": owner.resource_version}}
            self.note(await self.client.patch(CONFIG_MAPS, request.name, body, namespace=request.namespace))
        return Result.done()

    def note(self, obj: Object | None) -> None:
        """Read our own writes."""
        if obj is not None:
            self.cache.observe(CONFIG_MAPS, obj)

    @staticmethod
    def secret(request: Request) -> Key:
        """Its name."""
        return Key(request.namespace, f"{request.name}-secret")

    def desired(self, request: Request, owner: Any, size: str) -> Object:
        """The Secret."""
        metadata = {"name": f"{request.name}-secret", "namespace": request.namespace}
        return {
            "metadata": metadata | {"ownerReferences": [controller_reference(CONFIG_MAPS, owner)]},
            "data": {"size": {"3": "Mw==", "4": "NA=="}[size]},
        }


async def grow(client: Client) -> None:
    """The user changes the size."""
    await client.patch(CONFIG_MAPS, "a", {"data": {"size": "4"}}, namespace="d")


async def delete(client: Client) -> None:
    """The user deletes it."""
    await client.delete(CONFIG_MAPS, "a", "d")


async def test_a_good_controller_passes() -> None:
    """Every crash point, every failing call, every kind of bad watch: the same world."""
    report = await Harness(Good, objects=[guestbook()], steps=[grow]).check()
    assert len(report.writes) == 5
    assert report.world["Secret d/a-secret"]["data"] == {"size": "NA=="}
    assert report.schedules > 40


async def test_steps_of_another_row_are_not_crashed_again() -> None:
    """With a known first step there is no crash after its writes; those of the steps after it are all there."""
    steps = [grow, delete]
    whole = Harness(Good, objects=[guestbook()], steps=steps, limit=1)
    run = await whole._run(Schedule())
    rest = Harness(Good, objects=[guestbook()], steps=steps, limit=1, known=1)
    before, calls = run.writes_before[1], run.transports[0].calls
    assert run.writes_before == [0, 5, len(run.transports[0].writes)]
    crashes = [each.crash_after_write for each in rest._schedules(run.writes_before[2], calls, before)]
    assert [each for each in crashes if each] == list(range(6, run.writes_before[2] + 1))


async def test_garbage_is_collected() -> None:
    """With the garbage collector in the environment, what a deleted object owned goes with it."""

    class Ownerly(Good):
        """No finalizer: it leaves its Secret to the garbage collector."""

        async def reconcile(self, request: Request) -> Result:
            """One Secret per guestbook."""
            book = self.books.get(request)
            if book is not None:
                await self.applier.ensure(SECRETS, self.desired(request, book.metadata, "3"), owner=book.metadata)
            return Result.done()

    row = Harness(
        Ownerly,
        objects=[guestbook(), guestbook("b")],
        steps=[delete],
        environment=garbage_collection,
        limit=1,
    )
    report = await row.check()
    assert "Secret d/b-secret" in report.world
    assert "Secret d/a-secret" not in report.world


async def test_deletion_passes_too() -> None:
    """Finalizer on, Secret, then all of it away again."""
    report = await Harness(Good, objects=[guestbook(), guestbook("b")], steps=[delete], limit=30).check()
    assert "Secret d/a-secret" not in report.world
    assert "Secret d/b-secret" in report.world


class Forgetful(Good):
    """Keeps what it has done in memory: a crash makes it do it again."""

    async def reconcile(self, request: Request) -> Result:
        """Makes a Secret under a new name each time."""
        if not hasattr(self, "_done"):
            self._done: set[Key] = set()
        if request in self._done or self.books.get(request) is None:
            return Result.done()
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"generateName": "s-", "namespace": "d"}}
        await self.client.create(SECRETS, body)
        self._done.add(request)
        return Result.done()


class Hasty(Good):
    """Takes every error for success."""

    async def reconcile(self, request: Request) -> Result:
        """A lost request is never repeated."""
        book = self.books.get(request)
        if book is None:
            return Result.done()
        metadata = {"name": "s", "namespace": "d"}
        try:
            known = await self.client.get(SECRETS, "s", "d")
        except NotFound:
            known = None
        if known is None:
            try:
                await self.client.create(SECRETS, {"apiVersion": "v1", "kind": "Secret", "metadata": metadata})
            except (AlreadyExists, Exception):
                return Result.done()
        return Result.done()


class Busy(Good):
    """Writes in every pass, also when there is nothing to write."""

    async def reconcile(self, request: Request) -> Result:
        """An annotation that is there already."""
        if self.books.get(request) is not None:
            await self.client.patch(CONFIG_MAPS, "a", {"metadata": {"annotations": {"x": "y"}}}, namespace="d")
        return Result.done()


@pytest.mark.parametrize(("controller", "schedule"), [(Forgetful, "second run"), (Busy, "second run"), (Hasty, "call")])
async def test_bugs_are_found(controller: type[Good], schedule: str) -> None:
    """And the message tells the schedule and the calls."""
    with pytest.raises(Differs, match=schedule):
        await Harness(controller, objects=[guestbook()]).check()


async def test_a_schedule_can_be_repeated() -> None:
    """What a failure prints can be run alone."""
    harness = Harness(Good, objects=[guestbook()], limit=1)
    world = (await harness.check()).world
    schedule = Schedule(fail_call=4, failure=Failure.LOST_ANSWER)
    await harness.try_schedule(schedule, world)
    assert "answer lost" in str(schedule)
    with pytest.raises(Differs, match=r"answer lost(.|\n)*under the schedule"):
        await harness.try_schedule(schedule, {})


async def test_every_way_to_go_wrong_is_tried() -> None:
    """For a small row all of them; of a large one all crashes and bad watches, and the same sample for the same seed."""
    everything = Harness(Good)._schedules(writes=2, calls=5)
    assert len(everything) == len(set(everything)) == 2 + 2 + 3 + 5 * len(Failure)
    assert {failure.value for failure in Failure} >= {"409", "429", "500", "no answer in time"}
    sampled = Harness(Good, seed=3, limit=12)._schedules(writes=4, calls=50)
    assert sampled == Harness(Good, seed=3, limit=12)._schedules(writes=4, calls=50)
    assert sampled != Harness(Good, seed=4, limit=12)._schedules(writes=4, calls=50)
    assert len(sampled) == 12
    assert [s.crash_after_write for s in sampled[:4]] == [1, 2, 3, 4]
    assert [s.watching for s in sampled[4:7]] == [Watching.CUT, Watching.EXPIRE, Watching.LATE]


@pytest.mark.parametrize(
    ("schedule", "told"),
    [
        (Schedule(fail_call=3, failure=Failure.SERVER_ERROR), "watch=true.*! 500"),
        (Schedule(fail_call=1, failure=Failure.TIMEOUT), "! no answer in time"),
        (Schedule(watching=Watching.LATE), "five seconds late"),
    ],
)
async def test_watches_fail_and_calls_hang(schedule: Schedule, told: str) -> None:
    """A watch is a call like others; a call may have no answer for as long as it is waited for; events may be late."""
    run = await Harness(Good, objects=[guestbook()])._run(schedule)
    assert re.search(told, run.log)


class Dying(Good):
    """A runnable of it dies when a call fails."""

    def __init__(self, manager: Manager) -> None:
        super().__init__(manager)
        manager.add_runnable(self.look)

    async def look(self) -> None:
        """Once, without handling an error."""
        await self.client.list(CONFIG_MAPS, "d")


async def test_a_process_that_dies_tells_the_schedule() -> None:
    """So does everything else that ends a run: the failure can be repeated."""
    with pytest.raises(Differs, match=r"schedule: call 1 fails: 500 \(seed 5\)(.|\n)*life 1"):
        await Harness(Dying, objects=[guestbook()], seed=5).try_schedule(
            Schedule(fail_call=1, failure=Failure.SERVER_ERROR), {}
        )


async def test_events_are_captured() -> None:
    """As reason and object."""
    seen: list[str] = []

    async def look(client: Client) -> None:
        seen.extend(await captured_events(client, "d"))

    await Harness(Good, objects=[guestbook()], steps=[look], limit=2).check()
    assert "ConfigMap/a: Done" in seen


async def test_a_stale_restart_sees_the_past() -> None:
    """The restarted process lists what was there before its own writes, and ends in the same world."""
    harness = Harness(Good, objects=[guestbook()])
    run = await harness._run(Schedule(crash_after_write=2, stale_restart=True))
    assert "a stale answer" in run.log
    assert run.log.count("life") == 3


async def test_what_the_server_allocates_is_no_difference() -> None:
    """A Service that is made anew gets another cluster IP and node port; its other fields still count."""

    def service(name: str, **spec: Any) -> Object:
        ports = [{"port": 80}]
        metadata = {"name": name, "namespace": "d"}
        return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": ports, **spec}}

    def make(*wanted: Object) -> Any:
        async def step(client: Client) -> None:
            for obj in wanted:
                await client.create(SERVICES, obj)
            address = (await client.get(SERVICES, "real", "d"))["spec"]["clusterIP"]
            told = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "told", "namespace": "d"}}
            await client.create(CONFIG_MAPS, told | {"data": {"address": address}})

        return step

    def row(*wanted: Object) -> Harness:
        return Harness(lambda manager: None, objects=[guestbook()], steps=[make(*wanted)])

    real, headless = service("real", type="NodePort"), service("headless", clusterIP="None")
    expected = (await row(real, headless).check()).world
    assert expected["Service d/headless"]["spec"]["clusterIP"] == "None"
    normalised = expected["Service d/real"]["spec"]
    assert normalised["clusterIP"] == normalised["clusterIPs"][0] == expected["ConfigMap d/told"]["data"]["address"]

    async def again(client: Client) -> None:
        for name in ("first", "second"):
            await client.create(SERVICES, service(name, type="NodePort"))
        await make(real, headless)(client)
        for name in ("first", "second"):
            await client.delete(SERVICES, name, "d")

    others = Harness(lambda manager: None, objects=[guestbook()], steps=[again])
    await others.try_schedule(Schedule(), expected)
    changed = row(real | {"spec": real["spec"] | {"ports": [{"port": 81}]}}, headless)
    with pytest.raises(Differs, match="port: 81"):
        await changed.try_schedule(Schedule(), expected)
