"""The manager: starts everything in order, tells how it is, and ends in good order."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sandlane.kube.errors import TransportError
from sandlane.kube.metadata import ObjectMeta
from sandlane.kube.resource import CONFIG_MAPS, SECRETS, SUBJECT_ACCESS_REVIEWS, TOKEN_REVIEWS, Key
from sandlane.kube.transport import Request, Response
from sandlane.runtime.controller import Controller
from sandlane.runtime.manager import Manager
from sandlane.runtime.metrics import resource_of
from sandlane.runtime.options import ManagerOptions, OptionsError, load_options, parse_options, split_address
from sandlane.runtime.result import Request as Name
from sandlane.runtime.result import Result
from sandlane.testing.events import captured_events

SERIES = """
cache_lists_total cache_objects cache_silent_total cache_undecodable_total cache_watches_total
controller_runtime_active_workers controller_runtime_max_concurrent_reconciles
controller_runtime_reconcile_errors_total controller_runtime_reconcile_panics_total
controller_runtime_reconcile_time_seconds controller_runtime_reconcile_timeouts_total
controller_runtime_reconcile_total controller_runtime_terminal_reconcile_errors_total
controller_runtime_webhook_latency_seconds controller_runtime_webhook_requests_in_flight
controller_runtime_webhook_requests_total
events_dropped_total leader_election_master_status
reconcile_duration_seconds reconcile_errors_total reconcile_total
rest_client_request_duration_seconds rest_client_requests_total
watch_age_seconds work_queue_depth work_queue_latency
workqueue_adds_total workqueue_depth workqueue_longest_running_processor_seconds workqueue_queue_duration_seconds
workqueue_retries_total workqueue_unfinished_work_seconds workqueue_work_duration_seconds
"""


class Slow:
    """A reconciler that waits to be let go."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.ended: list[Name] = []

    async def reconcile(self, request: Name) -> Result:
        """Wait."""
        await self.gate.wait()
        self.ended.append(request)
        return Result.done()


async def fetch(manager: Manager, server: str, path: str, **headers: str) -> tuple[int, str]:
    """An answer of one of the manager's servers."""
    host, port = manager.addresses[server]
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://{host}:{port}{path}", headers=headers) as answer,
    ):
        return answer.status, await answer.text()


async def test_the_metrics_are_these(rig: Any) -> None:
    """Exactly this list (and the process's own), under both sets of names; no label holds an object's name."""
    await rig.config_map("a-very-secret-name")
    manager = rig.manager(metrics_bind_address="127.0.0.1:0")
    slow = Slow()
    slow.gate.set()
    Controller.managed_by(manager).for_(CONFIG_MAPS).complete(slow)
    async with rig.running(manager):
        await rig.rest(manager)
        status, text = await fetch(manager, "metrics", "/metrics")
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    assert status == 200
    assert {name for name in names if not name.startswith("process_")} == set(SERIES.split())
    assert "secret-name" not in text
    assert 'reconcile_total{controller="configmap",result="success"}' in text
    assert 'controller_runtime_reconcile_total{controller="configmap",result="success"}' in text
    assert 'workqueue_queue_duration_seconds_count{name="configmap"}' in text
    assert 'rest_client_requests_total{code="200",method="GET",resource="configmaps",verb="watch"}' in text


@pytest.mark.parametrize(
    ("path", "resource"),
    [
        ("/api/v1/pods", "pods"),
        ("/api/v1/namespaces", "namespaces"),
        ("/api/v1/namespaces/d", "namespaces"),
        ("/api/v1/namespaces/d/status", "namespaces/status"),
        ("/api/v1/namespaces/d/pods/p/log", "pods/log"),
        ("/apis/apps/v1/namespaces/d/deployments/x", "deployments"),
        ("/apis/apps/v1/namespaces/d/deployments/x/status", "deployments/status"),
        ("/version", "other"),
        ("/apis", "other"),
    ],
)
def test_the_resource_of_a_path(path: str, resource: str) -> None:
    """Requests are counted by resource, never by name."""
    assert resource_of(path) == resource


@pytest.mark.parametrize(
    ("token", "status"), [("good", 200), ("stranger", 401), ("powerless", 403), ("", 401), ("broken", 500)]
)
async def test_metrics_for_those_who_may(rig: Any, token: str, status: int) -> None:
    """The API server knows the token (TokenReview) and allows /metrics (SubjectAccessReview)."""
    manager = rig.manager(metrics_bind_address="127.0.0.1:0", metrics_auth=True)

    async def review(request: Request) -> Response | None:
        if request.path == TOKEN_REVIEWS.path():
            if b'"broken"' in request.body:
                return Response(400, (), b"{}")
            known = b'"stranger"' not in request.body
            name = b"powerless" if b"powerless" in request.body else b"good"
            flag = b"true" if known else b"false"
            return Response(201, (), b'{"status":{"authenticated":%s,"user":{"username":"%s"}}}' % (flag, name))
        if request.path == SUBJECT_ACCESS_REVIEWS.path():
            assert b"/metrics" in request.body
            flag = b"false" if b"powerless" in request.body else b"true"
            return Response(201, (), b'{"status":{"allowed":%s}}' % flag)
        return None

    rig.cluster.transport.intercepts.append(review)
    async with rig.running(manager):
        headers = {"authorization": f"Bearer {token}"} if token else {}
        for _ in range(2):
            assert (await fetch(manager, "metrics", "/metrics", **headers))[0] == status


