"""Leader election: one writer at a time, whatever happens to processes, clocks and the API server."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from sandlane.kube.client import Client
from sandlane.kube.errors import KubeError, TransportError
from sandlane.kube.resource import CONFIG_MAPS, LEASES
from sandlane.kube.transport import Request, Response
from sandlane.runtime.leader import LeaderElector, LeaseOptions, NotLeading
from sandlane.runtime.manager import LeadershipLost
from sandlane.testing.clock import ManualClock, settle
from sandlane.testing.cluster import FakeCluster, InProcessTransport


class Candidate:
    """A process: its own clock (which can stop), transport and elector; it writes whenever it may."""

    def __init__(self, cluster: FakeCluster, clock: ManualClock, name: str) -> None:
        self.name, self.cluster, self.clock = name, cluster, clock
        self.transport = InProcessTransport(cluster.server)
        rng = random.Random(name)
        self.client = Client(self.transport, clock=clock, rng=rng)
        self.elector = LeaderElector(self.client, LeaseOptions("l", "d", name), clock, rng)
        self.client.guard = self.elector.guard
        self.job: asyncio.Task[None] | None = None

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Run for the Lease."""
        self.job = tasks.create_task(self.elector.run(lambda: None))

    def kill(self) -> None:
        """End without a word."""
        assert self.job is not None
        self.job.cancel()

    async def write(self) -> bool:
        """Try to write; whether it was allowed."""
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": self.name, "namespace": "d"}}
        try:
            await self.client.create(CONFIG_MAPS, body)
        except NotLeading:
            return False
        return True


@pytest.fixture
async def cluster(clock: ManualClock) -> Any:
    async with FakeCluster(clock=clock) as cluster:
        await cluster.ensure_namespace("d")
        yield cluster


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


async def test_one_leads_and_the_other_takes_over_after_a_kill(cluster: FakeCluster, clock: ManualClock) -> None:
    """Within twenty seconds."""
    one, two = Candidate(cluster, clock, "one"), Candidate(cluster, clock, "two")
    async with asyncio.TaskGroup() as tasks:
        one.start(tasks)
        await clock.advance(3)
        two.start(tasks)
        await clock.advance(60)
        assert (await one.write(), await two.write()) == (True, False)
        one.kill()
        killed = clock.monotonic()
        await clock.run_until(lambda: two.elector.leading, within=20)
        assert clock.monotonic() - killed > 5
        lease = await cluster.client.get(LEASES, "l", "d")
        assert (lease["spec"]["holderIdentity"], lease["spec"]["leaseTransitions"]) == ("two", 1)
        two.kill()


async def test_a_released_lease_is_taken_within_three_seconds(cluster: FakeCluster, clock: ManualClock) -> None:
    """A clean exit hands over; nothing can be written after it."""
    one, two = Candidate(cluster, clock, "one"), Candidate(cluster, clock, "two")
    async with asyncio.TaskGroup() as tasks:
        one.start(tasks)
        await clock.advance(3)
        two.start(tasks)
        await clock.advance(10)
        one.kill()
        await one.elector.release()
        assert not await one.write()
        await clock.run_until(lambda: two.elector.leading, within=3)
        two.kill()


async def test_a_standby_hears_of_the_release_at_once(cluster: FakeCluster, clock: ManualClock) -> None:
    """It watches the Lease: no time passes between the release, or the deletion, and the next leader."""
    one, two = Candidate(cluster, clock, "one"), Candidate(cluster, clock, "two")
    async with asyncio.TaskGroup() as tasks:
        one.start(tasks)
        await clock.advance(3)
        two.start(tasks)
        await clock.advance(10)
        one.kill()
        await one.elector.release()
        await settle()
        assert two.elector.leading
        three = Candidate(cluster, clock, "three")
        three.start(tasks)
        await clock.advance(3)
        await cluster.client.delete(LEASES, "l", "d")
        two.kill()
        await settle()
        assert three.elector.leading
        three.kill()


