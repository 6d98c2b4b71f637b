"""The measured halves of `bench.runtime`, each run in a process of its own: `python -m bench.runtime_cases NAME ARG...`.

Each prints one line of JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import random
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import structlog

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
NAMESPACE = "default"


def resident() -> int:
    """Bytes of memory in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


class Sync:
    """Measures an initial list and a stream of events; `listed` and `event` are called by what is measured."""

    def __init__(self, pods: int, events: int) -> None:
        self.pods, self.events = pods, events
        self.done = asyncio.Event()
        self.seen = 0
        self.result: dict[str, float] = {}
        gc.collect()
        self._memory, self._cpu, self._wall = resident(), time.process_time(), time.perf_counter()

    def listed(self) -> None:
        """The list is in."""
        cpu, wall = time.process_time() - self._cpu, time.perf_counter() - self._wall
        gc.collect()
        kept = (resident() - self._memory) / self.pods / 1024
        self.result = {"list_us": cpu / self.pods * 1e6, "list_wall": wall, "kept_kb": kept}
        self._cpu, self._wall = time.process_time(), time.perf_counter()
        if not self.events:
            self.done.set()

    def event(self) -> None:
        """One event has been taken in."""
        self.seen += 1
        if self.seen == self.events:
            cpu, wall = time.process_time() - self._cpu, time.perf_counter() - self._wall
            self.result |= {"event_us": cpu / self.events * 1e6, "event_wall": wall}
            self.done.set()


async def sync_sandlane(port: int, pods: int, events: int, kind: str) -> dict[str, float]:
    """Our cache, with slim records or whole objects as bytes."""
    from sandlane.kube.cache import Cache
    from sandlane.kube.client import Client
    from sandlane.kube.clock import SystemClock
    from sandlane.kube.config import Config
    from sandlane.kube.http import HttpTransport
    from sandlane.kube.resource import PODS
    from sandlane.kube.unstructured import Unstructured
    from sandlane.world.records import Pod

    clock = SystemClock()
    client = Client(HttpTransport(Config(server=f"http://127.0.0.1:{port}")), clock=clock, rng=random.Random())
    cache = Cache(client, clock=clock, rng=random.Random())
    cache.tune_collector = True
    informer: Any = cache.informer(PODS, Pod if kind == "slim" else Unstructured)
    sync = Sync(pods, events)
    informer.add_handler(lambda change: None if change.initial else sync.event())
    async with asyncio.TaskGroup() as tasks:
        job = tasks.create_task(cache.run())
        await informer.synced.wait()
        sync.listed()
        await sync.done.wait()
        job.cancel()
    await client.close()
    return sync.result


async def sync_lightkube(port: int, pods: int, events: int) -> dict[str, float]:
    """A bare loop: list, then watch from its version, keep the latest of each."""
    from lightkube import AsyncClient
    from lightkube.config.kubeconfig import KubeConfig
    from lightkube.config.models import Cluster, User
    from lightkube.resources.core_v1 import Pod

    server = Cluster(server=f"http://127.0.0.1:{port}")
    client = AsyncClient(KubeConfig.from_one(cluster=server, user=User(token="none")), timeout=None)
    sync, kept = Sync(pods, events), {}
    found = client.list(Pod, namespace="*")
    async for each in found:
        kept[each.metadata.namespace, each.metadata.name] = each
    sync.listed()
    async for _, each in client.watch(Pod, namespace="*", resource_version=found.resourceVersion):
        kept[each.metadata.namespace, each.metadata.name] = each
        sync.event()
        if sync.done.is_set():
            break
    return sync.result


