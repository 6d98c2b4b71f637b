"""No request is lost or misrouted while routes change, routers roll, managers die and manifests are applied again.

`ROUTE_SECONDS`, `ROUTE_RATE` and `ROUTE_CHANGES` shorten it; it ends when both the time and the changes are over. The first
wrong answer ends it, with what happened before.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.report import Table
from bench.route_load import KINDS, Address, Expected, Outcome, load
from sandlane.kube.client import Client
from sandlane.kube.clock import SystemClock
from sandlane.kube.config import load_config
from sandlane.kube.errors import KubeError, NotFound
from sandlane.kube.http import HttpTransport
from sandlane.kube.resource import ROUTE_GROUPS, SANDBOXES, SERVICES, Object, Resource

HERE = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
NAMESPACE = "load"
SECONDS = float(os.environ.get("ROUTE_SECONDS", "300"))
RATE = float(os.environ.get("ROUTE_RATE", "500"))
CHANGES = int(os.environ.get("ROUTE_CHANGES", "1000"))
DISTURBANCES = ("apply", "server-side apply", "roll", "kill")
PATIENCE = 60.0
POLL = 0.05
SERVICE_NAMES = ("a", "b")
GROUP_KEY, SANDBOX_KEY = "group-key", "sandbox-key"


class Misrouted(AssertionError):
    """A request was lost or answered by a wrong workload; or a change never ended."""


@dataclass
class Scene:
    """A local cluster with two services, two sandboxes that stay, a group that moves and a sandbox that comes and goes."""

    folder: Path
    client: Client
    every: float
    """Seconds from one change to the next, if the cluster is as fast as that."""
    expected: Expected = field(default_factory=Expected)
    changes: int = 0
    disturbances: int = 0
    times: list[float] = field(default_factory=list)
    story: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    async def turn(self) -> None:
        """Wait until the next change is due."""
        await asyncio.sleep(max(0.0, self.started + self.changes * self.every - time.monotonic()))

    def tell(self, text: str) -> None:
        """Something has happened."""
        now = time.time()
        self.story.append(time.strftime("%H:%M:%S", time.gmtime(now)) + f"{now % 1:.3f}"[1:] + f" {text}")

    async def kubectl(self, *arguments: str, stdin: str = "") -> None:
        """Run `kubectl`. Raises `Misrouted` when it fails."""
        command = [str(BIN / "kubectl"), "--kubeconfig", str(self.folder / "kubeconfig"), *arguments]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)
        try:
            out, err = await process.communicate(stdin.encode())
        except asyncio.CancelledError:
            process.kill()
            await process.communicate()
            raise
        if process.returncode:
            raise Misrouted(f"kubectl {' '.join(arguments)}: {out.decode()}{err.decode()}")

    async def change(
        self, what: str, become: dict[tuple[str, str], str], write: Callable[[], Awaitable[Any]]
    ) -> Object:
        """Write something after which some (service, key) pairs may be answered by another workload."""
        for (service, key), name in become.items():
            self.expected.may_become(service, key, name)
        self.tell(what)
        return await write()  # type: ignore[no-any-return]

    def done(self, what: str, become: dict[tuple[str, str], str], since: float) -> None:
        """The change is programmed."""
        for (service, key), name in become.items():
            self.expected.is_now(service, key, name)
            self.changes += 1
        self.times.append(time.monotonic() - since)
        self.tell(f"{what}: done")


def manifests() -> str:
    """The baseline, as its owner applies it."""
    made: list[Object] = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}]
    for name in SERVICE_NAMES:
        container = {
            "name": "app",
            "image": "bench/who:1",
            "ports": [{"name": "http", "containerPort": 8080}],
            "env": [
                {"name": "WORKLOAD", "value": name},
                {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            ],
            "readinessProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 1},
        }
        template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}}
        spec = {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": template}
        ports = [{"name": "http", "port": 8080, "targetPort": "http"}]
        metadata = {"name": name, "namespace": NAMESPACE}
        made.append({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec})
        service = {"selector": {"app": name}, "ports": ports}
        made.append({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service})
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": made})


def sandbox(name: str, *forks: str, key: str = "", slot: str = "none") -> Object:
    """A sandbox of some of the workloads."""
    return {
        "apiVersion": "sandlane.dev/v1alpha1",
        "kind": "Sandbox",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"slot": slot}},
        "spec": {
            "forks": [{"forkOf": {"kind": "Deployment", "name": each}} for each in forks],
            "routingKey": key or f"key-of-{name}",
        },
    }


def group(slot: str) -> Object:
    """The group, looking at one slot."""
    return {
        "apiVersion": "sandlane.dev/v1alpha1",
        "kind": "RouteGroup",
        "metadata": {"name": "moving", "namespace": NAMESPACE},
        "spec": {"match": {"label": {"key": "slot", "value": slot}}, "routingKey": GROUP_KEY},
    }


async def programmed(client: Client, resource: Resource, obj: Object, condition: str = "RoutesProgrammed") -> None:
    """Wait until a condition is true for what was written. Raises `Misrouted`."""
    name, generation = obj["metadata"]["name"], obj["metadata"]["generation"]
    end, live = time.monotonic() + PATIENCE, obj
    while time.monotonic() < end:
        live = await retried(lambda: client.get(resource, name, NAMESPACE))
        status = live.get("status") or {}
        found = {each["type"]: each for each in status.get("conditions") or ()}
        if status.get("observedGeneration", 0) >= generation and found.get(condition, {}).get("status") == "True":
            return
        await asyncio.sleep(POLL)
    raise Misrouted(f"{resource.kind} {name} is not {condition} after {PATIENCE:.0f} s: {json.dumps(live['status'])}")


async def retried(call: Callable[[], Awaitable[Any]]) -> Any:
    """An API call; a manager that is being killed may leave its webhooks without an answer for a moment."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return await call()
        except NotFound:
            raise
        except KubeError:
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.1)