async def test_health_and_readiness(rig: Any) -> None:
    """Ready once the caches are synced; healthy as long as our own tasks make progress, server or not."""
    manager = rig.manager(health_probe_bind_address="127.0.0.1:0")
    slow = Slow()
    controller = Controller.managed_by(manager).for_(CONFIG_MAPS).with_deadline(1000).complete(slow)
    away = True

    async def server_away(request: Request) -> Response | None:
        if away and request.path != "/api/v1/namespaces":
            raise TransportError("away")
        return None

    rig.cluster.transport.intercepts.append(server_away)
    job = asyncio.ensure_future(manager.run())
    await rig.until(lambda: "health" in manager.addresses)
    await rig.clock.advance(700)
    assert (await fetch(manager, "health", "/readyz"))[0] == 500
    assert (await fetch(manager, "health", "/healthz"))[0] == 200
    away = False
    await rig.until(manager.ready.is_set)
    assert (await fetch(manager, "health", "/readyz")) == (200, "ok\n")
    controller.enqueue(Key("d", "a"))
    await rig.clock.advance(100)
    assert (await fetch(manager, "health", "/healthz"))[0] == 200
    rig.clock.freeze_past(2000)
    status, text = await fetch(manager, "health", "/healthz")
    assert status == 500
    assert "configmap: a reconcile has been running" in text
    slow.gate.set()
    manager.stop()
    await rig.until(job.done)
    await job


async def test_a_watch_that_makes_no_attempt_is_a_problem(rig: Any) -> None:
    """A task of ours that hangs is told by name; a server that is away is none of ours (above)."""
    manager = rig.manager()
    manager.cache.informer(SECRETS)

    async def hang(request: Request) -> Response | None:
        if request.path == SECRETS.path():
            await asyncio.get_running_loop().create_future()
        return None

    rig.cluster.transport.intercepts.append(hang)
    job = asyncio.ensure_future(manager.run())
    await rig.clock.advance(590)
    assert manager.problems() == []
    await rig.clock.advance(30)
    assert manager.problems() == ["watch of secrets: no attempt for 610 s"]
    manager.stop()
    await rig.until(job.done)
    await job


async def test_stopping_lets_running_reconciles_end(rig: Any) -> None:
    """Queued ones are not begun; events that wait are written."""
    await rig.config_map("a")
    manager = rig.manager()
    slow = Slow()
    controller = Controller.managed_by(manager).for_(CONFIG_MAPS).with_workers(1).complete(slow)
    job = asyncio.ensure_future(manager.run())
    await rig.until(lambda: bool(controller.queue.active))
    controller.enqueue(Key("d", "b"))
    manager.stop()
    await rig.clock.advance(5)
    assert not job.done()
    slow.gate.set()
    await rig.until(job.done)
    await job
    assert len(slow.ended) == 1


async def test_waiting_events_do_not_keep_the_lease(rig: Any) -> None:
    """An ending leader writes what it can in a second, then the next one may lead."""
    manager = rig.manager(leader_elect=True)

    async def slow_events(request: Request) -> Response | None:
        if request.method == "POST" and request.path.endswith("/events"):
            await rig.clock.sleep(0.4)
        return None

    rig.cluster.transport.intercepts.append(slow_events)
    job = asyncio.ensure_future(manager.run())
    await rig.until(manager.leading.is_set)
    for n in range(20):
        manager.recorder.event(CONFIG_MAPS, ObjectMeta(name=f"a{n}", namespace="d", uid=str(n)), "Created", "made it")
    manager.stop()
    await rig.until(job.done, within=2)
    await job
    assert 0 < len(await captured_events(rig.cluster.client, "d")) < 10


async def test_stopping_takes_thirty_seconds_at_most(rig: Any) -> None:
    """Then reconciles are cut short."""
    await rig.config_map("a")
    manager = rig.manager()
    slow = Slow()
    controller = Controller.managed_by(manager).for_(CONFIG_MAPS).complete(slow)
    job = asyncio.ensure_future(manager.run())
    await rig.until(lambda: bool(controller.queue.active))
    manager.stop()
    before = rig.clock.monotonic()
    await rig.until(job.done)
    await job
    assert rig.clock.monotonic() - before == pytest.approx(30, abs=1)
    assert slow.ended == []


async def test_runnables(rig: Any) -> None:
    """Run at once or with the leadership; one that dies ends the manager."""
    manager = rig.manager(leader_elect=True)
    told: list[str] = []

    async def at_once() -> None:
        told.append("at once")
        await asyncio.get_running_loop().create_future()

    async def leading() -> None:
        assert manager.leading.is_set()
        raise KeyError("dead")

    manager.add_runnable(at_once)
    manager.add_runnable(leading, needs_leader=True)
    job = asyncio.ensure_future(manager.run())
    await rig.until(job.done)
    with pytest.raises(ExceptionGroup) as caught:
        await job
    assert caught.group_contains(KeyError)
    assert told == ["at once"]