@pytest.mark.parametrize("holder", ["one", "thief"])
async def test_a_renewal_that_was_cut_short_does_not_keep_the_lease(
    cluster: FakeCluster, clock: ManualClock, holder: str
) -> None:
    """It may have reached the server: what is ours is released whatever its version is, what is another's is not."""
    one = Candidate(cluster, clock, "one")
    async with asyncio.TaskGroup() as tasks:
        one.start(tasks)
        await clock.advance(3)
        lease = await cluster.client.get(LEASES, "l", "d")
        renewed = lease["spec"] | {"holderIdentity": holder, "renewTime": "2030-01-01T00:00:03.500000Z"}
        await cluster.client.replace(LEASES, lease | {"spec": renewed})
        one.kill()
        await one.elector.release()
    lease = await cluster.client.get(LEASES, "l", "d")
    assert lease["spec"].get("holderIdentity", "") == {"one": "", "thief": "thief"}[holder]


async def test_a_lease_is_released_past_its_deadline(cluster: FakeCluster, clock: ManualClock) -> None:
    """A leader that could not renew in time and ends has not been replaced yet: nobody needs to wait for its Lease."""
    one, two = Candidate(cluster, clock, "one"), Candidate(cluster, clock, "two")
    async with asyncio.TaskGroup() as tasks:
        one.start(tasks)
        await clock.advance(3)
        two.start(tasks)
        await clock.advance(10)
        one.kill()
        await clock.advance(10.5)
        assert not one.elector.leading
        assert not two.elector.leading
        await one.elector.release()
        await settle()
        assert two.elector.leading
        two.kill()


async def test_renewals_do_not_wait_behind_other_requests(cluster: FakeCluster, clock: ManualClock) -> None:
    """The rate limit is for the controllers' requests: a queue of them must not cost the Lease."""
    one = Candidate(cluster, clock, "one")
    one.client = Client(one.transport, clock=clock, rng=random.Random(1), qps=1, burst=1)
    one.elector = LeaderElector(one.client, LeaseOptions("l", "d", "one"), clock, random.Random(1))
    async with asyncio.TaskGroup() as tasks:
        one.start(tasks)
        reads = [tasks.create_task(one.client.list(LEASES, "d")) for _ in range(100)]
        await clock.advance(60)
        assert one.elector.leading
        for read in reads:
            read.cancel()
        one.kill()


@pytest.mark.parametrize("trouble", ["refused", "garbage", "ends at once"])
async def test_a_lease_that_cannot_be_watched_is_asked_for(
    cluster: FakeCluster, clock: ManualClock, trouble: str
) -> None:
    """Without the right to watch, or behind a proxy that spoils watches, a release is found within the retry period,
    and the server is not asked more than twice as often.
    """
    one, two = Candidate(cluster, clock, "one"), Candidate(cluster, clock, "two")
    asked: list[str] = []

    async def spoil(request: Request) -> Response | None:
        asked.append(request.path)
        if not dict(request.query).get("watch"):
            return None
        body = b'{"kind":"Status","code":403}' if trouble == "refused" else b"<html>\n"
        return Response(403 if trouble == "refused" else 200, (), b"" if trouble == "ends at once" else body)

    two.transport.intercepts.append(spoil)
    async with asyncio.TaskGroup() as tasks:
        one.start(tasks)
        await clock.advance(3)
        two.start(tasks)
        await clock.advance(60)
        assert len(asked) <= 80
        one.kill()
        await one.elector.release()
        await clock.run_until(lambda: two.elector.leading, within=3)
        two.kill()


async def test_a_stopped_process_writes_nothing_when_it_wakes(cluster: FakeCluster, clock: ManualClock) -> None:
    """SIGSTOP for longer than the Lease: the deadline has passed by its own clock before anything is sent."""
    own = ManualClock()
    one, two = Candidate(cluster, own, "one"), Candidate(cluster, clock, "two")
    async with asyncio.TaskGroup() as tasks:
        one.start(tasks)
        await own.advance(3)
        two.start(tasks)
        await clock.advance(30)  # `one` does not run meanwhile
        assert two.elector.leading
        own.freeze_past(30)
        assert not await one.write()
        await settle()
        assert await two.write()
        two.kill()
    assert not one.elector.leading


