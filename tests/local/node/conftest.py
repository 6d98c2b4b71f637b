"""A process node on a fake cluster: Pods are real processes, time is fast."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sandlane.kube.cache import Cache
from sandlane.kube.clock import SystemClock
from sandlane.kube.resource import PODS
from sandlane.local.node.images import ImageMap
from sandlane.local.node.node import ProcessNode
from sandlane.local.node.registration import NodeOptions
from sandlane.runtime.recorder import EventRecorder
from sandlane.testing.cluster import FakeCluster
from support.waiting import until

DEADLINE = 20.0
SPEED = 20.0
Object = dict[str, Any]


class FastClock(SystemClock):
    """Time that passes 20 times as fast: back-off and probe periods of seconds are over at once."""

    def __init__(self) -> None:
        self._start = super().monotonic()

    def monotonic(self) -> float:
        return (super().monotonic() - self._start) * SPEED

    def now(self) -> datetime:
        return datetime(2030, 1, 1, tzinfo=UTC) + timedelta(seconds=self.monotonic())

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / SPEED)


class RunningNode:
    """A node that runs, and its cluster."""

    def __init__(self, cluster: FakeCluster, node: ProcessNode, clock: FastClock, folder: Path) -> None:
        self.cluster = cluster
        self.client = cluster.client
        self.node = node
        self.clock = clock
        self.folder = folder
        self.running: asyncio.Task[None]
        self.again: Callable[[], None]
        """Start the node anew, after `stop`."""

    async def until(self, check: Callable[[], Awaitable[Any]], what: str) -> Any:
        """Wait until an awaitable check gives something true, and give that."""
        return await until(check, what, within=DEADLINE)

    async def run(self, script: str = "", *, name: str = "web", spec: Object | None = None, **container: Any) -> Object:
        """Create a Pod whose container `app` runs a shell script."""
        made: Object = {"name": "app", "image": "i", **container}
        if script:
            made["command"] = ["/bin/sh", "-c", script]
        given = spec or {}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "rides", "labels": {"app": name}},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "restartPolicy": "Never",
                **given,
                "containers": [made, *given.get("containers", ())],
            },
        }
        return await self.cluster.add(pod)

    async def pod(self, name: str = "web") -> Object:
        """A Pod as it is now."""
        return await self.client.get(PODS, name, "rides")

    async def state(self, name: str, check: Callable[[Object], Any], what: str) -> Object:
        """Wait until a Pod's status is as a check wants it, and give that status."""

        async def look() -> Object | None:
            status: Object = (await self.pod(name)).get("status") or {}
            if check(status):
                return status
            shown = {key: status.get(key) for key in ("phase", "initContainerStatuses", "containerStatuses")}
            self.last = shown
            return None

        try:
            found: Object = await self.until(look, what)
        except AssertionError as error:
            raise AssertionError(f"{error}: {getattr(self, 'last', '')}") from None
        return found

    async def phase(self, phase: str, name: str = "web") -> Object:
        """Wait for a Pod's phase; its status."""
        return await self.state(name, lambda status: status.get("phase") == phase, f"{name} is {phase}")

    async def waiting(self, reason: str, name: str = "web", text: str = "") -> Object:
        """Wait until the first container waits for a reason, and give what it says."""

        def check(status: Object) -> bool:
            found = container_state(status).get("waiting") or {}
            return found.get("reason") == reason and text in found.get("message", "")

        return dict(container_state(await self.state(name, check, f"{name} waits: {reason}"))["waiting"])

    def log(self, name: str = "web", container: str = "app", run: int = 0) -> str:
        """What a container has written."""
        for worker in self.node.workers.values():
            if worker.pod["metadata"]["name"] == name:
                found = worker.container(container)
                assert found is not None
                return found.logs.path(run).read_text()
        return ""

    def log_files(self) -> list[Path]:
        """The logs of all runs of the container `app` of all Pods."""
        return sorted(self.folder.glob("pods/*/app/*.log"))

    async def stop(self) -> None:
        """End the node."""
        self.running.cancel()
        await asyncio.wait([self.running])

    async def logged(self, text: str, name: str = "web", container: str = "app", run: int = 0) -> str:
        """Wait until a container has written something; the whole log."""

        async def look() -> str:
            log = self.log(name, container, run)
            return log if text in log else ""

        return str(await self.until(look, f"{name} says {text!r}"))


def container_state(status: Object, index: int = 0) -> Object:
    """The state of one container in a Pod's status."""
    statuses = status.get("containerStatuses") or []
    return dict(statuses[index]["state"]) if len(statuses) > index else {}


def own_block() -> str:
    """Addresses for one test process, so that tests side by side do not meet."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw") or 0)
    block = 128 + (os.getpid() * 7 + worker) % 120
    return str(ipaddress.ip_network(f"127.251.{block}.0/24"))


def config_map(name: str, **data: str) -> Object:
    """A ConfigMap of the Pods' namespace."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "rides"}, "data": data}


ACCOUNT = [
    {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "rides"}},
    config_map("kube-root-ca.crt", **{"ca.crt": "the authority"}),
]


@asynccontextmanager
async def running_node(folder: Path, *objects: Object, views: str | None = None) -> AsyncIterator[RunningNode]:
    """A node that runs. `views`: pretend that there are no mount views, for this reason."""
    clock = FastClock()
    images = folder / "images.yaml"
    images.write_text('images:\n  mapped: {command: ["/bin/sh", "-c", "echo from the map; exec sleep 100"]}\n')
    async with FakeCluster.with_objects(*ACCOUNT, *objects) as cluster:
        cache = Cache(cluster.client, clock=cluster.clock, rng=cluster.rng)
        recorder = EventRecorder(cluster.client, clock, "node", "node")
        options = NodeOptions("laptop", "127.0.0.1", own_block(), folder)

        def make() -> ProcessNode:
            return ProcessNode(cluster.client, cache, clock, options, ImageMap.load(images), recorder)

        node = make()
        async with AsyncExitStack() as stack:
            if views is not None:
                stack.enter_context(pytest.MonkeyPatch.context()).setattr(
                    "sandlane.local.node.node.views_missing", lambda folder: _answer(views)
                )
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            caching = tasks.create_task(cache.run())
            await cache.wait_synced()
            running = [tasks.create_task(node.run()), tasks.create_task(recorder.run())]
            found = RunningNode(cluster, node, clock, folder)
            found.running = running[0]

            def again() -> None:
                found.node = make()
                found.running = tasks.create_task(found.node.run())

            found.again = again
            try:
                yield found
            finally:
                for task in (*running, found.running, caching):
                    task.cancel()


async def _answer(text: str) -> str:
    return text


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[RunningNode]:
    """A node on a fresh cluster."""
    async with running_node(tmp_path) as found:
        yield found


@pytest.fixture
async def viewing(node: RunningNode) -> RunningNode:
    """The same where this machine allows mount views; skips the test where it does not."""

    async def probed() -> bool:
        return (node.folder / "view-probe").exists()

    await node.until(probed, "the node has tried mount views")
    from sandlane.local.node.process import views_missing

    if missing := await views_missing(node.folder):
        pytest.skip(f"no mount views here: {missing}")
    return node


PYTHON = sys.executable
