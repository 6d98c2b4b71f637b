"""The fault harness: whatever goes wrong on the way, a controller must end in the same world.

    await Harness(build, objects=[...], steps=[...]).check()

`build(manager)` registers the controllers under test; `objects` is the world at the start; each step is what a user does
once everything is at rest. `check` runs the row undisturbed, then again with empty memory (which must write nothing), then
once for each way to go wrong: a crash after each write, each call failing in each way, watches that break, drop events or
are late, a restart on a stale view. A row that would need more than `limit` runs has all its crashes and bad watches, and a
sample of the rest, by the seed. Whatever ends otherwise raises `Differs`, which prints the schedule, the calls and the
difference. What the API server makes up (uids, versions,
times, cluster IPs, node ports) is no difference.
"""

from __future__ import annotations

import asyncio
import difflib
import random  # noqa: TID251 - seeded, for repeatable tests
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import msgspec
import yaml

from sandlane.kube.cache import Cache
from sandlane.kube.client import Client
from sandlane.kube.resource import Object
from sandlane.kube.transport import Response
from sandlane.runtime.manager import Manager
from sandlane.runtime.options import ManagerOptions
from sandlane.testing.clock import ManualClock
from sandlane.testing.cluster import FakeCluster, InProcessTransport
from sandlane.testing.faults import Failure, FaultyTransport, Schedule, Watching

Build = Callable[[Manager], Any]
Step = Callable[[Client], Awaitable[Any]]
World = dict[str, Object]

QUIET = 45.0
"""Seconds without a write after which the world is at rest."""
ROUNDS = 60
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_VOLATILE = ("resourceVersion", "managedFields", "generation", "observedGeneration", "creationTimestamp")
_NODE_PORTS = ("nodePort", "healthCheckNodePort")
_LEFT_OUT = ("Event", "Lease")


class Differs(AssertionError):
    """A schedule led to another world, to a second write, or to no rest at all."""


class Report(msgspec.Struct):
    """What was run: the undisturbed world, its writes and calls, and how many schedules led to the same world."""

    world: World
    writes: list[str]
    calls: int
    schedules: int


class _Run(msgspec.Struct):
    world: World
    transports: list[FaultyTransport]
    second_writes: list[str]
    writes_before: list[int] = []
    """Of the first process, before each step, and after the last one."""

    @property
    def log(self) -> str:
        """The calls of each life of the process."""
        return "\n".join(f"life {n}:\n" + "\n".join(t.log) for n, t in enumerate(self.transports, 1))