async def sync_kubernetes_asyncio(port: int, pods: int, events: int) -> dict[str, float]:
    """The same with kubernetes-asyncio."""
    from kubernetes_asyncio import client as kube
    from kubernetes_asyncio import watch

    configuration = kube.Configuration()
    configuration.host = f"http://127.0.0.1:{port}"
    async with kube.ApiClient(configuration) as api:
        core, sync, kept = kube.CoreV1Api(api), Sync(pods, events), {}
        token, version = "", ""
        while True:
            page = await core.list_pod_for_all_namespaces(limit=500, _continue=token)
            for each in page.items:
                kept[each.metadata.namespace, each.metadata.name] = each
            token, version = page.metadata._continue or "", page.metadata.resource_version
            if not token:
                break
        sync.listed()
        if events:
            stream = watch.Watch().stream(core.list_pod_for_all_namespaces, resource_version=version)
            async for event in stream:
                each = event["object"]
                kept[each.metadata.namespace, each.metadata.name] = each
                sync.event()
                if sync.done.is_set():
                    break
    return sync.result


async def noop(count: int) -> dict[str, float]:
    """Reconciles that do nothing but give way once, through queue, workers and metrics."""
    from sandlane.kube.client import Client
    from sandlane.kube.clock import SystemClock
    from sandlane.kube.resource import Key
    from sandlane.runtime.controller import Controller
    from sandlane.runtime.manager import Manager
    from sandlane.runtime.result import Request, Result

    clock, done, left = SystemClock(), asyncio.Event(), count

    class Nothing:
        async def reconcile(self, request: Request) -> Result:
            nonlocal left
            await asyncio.sleep(0)
            left -= 1
            if not left:
                done.set()
            return Result.done()

    transport: Any = object()
    manager = Manager(Client(transport, clock=clock, rng=random.Random()), clock=clock, rng=random.Random())
    controller = Controller.managed_by(manager).named("nothing").with_workers(8).complete(Nothing())
    keys = [Key("d", f"n{n}") for n in range(count)]
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(manager.run())
        await manager.ready.wait()
        started = time.perf_counter()
        for key in keys:
            controller.enqueue(key)
        await done.wait()
        seconds = time.perf_counter() - started
        manager.stop()
    return {"per_second": count / seconds}


async def start(port: int, pods: int) -> dict[str, float]:
    """From the start of a manager to its first reconcile, and its memory, with this many objects."""
    from sandlane.kube.client import Client
    from sandlane.kube.clock import SystemClock
    from sandlane.kube.config import Config
    from sandlane.kube.http import HttpTransport
    from sandlane.kube.resource import PODS
    from sandlane.runtime.controller import Controller
    from sandlane.runtime.manager import Manager
    from sandlane.runtime.result import Request, Result

    clock, first = SystemClock(), asyncio.Event()

    class Nothing:
        async def reconcile(self, request: Request) -> Result:
            first.set()
            return Result.done()

    client = Client(HttpTransport(Config(server=f"http://127.0.0.1:{port}")), clock=clock, rng=random.Random())
    manager = Manager(client, clock=clock, rng=random.Random())
    Controller.managed_by(manager).for_(PODS).complete(Nothing())
    started = time.perf_counter()
    result: dict[str, float] = {}
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(manager.run(handle_signals=True))
        if pods:
            await first.wait()
            result["seconds"] = time.perf_counter() - started
        else:
            await manager.ready.wait()
            await asyncio.sleep(2)
            result["idle_mib"] = resident() / 2**20
        manager.stop()
    await client.close()
    return result


async def guestbooks(server: str, count: int, run: Callable[[], Awaitable[Any]]) -> dict[str, float]:
    """How many Guestbooks a second get their Deployment and their status, from the start of the controller."""
    import aiohttp

    result: dict[str, float] = {}
    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as tasks:
        started, cpu, left = time.perf_counter(), time.process_time(), count
        job = tasks.create_task(_run(run))
        while left and time.perf_counter() - started < 120:
            async with session.get(f"{server}/left") as answer:
                left = int(await answer.text())
            await asyncio.sleep(0.02)
        seconds = time.perf_counter() - started
        done = count - left
        result = {"per_second": done / seconds, "cpu_ms": (time.process_time() - cpu) / count * 1e3, "left": left}
        job.cancel()
    return result