async def test_a_jump_of_the_time_of_day_changes_nothing(cluster: FakeCluster, clock: ManualClock) -> None:
    """Neither of one's own nor as seen by the others."""
    one, two = Candidate(cluster, clock, "one"), Candidate(cluster, clock, "two")
    async with asyncio.TaskGroup() as tasks:
        one.start(tasks)
        await clock.advance(3)
        two.start(tasks)
        for seconds in (3600, -7200, 86400 * 365):
            clock.jump(seconds)
            await clock.advance(20)
            assert (await one.write(), await two.write()) == (True, False)
        one.kill()
        two.kill()


async def test_writing_ends_before_the_lease_can_be_anothers(cluster: FakeCluster, clock: ManualClock) -> None:
    """The API server is away for the leader only: it stops at the renew deadline; the other waits for the duration."""
    one, two = Candidate(cluster, clock, "one"), Candidate(cluster, clock, "two")

    async def away(request: Request) -> Response | None:
        raise TransportError("away")

    async with asyncio.TaskGroup() as tasks:
        one.start(tasks)
        await clock.advance(3)
        two.start(tasks)
        await clock.advance(5)
        one.transport.intercepts.append(away)
        cut = clock.monotonic()
        await clock.run_until(lambda: not one.elector.leading, within=15)
        assert not two.elector.leading
        assert clock.monotonic() - cut <= 12.5  # looked at when somebody wakes
        with pytest.raises(NotLeading):
            one.elector.guard(Request("POST", "/api/v1/namespaces/d/configmaps"))
        await clock.run_until(lambda: two.elector.leading, within=20)
        two.kill()


async def test_a_hanging_request_does_not_outlive_the_lease(cluster: FakeCluster, clock: ManualClock) -> None:
    """The guard tells how long a write may take: until the Lease can be another's."""
    one = Candidate(cluster, clock, "one")
    async with asyncio.TaskGroup() as tasks:
        one.start(tasks)
        await clock.advance(1)
        await clock.advance(0.5)
        limit = one.elector.guard(Request("PATCH", "/api/v1/namespaces/d/configmaps/a"))
        assert limit is not None
        assert 10 < limit <= 15
        assert one.elector.guard(Request("GET", "/api/v1/pods")) is None
        review = Request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews")
        assert one.elector.guard(review) is None
        one.kill()


@pytest.mark.parametrize("seed", range(5))
async def test_no_two_writers_under_kills_pauses_and_faults(seed: int) -> None:
    """Random kills, pauses, outages and clock jumps: at any moment at most one may write, and somebody leads again."""
    rng = random.Random(seed)
    base = ManualClock()
    async with FakeCluster(clock=base, seed=seed) as cluster, asyncio.TaskGroup() as tasks:
        await cluster.ensure_namespace("d")
        clocks = [ManualClock() for _ in range(3)]
        running = [Candidate(cluster, clock, f"c{index}") for index, clock in enumerate(clocks)]
        for candidate in running:
            candidate.start(tasks)
        born = 0
        for _ in range(60):
            index = rng.randrange(3)
            match rng.choice(["run", "run", "run", "kill", "pause", "outage", "jump"]):
                case "kill":
                    running[index].kill()
                    born += 1
                    running[index] = Candidate(cluster, clocks[index], f"c{index}-{born}")
                    running[index].start(tasks)
                case "pause":  # the others go on, this one wakes late
                    nap = rng.uniform(1, 40)
                    others = [clock for other, clock in enumerate(clocks) if other != index]
                    await _advance(others, nap)
                    clocks[index].freeze_past(nap)
                case "outage":
                    drop = rng.random()

                    async def lose(request: Request, drop: float = drop) -> Response | None:
                        if rng.random() < drop:
                            raise TransportError("lost")
                        return None

                    running[index].transport.intercepts[:] = [lose] if rng.random() < 0.5 else []
                case "jump":
                    clocks[index].jump(rng.uniform(-1e6, 1e6))
            wrote = [candidate.name for candidate in running if candidate.elector.leading]
            assert len(wrote) <= 1, (seed, wrote)
            await _advance(clocks, rng.uniform(0.1, 8))
            wrote = [candidate.name for candidate in running if candidate.elector.leading]
            assert len(wrote) <= 1, (seed, wrote)
            for index, candidate in enumerate(running):
                if candidate.job is not None and candidate.job.done():  # it lost the Lease and ended: a new process
                    born += 1
                    running[index] = Candidate(cluster, clocks[index], f"c{index}-{born}")
                    running[index].start(tasks)
        for candidate in running:
            candidate.transport.intercepts.clear()
        await _advance(clocks, 40)
        leaders = [candidate for candidate in running if candidate.elector.leading]
        assert len(leaders) == 1
        for candidate in running:
            candidate.kill()