class Harness:
    """One row of a controller's test. `environment` builds what else lives in the cluster and is never disturbed."""

    def __init__(
        self,
        build: Build,
        *,
        objects: Iterable[Object] = (),
        steps: Sequence[Step] = (),
        environment: Build | None = None,
        normalise: Callable[[Object], Object | None] = lambda obj: obj,
        options: ManagerOptions | None = None,
        seed: int = 0,
        limit: int = 250,
        quiet: float = QUIET,
        known: int = 0,
    ) -> None:
        """`known`: so many of the first steps are in another row, too: no crash after a write of theirs is tried again."""
        self._build = build
        self._objects = tuple(objects)
        self._steps = tuple(steps)
        self._environment = environment
        self._normalise = normalise
        self._options = options or ManagerOptions()
        self._seed = seed
        self._limit = limit
        self._quiet = quiet
        self._known = known

    async def check(self) -> Report:
        """Run everything. Raises `Differs`."""
        first = await self._run(Schedule())
        calls, writes = first.transports[0].calls, first.transports[0].writes
        if first.second_writes:
            raise Differs(f"the second run wrote: {first.second_writes}\n{first.log}")
        schedules = self._schedules(len(writes), calls, first.writes_before[self._known])
        for schedule in schedules:
            await self.try_schedule(schedule, first.world)
        return Report(first.world, [_describe(r.method, r.target) for r in writes], calls, len(schedules) + 1)

    async def undisturbed(self) -> World:
        """The world after all steps when nothing goes wrong. Raises `Differs` when a second run writes."""
        run = await self._run(Schedule())
        if run.second_writes:
            raise Differs(f"the second run wrote: {run.second_writes}\n{run.log}")
        return run.world

    async def try_schedule(self, schedule: Schedule, expected: World) -> None:
        """Run one schedule (again). Raises `Differs` when it does not lead to the expected world."""
        run = await self._run(schedule)
        if run.world != expected:
            raise Differs(f"schedule: {schedule} (seed {self._seed})\n{run.log}\n{difference(expected, run.world)}")
        if run.second_writes:
            raise Differs(
                f"schedule: {schedule} (seed {self._seed}): the second run wrote: {run.second_writes}\n{run.log}"
            )

    def _schedules(self, writes: int, calls: int, before: int = 0) -> list[Schedule]:
        always = [Schedule(crash_after_write=n) for n in range(before + 1, writes + 1)]
        always += [Schedule(watching=watching) for watching in Watching if watching is not Watching.WELL]
        found = [Schedule(crash_after_write=n, stale_restart=True) for n in range(before + 1, writes + 1)]
        found += [Schedule(fail_call=n, failure=failure) for n in range(1, calls + 1) for failure in Failure]
        room = max(0, self._limit - len(always))
        if len(found) > room:
            found = random.Random(self._seed).sample(found, room)
        return always + found

    async def _run(self, schedule: Schedule) -> _Run:
        """The whole story under one schedule, then once more with empty memory. Raises `Differs` when it ends badly."""
        transports: list[FaultyTransport] = []
        try:
            return await self._story(schedule, transports)
        except* Differs as group:
            raise group.exceptions[0] from None
        except* Exception as group:
            calls = _Run({}, transports, []).log
            raise Differs(f"schedule: {schedule} (seed {self._seed}): {group.exceptions[0]!r}\n{calls}") from group

    async def _story(self, schedule: Schedule, transports: list[FaultyTransport]) -> _Run:
        clock = ManualClock()
        cluster = FakeCluster(self._objects, clock=clock, seed=self._seed)
        async with cluster, asyncio.TaskGroup() as tasks:
            around: Manager | None = None
            if self._environment is not None:
                around = self._manager(cluster, clock, cluster.transport, self._environment)
                tasks.create_task(around.run(), name="environment")
                await clock.run_until(around.ready.is_set)
            life = _Life(self, cluster, clock, schedule, transports, tasks)
            life.start()
            await life.rest()
            writes_before = [0]
            for step in self._steps:
                await step(cluster.client)
                await life.rest()
                writes_before.append(len(transports[0].writes))
            await life.stop()
            world = await self._world(cluster)
            before = len(transports)
            life.schedule = Schedule()
            life.start()
            await life.rest()
            second = [_describe(r.method, r.target) for t in transports[before:] for r in t.writes]
            await life.stop()
            if around is not None:
                around.stop()
                await clock.advance(1)
        return _Run(world, transports, second, writes_before)

    def _manager(self, cluster: FakeCluster, clock: ManualClock, transport: Any, build: Build) -> Manager:
        client = Client(transport, clock=clock, rng=random.Random(self._seed))
        cache = Cache(client, clock=clock, rng=random.Random(self._seed), streaming=False)
        rng = random.Random(self._seed)
        manager = Manager(client, clock=clock, rng=rng, options=self._options, cache=cache, identity="harness")
        build(manager)
        return manager

    async def _world(self, cluster: FakeCluster) -> World:
        """Every object of the cluster, without what differs from run to run."""
        objects = [obj for obj in await all_objects(cluster) if obj["kind"] not in _LEFT_OUT]
        names = {obj["metadata"]["uid"]: f"<uid of {_name(obj)}>" for obj in objects}
        for obj in objects:
            if obj["kind"] == "Service":
                names |= {address: f"<address of {_name(obj)}>" for address in _addresses(obj)}
        world = {}
        for obj in objects:
            kept = self._normalise(_normalised(obj, names))
            if kept is not None:
                world[_name(obj)] = kept
        return world