async def test_everything_is_looked_at_again_from_time_to_time(rig: Any) -> None:
    """The resync asks for all objects, in the background."""
    await rig.config_map("a")
    manager = rig.manager(resync_seconds=100)
    slow = Slow()
    slow.gate.set()
    Controller.managed_by(manager).for_(CONFIG_MAPS).complete(slow)
    async with rig.running(manager):
        await rig.rest(manager)
        slow.ended.clear()
        await rig.clock.advance(112)
        assert Key("d", "a") in slow.ended


def test_options(tmp_path: Path) -> None:
    """From a file in camelCase; a mistake names file and field."""
    file = tmp_path / "options.yaml"
    file.write_text("leaderElect: true\nwatchNamespaces: [a, b]\nkubeApiQps: 5\n")
    options = load_options(file, ManagerOptions(leader_election_id="mine", log_level="debug"))
    assert (options.leader_election_id, options.log_level) == ("mine", "debug")
    assert (options.leader_elect, options.watch_namespaces, options.kube_api_qps) == (True, ("a", "b"), 5.0)
    assert ManagerOptions().leader_election_id == "sandlane-manager"
    for bad in ("leaderElected: true\n", "leaderElect: maybe\n", "{", "- a\n"):
        file.write_text(bad)
        with pytest.raises(OptionsError, match=r"options\.yaml"):
            load_options(file, ManagerOptions())
    with pytest.raises(OptionsError):
        load_options(tmp_path / "missing.yaml", ManagerOptions())
    assert split_address(":80") == ("0.0.0.0", 80)
    with pytest.raises(OptionsError):
        split_address("80")


@pytest.mark.parametrize(
    ("flag", "field", "said"),
    [
        ("--metrics-bind-address=80", "metricsBindAddress: '80'", "HOST:PORT"),
        ("--lease-duration-seconds=5", "leaseDurationSeconds: 5", "renewDeadlineSeconds"),
        ("--concurrent-reconciles=0", "concurrentReconciles: 0", "--concurrent-reconciles must be more than 0"),
        ("--kube-api-qps=-1", "kubeApiQps: -1", "--kube-api-qps"),
    ],
)
def test_options_that_cannot_be(flag: str, field: str, said: str, tmp_path: Path) -> None:
    """Refused before anything starts, from flags and from files alike."""
    with pytest.raises(OptionsError, match=said):
        parse_options([flag], ManagerOptions(), prog="p")
    file = tmp_path / "options.yaml"
    file.write_text(field)
    with pytest.raises(OptionsError, match=said):
        parse_options(["--config", str(file)], ManagerOptions(), prog="p")


PROGRAM = """
import asyncio, random, sys
from sandlane.kube.clock import SystemClock
from sandlane.kube.resource import CONFIG_MAPS, Key
from sandlane.runtime.controller import Controller
from sandlane.runtime.manager import Manager
from sandlane.testing.cluster import FakeCluster

class Forever:
    async def reconcile(self, request):
        print("working", flush=True)
        await asyncio.get_running_loop().create_future()

async def main():
    async with FakeCluster() as cluster:
        manager = Manager(cluster.client, clock=SystemClock(), rng=random.Random(1))
        controller = Controller.managed_by(manager).named("c").complete(Forever())
        if sys.argv[1] == "busy":
            controller.enqueue(Key("d", "a"))
        async def tell():
            await manager.ready.wait()
            print("ready", flush=True)
            await asyncio.get_running_loop().create_future()
        manager.add_runnable(tell)
        await manager.run(handle_signals=True)

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_and_a_second_one_at_once(number: signal.Signals) -> None:
    """Exit 0 when nothing is under way; with a reconcile that hangs, the second signal does not wait for it."""
    idle = await _start("idle")
    await _read_until(idle, b"ready")
    idle.send_signal(number)
    assert await asyncio.wait_for(idle.wait(), 20) == 0
    busy = await _start("busy")
    await _read_until(busy, b"working")
    busy.send_signal(number)
    await _read_until(busy, b"stopping")
    busy.send_signal(number)
    assert await asyncio.wait_for(busy.wait(), 20) == 1


async def _start(how: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, how, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )


async def _read_until(process: asyncio.subprocess.Process, word: bytes) -> None:
    assert process.stdout is not None
    async with asyncio.timeout(30):
        while word not in (line := await process.stdout.readline()):
            assert line, "the process ended"


async def test_kinds_can_be_cached_by_several_selectors(rig: Any) -> None:
    """Two controllers may watch different parts of a kind."""
    manager = rig.manager()
    manager.cache.informer(SECRETS, label_selector="a=b")
    manager.cache.informer(SECRETS)
    async with rig.running(manager):
        assert len(manager.cache.informers()) == 2