# -- what happens meanwhile -------------------------------------------------------------------------------


async def move_group(scene: Scene) -> None:
    """The group looks at one slot after the other; nobody is in the third."""
    for slot in itertools.cycle(("1", "2", "3")):
        await scene.turn()
        name = f"s{slot}" if slot != "3" else "baseline"
        become = {(service, GROUP_KEY): name for service in SERVICE_NAMES}
        since, what = time.monotonic(), f"the group looks at slot {slot}"
        written = await scene.change(
            what,
            become,
            lambda slot=slot: retried(lambda: scene.client.apply(ROUTE_GROUPS, group(slot), field_manager="user")),
        )
        await programmed(scene.client, ROUTE_GROUPS, written)
        scene.done(what, become, since)


async def come_and_go(scene: Scene) -> None:
    """A sandbox forks one service, both, the other, and is deleted."""
    client = scene.client
    while True:
        for forks in (("a",), ("a", "b"), ("b",)):
            await scene.turn()
            become = {(name, SANDBOX_KEY): "x" if name in forks else "baseline" for name in SERVICE_NAMES}
            become = {pair: name for pair, name in become.items() if scene.expected.since(*pair) != {name}}
            since, what = time.monotonic(), f"sandbox x forks {', '.join(forks)}"
            wanted = sandbox("x", *forks, key=SANDBOX_KEY)
            written = await scene.change(
                what,
                become,
                lambda wanted=wanted: retried(lambda: client.apply(SANDBOXES, wanted, field_manager="user")),
            )
            await programmed(client, SANDBOXES, written, "Ready")
            scene.done(what, become, since)
        await scene.turn()
        become = {("b", SANDBOX_KEY): "baseline"}
        since = time.monotonic()
        await scene.change(
            "sandbox x is deleted", become, lambda: retried(lambda: client.delete(SANDBOXES, "x", NAMESPACE))
        )
        await gone(client)
        scene.done("sandbox x is deleted", become, since)


async def gone(client: Client) -> None:
    """Wait until the sandbox is away. Raises `Misrouted`."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            await retried(lambda: client.get(SANDBOXES, "x", NAMESPACE))
        except NotFound:
            return
        await asyncio.sleep(POLL)
    raise Misrouted(f"sandbox x is still there after {PATIENCE:.0f} s")


async def disturb(scene: Scene, kinds: Sequence[str], pause: float) -> None:
    """Manifests are applied again, routers roll, the manager is killed: over and over."""
    again = manifests()
    server_side = ("apply", "--server-side", "--force-conflicts", "-f", "-")
    for what in itertools.cycle(kinds):
        await asyncio.sleep(pause)
        scene.tell(what)
        if what == "apply":
            await scene.kubectl("apply", "-f", "-", stdin=again)
        elif what == "server-side apply":
            await scene.kubectl(*server_side, stdin=again)
        elif what == "roll":
            await scene.kubectl("rollout", "restart", "deployment/sandlane-router", "-n", NAMESPACE)
            await scene.kubectl("rollout", "status", "deployment/sandlane-router", "-n", NAMESPACE, "--timeout=60s")
        else:
            killed = manager(scene.folder)["pid"]
            os.kill(killed, signal.SIGKILL)
            # A cluster has two managers; here there is none for a moment, and nobody may apply a turned Service then.
            end = time.monotonic() + PATIENCE
            while (now := manager(scene.folder)).get("pid") in (killed, None) or not now.get("ready"):
                if time.monotonic() > end:
                    raise Misrouted("the manager does not come back")
                await asyncio.sleep(0.1)
        scene.tell(f"{what}: done")
        scene.disturbances += 1


def manager(folder: Path) -> dict[str, Any]:
    """What is known of the manager's process."""
    processes = json.loads((folder / "run" / "status.json").read_text())["processes"]
    return next(each for each in processes if each["name"] == "manager")