class _Life:
    """The process under test, over its crashes and restarts."""

    def __init__(
        self,
        harness: Harness,
        cluster: FakeCluster,
        clock: ManualClock,
        schedule: Schedule,
        transports: list[FaultyTransport],
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._harness, self._cluster, self._clock = harness, cluster, clock
        self.schedule = self._first = schedule
        self._transports, self._tasks = transports, tasks
        self._manager: Manager | None = None
        self._job: asyncio.Task[None] | None = None
        self._crashed = False

    def start(self, stale: dict[str, Response] | None = None) -> None:
        """A process with empty memory."""
        inner = InProcessTransport(self._cluster.server)
        transport = FaultyTransport(inner, self._clock, self.schedule, crash=self._crash, stale=stale)
        self._transports.append(transport)
        self._manager = self._harness._manager(self._cluster, self._clock, transport, self._harness._build)
        self._job = self._tasks.create_task(self._manager.run(), name=f"life {len(self._transports)}")

    def _crash(self) -> None:
        assert self._job is not None
        self._crashed = True
        self._job.cancel()

    async def rest(self) -> None:
        """Until nobody writes any more. A crash on the way is followed by a restart."""
        for _ in range(ROUNDS):
            writes = self._count()
            await self._clock.advance(self._harness._quiet)
            if self._crashed:
                self._crashed = False
                stale = self._transports[0].lists if self.schedule.stale_restart else None
                self.schedule = msgspec.structs.replace(self.schedule, crash_after_write=0, fail_call=0)
                self.start(stale)
                continue
            assert self._manager is not None
            if self._job is not None and self._job.done():
                self._job.result()
                raise Differs("the manager ended by itself")
            if self._count() == writes and self._manager.idle and self._manager.ready.is_set():
                return
        calls = "\n".join(self._transports[-1].log[-40:])
        seed = self._harness._seed
        raise Differs(f"schedule: {self._first} (seed {seed}): it never comes to rest; the last calls:\n{calls}")

    async def stop(self) -> None:
        """End in good order."""
        assert self._manager is not None
        assert self._job is not None
        self._manager.stop()
        await self._clock.run_until(self._job.done)

    def _count(self) -> int:
        return sum(len(transport.writes) for transport in self._transports) + len(self._cluster.transport.writes)


async def all_objects(cluster: FakeCluster) -> list[Object]:
    """Every object that the cluster holds, once, in order of kind and name."""
    found: dict[str, Object] = {}
    for type_ in list(cluster.server.registry):
        if "list" in type_.verbs and cluster.store.count(type_.storage_key):
            for obj in (await cluster.client.list(type_.resource)).items:
                found.setdefault(obj["metadata"]["uid"], obj)
    return sorted(found.values(), key=_name)


def difference(expected: World, found: World) -> str:
    """Two worlds, compared line by line as YAML."""
    left, right = (yaml.safe_dump(world, sort_keys=True, width=110).splitlines() for world in (expected, found))
    return "\n".join(difflib.unified_diff(left, right, "undisturbed", "under the schedule", lineterm="", n=4))


def _normalised(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {
            key: "<node port>" if key in _NODE_PORTS and item else _normalised(item, names)
            for key, item in value.items()
            if key not in _VOLATILE
        }
    if isinstance(value, list):
        return [_normalised(item, names) for item in value]
    if isinstance(value, str):
        return names.get(value) or _TIME.sub("<time>", value)
    return value


def _addresses(service: Object) -> set[str]:
    """What the API server allocated for a Service; another one when it is made anew."""
    spec = service.get("spec") or {}
    return {spec.get("clusterIP"), *spec.get("clusterIPs", ())} - {None, "", "None"}


def _name(obj: Object) -> str:
    metadata = obj["metadata"]
    return f"{obj['kind']} {metadata.get('namespace', '')}/{metadata['name']}"


def _describe(method: str, target: str) -> str:
    return f"{method} {target}"
