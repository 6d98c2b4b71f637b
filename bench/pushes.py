"""From a change in the API server to the routers: one real Envoy that serves it, and all of fifty that confirm it."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import statistics
import sys
import tempfile
import time
from asyncio.subprocess import Process
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from bench.report import Table
from bench.routing import DOOR, memory, plain_envoy, server
from bench.tunnel import answer, listener
from sandlane.api.crd import definitions
from sandlane.api.labels import ROUTER_PODS
from sandlane.kube.cache import Cache
from sandlane.kube.clock import SystemClock
from sandlane.kube.resource import SANDBOXES, Key, Object
from sandlane.routing.envoy import server as xds
from sandlane.routing.envoy.binary import envoy_binary
from sandlane.routing.envoy.bootstrap import router_bootstrap
from sandlane.routing.envoy.identity import Credentials
from sandlane.routing.names import router_group
from sandlane.routing.publisher import Publisher
from sandlane.routing.report import RouteReports
from sandlane.testing.cluster import FakeCluster
from sandlane.world.world import World
from support.router import NAMESPACE, sandbox, service
from support.service_proxy import free_port

ROUTERS = 50
CHANGES = 40
SIZES = (1_000, 10_000)
HOST = "127.253.251.251"


def router_pod(number: int, address: str) -> Object:
    """A ready router."""
    metadata = {"name": f"router-{number}", "namespace": NAMESPACE, "labels": dict(ROUTER_PODS)}
    status = {"phase": "Running", "podIP": address, "conditions": [{"type": "Ready", "status": "True"}]}
    spec = {"containers": [{"name": "envoy", "image": "envoy"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status}


async def fill(cluster: FakeCluster, app: int, sandboxes: int) -> None:
    """A Service with its shadow, sandboxes of it (those that will change have no route yet), and routers."""
    at = ("127.0.0.1", app)
    first, shadow, *slices = service("app", DOOR, at)
    made = await cluster.add(first)
    shadow["metadata"]["ownerReferences"][0]["uid"] = made["metadata"]["uid"]
    for obj in (shadow, *slices):
        await cluster.add(obj)
    for obj in sandbox("key-0", "app", at)[:3]:
        made = await cluster.add(obj)
        for number in range(1, sandboxes + CHANGES):
            await copy(cluster, made, number, ready=number < sandboxes)
    for number in range(ROUTERS):
        await cluster.add(router_pod(number, HOST if not number else f"127.254.0.{number}"))


async def copy(cluster: FakeCluster, made: Object, number: int, *, ready: bool) -> None:
    """What was written for the first sandbox once more for another, straight into the store: writing all would take minutes."""
    type_ = cluster.server.registry.by_kind(made["apiVersion"], made["kind"])
    assert type_ is not None
    obj = json.loads(json.dumps(made).replace("key-0", f"key-{number}"))
    obj["metadata"]["uid"] = f"{obj['metadata']['uid']}-{number}"
    if made["kind"] == "Sandbox":
        obj["status"]["forks"][0]["everReady"] = ready

    def at(version: int) -> bytes:
        obj["metadata"]["resourceVersion"] = str(version)
        return json.dumps(obj, separators=(",", ":")).encode()

    await cluster.store.put(type_.storage_key, Key(NAMESPACE, obj["metadata"]["name"]), at, None)


class Bench:
    """One size."""

    def __init__(self) -> None:
        self.served: list[float] = []
        self.confirmed: list[float] = []
        self.cpu: list[float] = []
        self.published: list[float] = []
        self.sent: list[float] = []
        self.memory = 0.0

    async def run(self, folder: Path, app: int, sandboxes: int) -> None:
        """Measure."""
        async with FakeCluster.with_objects(*definitions()) as cluster:
            await fill(cluster, app, sandboxes)
            cache = Cache(cluster.client, clock=SystemClock(), rng=random.Random(0))
            world, xds_server = World.from_cache(cache), xds.XdsServer()
            publisher = Publisher(cache, world, xds_server, SystemClock())
            RouteReports(world, publisher)  # as in a manager
            self._watch(publisher)
            async with xds_server.listen("127.0.0.1:0") as port, asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(cache.run())]
                await cache.wait_synced()
                gc.collect()
                before = memory_of_self()
                known = asyncio.Event()
                known.set()
                running.append(tasks.create_task(publisher.run(known)))
                await publisher.published.wait()
                gc.collect()
                self.memory = memory_of_self() - before
                await self._change(cluster, xds_server, folder, port, sandboxes)
                for task in running:
                    task.cancel()

    def _watch(self, publisher: Publisher) -> None:
        publish, encode = publisher._publish, xds._encode

        def timed(since: float) -> None:
            start = time.thread_time()
            publish(since)
            self._publishing = time.thread_time() - start
            self._publishings += 1

        def counted(response: Any) -> bytes:
            data = encode(response)
            self._bytes += len(data)
            return data

        self._publishing, self._publishings, self._bytes = 0.0, 0, 0
        publisher._publish = timed  # type: ignore[method-assign]
        xds._encode = counted

    async def _change(self, cluster: FakeCluster, served: xds.XdsServer, folder: Path, port: int, first: int) -> None:
        groups = [router_group(NAMESPACE, f"127.254.0.{number}") for number in range(1, ROUTERS)]
        config: Any = router_bootstrap("127.0.0.1", port, router_group(NAMESPACE, HOST), Credentials("none"))
        config["node"]["id"] = "router"
        config["static_resources"]["clusters"][0].pop("transport_socket")
        path = folder / "router.json"
        path.write_text(json.dumps(config))
        envoy = await asyncio.create_subprocess_exec(
            *(str(envoy_binary()), "-c", str(path), "--concurrency", "1", "--disable-hot-restart", "-l", "error")
        )
        others = await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.routing_clients", str(port), *groups)
        asking = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.first_served", HOST, str(DOOR)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        groups.append(router_group(NAMESPACE, HOST))
        try:
            await settled(served, groups)
            for number in range(CHANGES):
                await self._one(cluster, served, groups, first + number, asking)
        finally:
            for process in (envoy, others, asking):
                process.kill()
                await process.wait()

    async def _one(
        self, cluster: FakeCluster, served: xds.XdsServer, groups: list[str], number: int, asking: Process
    ) -> None:
        """Give one more sandbox its route."""
        assert asking.stdin is not None
        assert asking.stdout is not None
        name = f"key-{number}"
        known = await cluster.client.get(SANDBOXES, name, NAMESPACE)
        forks = [known["status"]["forks"][0] | {"everReady": True}]
        self._bytes, before = 0, self._publishings
        asking.stdin.write(f"{name}\n".encode())
        cpu, start = time.process_time(), time.perf_counter()
        await cluster.client.patch_status(SANDBOXES, Key(NAMESPACE, name), {"status": {"forks": forks}})
        await settled(served, groups, lambda: self._publishings > before)
        self.confirmed.append(1e3 * (time.perf_counter() - start))
        self.served.append(1e3 * (float(await asking.stdout.readline()) - start))
        self.cpu.append(1e3 * (time.process_time() - cpu))
        self.published.append(1e3 * self._publishing)
        self.sent.append(self._bytes / len(groups))


async def settled(served: xds.XdsServer, groups: list[str], published: Callable[[], bool] = lambda: True) -> None:
    """Wait until every router has confirmed what is published."""
    async with asyncio.timeout(120):
        while True:
            if published() and all(served.clients(group) and not served.behind(group) for group in groups):
                return
            await asyncio.sleep(0.002)


def memory_of_self() -> float:
    """MiB of this process that are resident."""
    import os

    return memory(os.getpid())


def run() -> list[Table]:
    """Latency, size and cost of one change."""
    rows = []
    for size in SIZES:
        bench = Bench()
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(_with_app(bench, Path(folder), size))
        rows.append(
            (
                f"{size:,}",
                *(f"{statistics.median(each):.0f} / {quantile(each):.0f}" for each in (bench.served, bench.confirmed)),
                f"{statistics.median(bench.sent):,.0f}",
                f"{statistics.median(bench.published):.2f}",
                f"{statistics.median(bench.cpu):.0f}",
                f"{bench.memory:.0f}",
            )
        )
    columns = (
        "sandboxes on one Service",
        "first request served, ms (median / p99)",
        f"all {ROUTERS} routers confirmed, ms (median / p99)",
        "bytes per router",
        "CPU ms: table and resources",
        f"CPU ms: process, {ROUTERS} streams and API server included",
        "table and resources, MiB",
    )
    note = (
        f"One sandbox gets its route, {CHANGES} times: from the write in the API server (embedded, in the same process). One router is Envoy, the "
        f"others are stand-ins that confirm at once; who asks is a process of its own. Limits: 50 and 200 ms at 1,000 sandboxes, 80 and 300 ms at 10,000; 80 MiB."
    )
    return [Table("pushes", "A change of routes", columns, tuple(rows), note)]


async def _with_app(bench: Bench, folder: Path, size: int) -> None:
    app = free_port()
    upstream = server("app", [listener("in", app, answer(100))], [])
    async with plain_envoy(folder, "app", upstream, 1):
        await bench.run(folder, app, size)


def quantile(values: list[float]) -> float:
    """The 99th percentile."""
    return statistics.quantiles(values, n=100, method="inclusive")[98]
