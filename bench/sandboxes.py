"""A thousand sandboxes at once: how fast one manager plans and applies them, writes, a pass over all, memory, restart."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from bench.report import Table
from sandlane.api.crd import definitions
from sandlane.cli.manager import Options, register
from sandlane.kube.client import Client
from sandlane.kube.clock import SystemClock
from sandlane.kube.config import load_config
from sandlane.kube.errors import NotFound
from sandlane.kube.http import HttpTransport
from sandlane.kube.resource import (
    CUSTOM_RESOURCE_DEFINITIONS,
    DEPLOYMENTS,
    NAMESPACES,
    PODS,
    SANDBOXES,
    SERVICES,
    Object,
)
from sandlane.kube.transport import Request
from sandlane.runtime.logging import set_up_logging
from sandlane.runtime.manager import Manager
from sandlane.world.records import Sandbox

ROOT = Path(__file__).resolve().parent.parent
SANDBOXES_COUNT, PODS_EACH, WRITERS = int(os.environ.get("SANDBOXES", "1000")), 2, 16
NAMESPACE = "bench"
SECONDS = 170.0


def run() -> list[Table]:
    """One table."""
    with tempfile.TemporaryDirectory(prefix="sandlane-bench-") as folder, _server(Path(folder)) as (kubeconfig, server):
        rows = asyncio.run(_measure(kubeconfig, server))
    return [
        Table(
            "sandboxes",
            "A thousand sandboxes",
            ("figure", "measured", "limit"),
            tuple(rows),
            f"{SANDBOXES_COUNT:,} sandboxes with one fork each, each of another Deployment with one Service, applied at "
            "once to the embedded API server; nothing runs Pods, so each sandbox comes to where only Pods are awaited. "
            "API server, manager and the one who applies share the machine.",
        )
    ]


# -- what is applied ----------------------------------------------------------------------------------------


def _object(api: str, kind: str, name: str, spec: Object) -> Object:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec}


def baseline(index: int) -> Object:
    """A Deployment as people write them: two containers, variables, probes, resources, a volume."""
    name = f"app-{index:04}"
    probe = {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 5}
    main = {
        "name": "app",
        "image": f"example/{name}:1",
        "ports": [{"name": "http", "containerPort": 8080}, {"name": "metrics", "containerPort": 9090}],
        "env": [{"name": f"SETTING_{n}", "value": f"value {n}"} for n in range(12)],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
        "readinessProbe": probe,
        "livenessProbe": probe,
        "volumeMounts": [{"name": "config", "mountPath": "/etc/app"}],
    }
    side = {"name": "proxy", "image": "example/proxy:1", "args": ["--upstream", "localhost:8080"]}
    labels = {"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "bench", "team": f"t{index % 7}"}
    pod = {"containers": [main, side], "volumes": [{"name": "config", "configMap": {"name": name}}]}
    template = {"metadata": {"labels": labels, "annotations": {"prometheus.io/scrape": "true"}}, "spec": pod}
    selector = {"matchLabels": {"app.kubernetes.io/name": name}}
    return _object("apps/v1", "Deployment", name, {"replicas": 2, "selector": selector, "template": template})


def service(index: int) -> Object:
    """Its Service."""
    name = f"app-{index:04}"
    ports = [{"name": "http", "port": 80, "targetPort": "http"}]
    return _object("v1", "Service", name, {"selector": {"app.kubernetes.io/name": name}, "ports": ports})


def sandbox(index: int) -> Object:
    """A sandbox that forks it."""
    name = f"app-{index:04}"
    custom = {"images": [{"container": "app", "image": f"example/{name}:2"}], "env": [{"name": "NEW", "value": "1"}]}
    fork = {"forkOf": {"kind": "Deployment", "name": name}, "customizations": custom}
    return _object("sandlane.dev/v1alpha1", "Sandbox", f"sbx-{index:04}", {"forks": [fork]})


def pods(deployment: Object) -> list[Object]:
    """Pods of a Deployment, as plain objects that nobody runs."""
    template = deployment["spec"]["template"]
    name = deployment["metadata"]["name"]
    made = []
    for index in range(PODS_EACH):
        pod = _object("v1", "Pod", f"{name}-{index}", template["spec"])
        pod["metadata"]["labels"] = template["metadata"]["labels"]
        made.append(pod)
    return made


# -- the measurement ----------------------------------------------------------------------------------------


async def _measure(kubeconfig: Path, server: int) -> list[tuple[str, str, str]]:
    count = SANDBOXES_COUNT
    async with _client(kubeconfig) as client:
        for definition in definitions():
            await client.create(CUSTOM_RESOURCE_DEFINITIONS, definition)
        await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        await _each(range(count), lambda index: client.create(DEPLOYMENTS, baseline(index)))
        await _each(range(count), lambda index: client.create(SERVICES, service(index)))
        await _served(client)
        async with _manager(kubeconfig) as manager:
            await manager.ask("rest")
            started, cpu = time.monotonic(), _cpu(server)
            await _each(range(count), lambda index: client.create(SANDBOXES, sandbox(index)))
            created = time.monotonic() - started
            told = await manager.ask("until", count)
            took, cpu = time.monotonic() - started, _cpu(server) - cpu
            await manager.ask("rest")
            writes = (await manager.ask("rest"))["writes"]
            deployments = (await client.list(DEPLOYMENTS, NAMESPACE)).items
            everything = [pod for deployment in deployments for pod in pods(deployment)]
            await _each(everything, lambda pod: client.create(PODS, pod))
            await manager.ask("rest")
            second = await manager.ask("pass")
            memory = await manager.ask("memory")
        async with _manager(kubeconfig) as manager:
            await manager.ask("rest")
            again = await manager.ask("rest")
            ready, settled = manager.ready, again["settled"]
    assert len(deployments) == 2 * count, f"{len(deployments)} Deployments"
    return [
        ("planned and applied", f"{count / took:.0f} /s", "40 /s"),
        ("of that, until all were created", f"{created:.1f} of {took:.1f} s", ""),
        ("CPU for each: manager, API server", f"{told['cpu'] / count * 1000:.1f} ms, {cpu / count * 1000:.1f} ms", ""),
        ("writes for each, Event and status included", f"{sum(writes.values()) / count:.2f}", "6"),
        ("writes by resource", ", ".join(f"{name} {number}" for name, number in sorted(writes.items())), ""),
        (
            "a second pass over all",
            f"{second['seconds']:.2f} s ({second['cpu']:.2f} s CPU), {sum(second['writes'].values())} writes",
            "1 s, 0",
        ),
        (
            f"manager's memory, {count:,} sandboxes, {len(deployments):,} Deployments, {len(everything):,} Pods",
            f"{memory['rss']:.0f} MiB (peak {memory['peak']:.0f} MiB)",
            "150 MiB",
        ),
        ("restart: ready", f"{ready:.2f} s, {sum(again['writes'].values())} writes", "3 s, 0"),
        ("restart: all looked at", f"{settled:.2f} s", ""),
    ]


async def _each(items: Any, send: Any) -> None:
    """Send one request for each item, some at a time."""
    waiting = iter(items)

    async def writer() -> None:
        for item in waiting:
            await send(item)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(WRITERS):
            tasks.create_task(writer())


async def _served(client: Client) -> None:
    """Wait until the kinds are served."""
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                await client.list(SANDBOXES, NAMESPACE)
                return
            except NotFound:
                await asyncio.sleep(0.05)


@asynccontextmanager
async def _client(kubeconfig: Path, **limits: float) -> AsyncIterator[Client]:
    client = Client(HttpTransport(load_config(kubeconfig)), clock=SystemClock(), rng=random.Random(), **limits)  # type: ignore[arg-type]
    try:
        yield client
    finally:
        await client.close()


@contextmanager
def _server(folder: Path) -> Iterator[tuple[Path, int]]:
    """The embedded API server as a process of its own; its kubeconfig and process id."""
    options = [sys.executable, "-m", "sandlane.local.apiserver", "--data-dir", str(folder), "--listen", "127.0.0.1:0"]
    with subprocess.Popen(options, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            process.stdout.readline()
            yield folder / "kubeconfig", process.pid
        finally:
            process.terminate()


def _cpu(pid: int) -> float:
    """Seconds of CPU that a process has taken."""
    stat = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


class _Manager:
    """The manager in a process of its own, which answers questions about itself."""

    def __init__(self, process: asyncio.subprocess.Process, ready: float) -> None:
        self._process = process
        self.ready = ready

    async def ask(self, *words: object) -> dict[str, Any]:
        """One question."""
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(map(str, words)).encode() + b"\n")
        return await self.answer()

    async def answer(self) -> dict[str, Any]:
        """One line of what it says."""
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), SECONDS)
        if not line:
            raise SystemExit("the manager has ended")
        told: dict[str, Any] = json.loads(line)
        return told


@asynccontextmanager
async def _manager(kubeconfig: Path) -> AsyncIterator[_Manager]:
    started = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "bench.sandboxes", str(kubeconfig)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        manager = _Manager(process, 0.0)
        await manager.answer()
        manager.ready = time.monotonic() - started
        yield manager
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.terminate()
        await process.wait()


# -- the manager's process ----------------------------------------------------------------------------------


class Inside:
    """The product's manager, and what is asked of it."""

    def __init__(self, manager: Manager, started: float) -> None:
        self._manager = manager
        self._started = started
        self._writes: Counter[str] = Counter()
        self._cpu = 0.0
        before = manager.client.observe

        def observe(request: Request, status: int, seconds: float) -> None:
            before(request, status, seconds)
            if request.method not in ("GET", "HEAD"):
                parts = request.path.split("/")
                at = parts.index("namespaces") if "namespaces" in parts else len(parts) - 2
                self._writes[parts[min(at + 2, len(parts) - 1)]] += 1

        manager.client.observe = observe

    async def answer(self, words: list[str]) -> dict[str, Any]:
        """Do what is asked."""
        if words[0] == "rest":
            settled = await self._rest()
            self._cpu = time.process_time()
            return {"writes": dict(self._writes), "settled": settled}
        if words[0] == "until":
            store = self._manager.cache.informer(SANDBOXES, Sandbox).store
            while sum(bool(each.status.observed_generation) for each in store) < int(words[1]):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            return {"cpu": time.process_time() - self._cpu}
        if words[0] == "pass":
            await self._rest()
            self._writes.clear()
            started, cpu = time.monotonic(), time.process_time()
            next(each for each in self._manager._controllers if each.name == "sandbox").enqueue_all()
            while not self._manager.idle:  # noqa: ASYNC110
                await asyncio.sleep(0.002)
            took, cpu = time.monotonic() - started, time.process_time() - cpu
            return {"seconds": took, "cpu": cpu, "writes": dict(self._writes)}
        return _memory()

    async def _rest(self) -> float:
        """Until nothing has been written for a moment; the seconds from the start of the process to its last work."""
        last = time.monotonic()
        while time.monotonic() - last < 1.0:
            before = self._writes.total()
            busy = not self._manager.idle
            await asyncio.sleep(0.02)
            if busy or before != self._writes.total():
                last = time.monotonic()
        return last - self._started


def _memory() -> dict[str, float]:
    """MiB."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {"rss": int(status["VmRSS"].split()[0]) / 1024, "peak": int(status["VmHWM"].split()[0]) / 1024}


async def _inside(kubeconfig: Path, started: float) -> None:
    set_up_logging("json", "warning")
    options = Options(allow_unchecked_requesters=True, xds_bind_address="127.0.0.1:0", metrics_bind_address="")
    async with _client(kubeconfig, qps=options.kube_api_qps, burst=options.kube_api_burst) as client:
        manager = Manager(client, clock=SystemClock(), rng=random.Random(), options=options, namespace=NAMESPACE)
        inside = Inside(manager, started)
        register(manager, options)
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(manager.run(handle_signals=True))
            await manager.leading.wait()
            print(json.dumps({"ready": True}), flush=True)
            while line := await reader.readline():
                print(json.dumps(await inside.answer(line.decode().split())), flush=True)


if __name__ == "__main__":
    asyncio.run(_inside(Path(sys.argv[1]), time.monotonic()))