# -- the whole --------------------------------------------------------------------------------------------


async def play(
    folder: Path, seconds: float, rate: float, changes: int, kinds: Sequence[str] = DISTURBANCES
) -> tuple[Scene, Outcome]:
    """Everything, in a cluster that runs, until the time is over and all has happened. Raises `Misrouted`, `TooBusy`."""
    client = Client(HttpTransport(load_config(folder / "kubeconfig")), clock=SystemClock(), rng=random.Random(1))
    scene, outcome = Scene(folder, client, seconds / changes), Outcome()
    try:
        await scene.kubectl("apply", "-f", "-", stdin=manifests())
        for name, slot in (("s1", "1"), ("s2", "2")):
            written = await retried(
                lambda name=name, slot=slot: client.apply(
                    SANDBOXES, sandbox(name, *SERVICE_NAMES, slot=slot), field_manager="user"
                )
            )
            await programmed(client, SANDBOXES, written, "Ready")
        addresses = {name: await address(client, name) for name in SERVICE_NAMES}
        scene.started = time.monotonic()
        end = scene.started + seconds

        def over() -> bool:
            happened = scene.changes >= changes and scene.disturbances >= len(kinds)
            return time.monotonic() > end and happened

        loading = asyncio.ensure_future(
            load(addresses, ["", GROUP_KEY, SANDBOX_KEY], scene.expected, rate, over, outcome)
        )
        work = (move_group(scene), come_and_go(scene), disturb(scene, kinds, seconds / 3 / len(kinds)))
        happening = [asyncio.ensure_future(each) for each in work]
        await asyncio.wait([loading, *happening], return_when=asyncio.FIRST_COMPLETED)
        for task in happening:
            task.cancel()
        ended = await asyncio.gather(*happening, return_exceptions=True)
        end, changes, kinds = 0.0, 0, ()
        await loading
    finally:
        await client.close()
    failures = [str(each) for each in ended if isinstance(each, Exception)] + outcome.wrong
    if failures:
        raise Misrouted("\n".join([*scene.story[-25:], *failures[:10]]))
    return scene, outcome


async def address(client: Client, name: str) -> Address:
    """Where clients dial a Service."""
    return (await client.get(SERVICES, name, NAMESPACE))["spec"]["clusterIP"], 8080


def cluster(folder: Path, act: Callable[[Path], Any]) -> Any:
    """Start a local cluster with two routers a namespace, do something in it, stop it."""
    images = folder / "images.yaml"
    program = {"command": [sys.executable, str(HERE / "route_server.py")]}
    images.write_text(json.dumps({"images": {"bench/who:1": program}}))
    data = folder / "data"
    environment = os.environ | {"SANDLANE_ROUTER_REPLICAS": "2"}
    up = [str(BIN / "sandlane"), "up", "--detach", "--data-dir", str(data), "--images", str(images)]
    subprocess.run(up, check=True, env=environment, stdout=subprocess.DEVNULL)
    try:
        return act(data)
    finally:
        down = [str(BIN / "sandlane"), "down", "--data-dir", str(data)]
        subprocess.run(down, check=True, stdout=subprocess.DEVNULL)


def run() -> list[Table]:
    """One row: what was sent, what changed meanwhile, what was lost."""
    with tempfile.TemporaryDirectory() as name:
        scene, outcome = cluster(Path(name), lambda data: asyncio.run(play(data, SECONDS, RATE, CHANGES)))
    sent = sum(outcome.sent.values())
    ordered = sorted(outcome.seconds)
    row = (
        f"{sent:,}",
        ", ".join(f"{outcome.sent[kind]:,} {kind}" for kind in KINDS),
        f"{scene.changes:,}",
        str(scene.disturbances),
        str(len(outcome.wrong)),
        f"{ordered[len(ordered) // 2] * 1e3:.1f} / {ordered[int(len(ordered) * 0.99)] * 1e3:.1f}",
        f"{outcome.late:.2f}",
        f"{statistics.median(scene.times):.2f} / {max(scene.times):.2f}",
    )
    columns = (
        "requests", "of them", "route changes", "disturbances", "lost or misrouted", "p50 / p99 ms",
        "load late by s at most", "change to programmed s, p50 / max",
    )  # fmt: skip
    note = (
        f"Open loop, {RATE:.0f} requests/s for {SECONDS:.0f} s with three keys (none, a route group's, a sandbox's) to two Services "
        "behind two routers, clients, servers, routers and the whole cluster on the same machine. Meanwhile the group moves between "
        "sandboxes, a sandbox is made, changed and deleted over and over; in turn unchanged manifests are applied by `kubectl apply` and by "
        "`kubectl apply --server-side --force-conflicts`, both routers are rolled, the manager is killed. Each answer names its "
        "workload: once a change is reported as programmed, only the new one counts."
    )
    return [Table("route_changes", "No request lost while routes change", columns, (row,), note)]