async def _run(run: Callable[[], Awaitable[Any]]) -> None:
    await run()


async def full_sandlane(port: int, count: int) -> dict[str, float]:
    """The example's controller; what is ready comes from a Deployment's spec here, since nobody runs Pods."""
    sys.path.insert(0, str(EXAMPLES / "guestbook-controller"))
    import guestbook

    from sandlane.kube.client import Client
    from sandlane.kube.clock import SystemClock
    from sandlane.kube.config import Config
    from sandlane.kube.http import HttpTransport
    from sandlane.runtime.manager import Manager
    from sandlane.runtime.options import ManagerOptions

    def replicas(record: Any) -> int:
        found: int = record.object()["spec"]["replicas"] if record is not None else 0
        return found

    guestbook.ready_pods = replicas
    clock, server = SystemClock(), f"http://127.0.0.1:{port}"
    client = Client(HttpTransport(Config(server=server)), clock=clock, rng=random.Random())
    options = ManagerOptions(concurrent_reconciles=16)
    manager = Manager(client, clock=clock, rng=random.Random(), options=options)
    guestbook.GuestbookController(manager)
    try:
        return await guestbooks(server, count, lambda: manager.run(handle_signals=True))
    finally:
        await client.close()


async def full_kopf(port: int, count: int) -> dict[str, float]:
    """The same work as a kopf handler: one owned Deployment by server-side apply, an Event, then the status."""
    import kopf
    from kubernetes_asyncio import client as kube

    logging.disable(logging.WARNING)
    server = f"http://127.0.0.1:{port}"
    registry = kopf.OperatorRegistry()
    kopf.on.login(registry=registry)(lambda **_: kopf.ConnectionInfo(server=server))
    configuration = kube.Configuration()
    configuration.host = server
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True  # no CRDs to watch here
    stop = asyncio.Event()
    async with kube.ApiClient(configuration) as api:
        apps, custom = kube.AppsV1Api(api), kube.CustomObjectsApi(api)

        async def reconcile(name: str, namespace: str, spec: Any, body: Any, **_: Any) -> None:
            labels = {"guestbook": name}
            container = {"name": "web", "image": spec["image"]}
            template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
            desired: dict[str, Any] = {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": name, "namespace": namespace},
                "spec": {"replicas": spec["size"], "selector": {"matchLabels": labels}, "template": template},
            }
            kopf.append_owner_reference(desired, owner=body)
            made = await apps.patch_namespaced_deployment(
                name,
                namespace,
                desired,
                field_manager="guestbook",
                force=True,
                _content_type="application/apply-patch+yaml",
            )
            kopf.info(body, reason="Created", message=f"Deployment {name}")
            await custom.patch_namespaced_custom_object_status(
                "example.com",
                "v1",
                namespace,
                "guestbooks",
                name,
                {"status": {"ready": made.spec.replicas}},
                _content_type="application/merge-patch+json",
            )

        kopf.on.create("example.com", "v1", "guestbooks", registry=registry)(reconcile)
        kopf.on.resume("example.com", "v1", "guestbooks", registry=registry)(reconcile)

        def operator() -> Awaitable[Any]:
            return kopf.operator(
                registry=registry, settings=settings, clusterwide=True, standalone=True, stop_flag=stop
            )

        return await guestbooks(server, count, operator)


CASES: dict[str, Callable[..., Awaitable[dict[str, float]]]] = {
    "sync_sandlane": sync_sandlane,
    "sync_lightkube": sync_lightkube,
    "sync_kubernetes_asyncio": sync_kubernetes_asyncio,
    "noop": noop,
    "start": start,
    "full_sandlane": full_sandlane,
    "full_kopf": full_kopf,
}


async def _main(name: str, arguments: list[str]) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    print(json.dumps(await CASES[name](*[int(a) if a.isdigit() else a for a in arguments])), flush=True)


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2:]))