async def test_a_manager_that_loses_the_lease_ends(rig: Any) -> None:
    """It raises, so that the process is started afresh; meanwhile its writes are stopped."""
    manager = rig.manager(leader_elect=True)

    async def steal() -> None:
        lease = await rig.cluster.client.get(LEASES, "sandlane-manager", "default")
        lease["spec"]["holderIdentity"] = "thief"
        await rig.cluster.client.replace(LEASES, lease)

    job = asyncio.ensure_future(manager.run())
    await rig.until(manager.leading.is_set)
    await steal()
    await rig.until(job.done)
    with pytest.raises(ExceptionGroup) as caught:
        await job
    assert caught.group_contains(LeadershipLost)
    with pytest.raises(KubeError):
        await manager.client.delete(CONFIG_MAPS, "a", "d")


async def test_a_manager_that_dies_releases_the_lease(rig: Any) -> None:
    """Whatever it was that died: the standby leads at once."""
    one, two = rig.manager(identity="one", leader_elect=True), rig.manager(identity="two", leader_elect=True)
    dying = asyncio.Event()

    async def die() -> None:
        await dying.wait()
        raise KeyError("dead")

    one.add_runnable(die)
    first = asyncio.ensure_future(one.run())
    await rig.until(one.leading.is_set)
    second = asyncio.ensure_future(two.run())
    await rig.until(two.ready.is_set)
    dying.set()
    await rig.until(two.leading.is_set, within=1)
    assert isinstance(first.exception(), ExceptionGroup)
    two.stop()
    await rig.until(second.done)
    await second


async def test_a_standby_is_warm_and_takes_over_on_stop(rig: Any) -> None:
    """Both have caches; only the leader writes; a stopped leader releases the Lease."""
    one, two = rig.manager(identity="one", leader_elect=True), rig.manager(identity="two", leader_elect=True)
    for manager in (one, two):
        manager.cache.informer(CONFIG_MAPS)
    jobs = [asyncio.ensure_future(one.run())]
    await rig.until(one.leading.is_set)
    jobs.append(asyncio.ensure_future(two.run()))
    await rig.until(two.ready.is_set)
    await rig.config_map("a")
    await rig.clock.advance(5)
    assert not two.leading.is_set()
    assert len(two.cache.informer(CONFIG_MAPS).store) >= 1
    one.stop()
    await rig.until(two.leading.is_set, within=3)
    await jobs[0]
    two.stop()
    await rig.until(jobs[1].done)
    await jobs[1]


async def _advance(clocks: list[ManualClock], seconds: float) -> None:
    """Several clocks side by side, in small steps."""
    left = seconds
    while left > 0:
        small = min(left, 0.5)
        for clock in clocks:
            await clock.advance(small)
        left -= small
