"""What callers of a laptop see of every fault that there is between them and it: a local cluster, a real `sandlane connect`.

A request with the sandbox's key is sent every 50 ms while something is killed, stopped or cut off. It may be answered by the laptop,
late or not at all, or with a 503 that says why; an answer by anybody else is wrong.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from bench.faulty import FaultyProxy
from bench.report import Table
from support.laptop import BIN, Laptop, laptop

ROOT = Path(__file__).resolve().parent.parent
EVERY = 0.05
SETTLED = 1.0
"""Seconds of nothing but right answers after which the fault is over."""
AFTERWARDS = 3.0
"""Seconds for which is still looked at what happens then."""
AT_ONCE = 0.15
"""A 503 that comes within this is that of a changed route: no tunnel server has been asked."""
PATIENCE = 60.0
LOCAL = "faults-eta"


@dataclass
class Answer:
    """One request: when it was sent and answered (seconds), and by whom or how."""

    sent: float
    done: float
    what: str


@dataclass
class Row:
    """What one fault did; seconds from its start, `recovery` from its end."""

    answers: list[Answer] = field(default_factory=list)
    routed: float | None = None
    noticed: float | None = None
    recovery: float = 0.0


class Rig:
    """A cluster with an application, its sandbox, a process here in its place, and a proxy in front of the tunnel servers."""

    def __init__(self, cluster: Laptop, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        self.url = ""
        self.key = ""
        self.proxy: FaultyProxy
        self.connect: subprocess.Popen[bytes] | None = None
        self.port = 0

    def start_connect(self) -> None:
        """`sandlane connect`, through the proxy."""
        command = [sys.executable, "-m", "bench.connect_through", f"127.0.0.1:{self.proxy.port}", "connect"]
        command += ["faults", "-n", "rides", "--workload", "eta", "--port", f"8084=localhost:{self.port}"]
        command += ["--transport", "direct", "--keep", "--data-dir", str(self.cluster.folder)]
        with (self.folder / "connect.log").open("ab") as log:
            env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
            self.connect = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env=env)

    def status(self) -> dict[str, Any]:
        """The LocalWorkload's status."""
        return self.cluster.get("lwl", LOCAL, "-n", "rides").get("status") or {}

    def connected(self) -> bool:
        """Its condition."""
        found = {each["type"]: each["status"] for each in self.status().get("conditions") or ()}
        return found.get("Connected") == "True" and found.get("Ready") == "True"

    def servers(self) -> list[int]:
        """Process ids of the tunnel servers."""
        pods = self.cluster.get("pods", "-n", "sandlane-system", "-l", "sandlane.dev/tunnel=true")["items"]
        names = {f"POD_NAME={pod['metadata']['name']}".encode() for pod in pods}
        return [
            pid
            for pid in processes()
            if names & set(read(pid, "environ").split(b"\0")) and b"envoy" in read(pid, "exe")
        ]

    def envoy(self) -> int:
        """Process id of the laptop's Envoy."""
        assert self.connect is not None
        return next(pid for pid in processes() if parent(pid) == self.connect.pid)

    async def measure(self, fault: Callable[[Rig], Awaitable[None]]) -> Row:
        """Run one fault under load, until all is well again."""
        row, start = Row(), time.monotonic()
        over = asyncio.Event()
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(self._watch(row, start))
            probing = tasks.create_task(self._probe(session, row, over, start))
            await asyncio.sleep(0.5)
            row_start = time.monotonic() - start
            await fault(self)
            end = time.monotonic() - start
            await until(lambda: self._well(row, start), "all is well again", swallow=True)
            await asyncio.sleep(AFTERWARDS)
            over.set()
            await probing
            watching.cancel()
        late = [each.done for each in row.answers if each.what != "laptop" or each.done - each.sent > 1]
        row.recovery = max(0.0, max(late, default=0.0) - end)
        row.noticed = None if row.noticed is None else row.noticed - row_start
        gone = (each.done for each in row.answers if "disconnected" in each.what and each.done - each.sent < AT_ONCE)
        row.routed = min((each - row_start for each in gone), default=None)
        return row

    def _well(self, row: Row, start: float) -> bool:
        """Whether everything sent for a while was answered by the laptop, and at once."""
        now = time.monotonic() - start
        lately = [each for each in row.answers if each.sent > now - SETTLED]
        return len(lately) > SETTLED / EVERY / 2 and all(e.what == "laptop" and e.done - e.sent < 1 for e in lately)

    async def _probe(self, session: aiohttp.ClientSession, row: Row, over: asyncio.Event, start: float) -> None:
        async with asyncio.TaskGroup() as tasks:
            while not over.is_set():
                tasks.create_task(self._ask(session, row, start))
                await asyncio.sleep(EVERY)

    async def _ask(self, session: aiohttp.ClientSession, row: Row, start: float) -> None:
        sent = time.monotonic() - start
        headers = {"baggage": f"sandlane-routing-key={self.key}"}
        try:
            async with session.get(f"{self.url}/probe", headers=headers, timeout=aiohttp.ClientTimeout(90)) as answer:
                text = await answer.text()
                reason = answer.headers.get("x-sandlane-reason")
                what = "laptop" if text == "laptop" else f"{answer.status} {reason or 'without a reason'}"
                if text != "laptop" and answer.status != 503:
                    what = f"WRONG: {answer.status} {text[:40]}"
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            what = type(error).__name__
        row.answers.append(Answer(sent, time.monotonic() - start, what))

    async def _watch(self, row: Row, start: float) -> None:
        """When Connected=False is first seen."""
        command = [str(BIN / "kubectl"), "--kubeconfig", str(self.cluster.folder / "kubeconfig"), "get", "lwl", LOCAL]
        command += ["-n", "rides", "-w", "-o", 'jsonpath={.status.conditions[?(@.type=="Connected")].status}{"\\n"}']
        while row.noticed is None:
            process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            assert process.stdout is not None
            try:
                async for line in process.stdout:
                    if line.strip() == b"False":
                        row.noticed = time.monotonic() - start
                        break
            finally:
                if process.returncode is None:
                    process.kill()
                await process.wait()


def processes() -> list[int]:
    """All process ids."""
    return [int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit()]


def read(pid: int, name: str) -> bytes:
    """A file of a process; empty when it is gone or not ours."""
    try:
        path = Path(f"/proc/{pid}/{name}")
        return os.readlink(path).encode() if name == "exe" else path.read_bytes()
    except OSError:
        return b""


def parent(pid: int) -> int:
    """The parent's process id."""
    text = read(pid, "stat").rpartition(b")")[2].split()
    return int(text[1]) if text else 0


# -- the faults -------------------------------------------------------------------------------------------


async def reset(rig: Rig) -> None:
    """Every connection of the laptop is reset."""
    rig.proxy.reset()


async def half_open(rig: Rig) -> None:
    """The servers' side of every connection is gone, and the laptop is not told."""
    rig.proxy.forget()


def hole(seconds: float) -> Callable[[Rig], Awaitable[None]]:
    """Nothing gets through for a while; then everything that was sent does."""

    async def fault(rig: Rig) -> None:
        rig.proxy.open.clear()
        await asyncio.sleep(seconds)
        rig.proxy.open.set()

    return fault


async def lossy(rig: Rig) -> None:
    """A bad network."""
    rig.proxy.delay, rig.proxy.loss = 0.1, 0.05
    await asyncio.sleep(10)
    rig.proxy.delay, rig.proxy.loss = 0.0, 0.0


async def kill_server(rig: Rig) -> None:
    """One of two tunnel servers."""
    os.kill((await asyncio.to_thread(rig.servers))[0], signal.SIGKILL)


async def kill_laptop_envoy(rig: Rig) -> None:
    """The laptop's Envoy."""
    os.kill(rig.envoy(), signal.SIGKILL)


async def kill_manager(rig: Rig) -> None:
    """The manager."""
    os.kill(await asyncio.to_thread(rig.cluster.pid, "manager"), signal.SIGKILL)


async def kill_connect(rig: Rig) -> None:
    """`sandlane connect`, which the user starts again."""
    assert rig.connect is not None
    rig.connect.kill()
    rig.connect.wait()
    await asyncio.sleep(1)
    rig.start_connect()


def asleep(seconds: float, *, expired: bool = False) -> Callable[[Rig], Awaitable[None]]:
    """The laptop is suspended: its connect and its Envoy stand still."""

    async def fault(rig: Rig) -> None:
        assert rig.connect is not None
        pids = [rig.connect.pid, rig.envoy()]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(seconds)
        if expired:
            os.kill(rig.connect.pid, signal.SIGUSR1)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)

    return fault


async def roll(rig: Rig) -> None:
    """`kubectl rollout restart`, until it is done."""
    name = "deployment/sandlane-tunnel"
    await asyncio.to_thread(rig.cluster.done, "rollout", "restart", name, "-n", "sandlane-system")
    await asyncio.to_thread(rig.cluster.done, "rollout", "status", name, "-n", "sandlane-system")


async def no_api(rig: Rig) -> None:
    """The API server does not answer, for longer than a manager keeps its Lease."""
    pid = await asyncio.to_thread(rig.cluster.pid, "apiserver")
    os.kill(pid, signal.SIGSTOP)
    await asyncio.sleep(30)
    os.kill(pid, signal.SIGCONT)


FAULTS: dict[str, Callable[[Rig], Awaitable[None]]] = {
    "all connections reset": reset,
    "half-open: the servers forget the laptop": half_open,
    "black hole, 2 s": hole(2),
    "black hole, 12 s": hole(12),
    "black hole, 60 s": hole(60),
    "5 % loss, 200 ms round trip, 10 s": lossy,
    "kill -9 of one tunnel server": kill_server,
    "tunnel servers rolled": roll,
    "kill -9 of the laptop's Envoy": kill_laptop_envoy,
    "kill -9 of `sandlane connect`, started again after 1 s": kill_connect,
    "laptop suspended (SIGSTOP) for 15 s": asleep(15),
    "the same, and its certificate has expired": asleep(15, expired=True),
    "kill -9 of the manager": kill_manager,
    "API server stopped for 30 s": no_api,
}


@asynccontextmanager
async def rig(folder: Path) -> Any:
    """Everything up, and connected."""
    async with AsyncExitStack() as stack:
        images = ROOT / "examples" / "rides" / "images.yaml"
        cluster = stack.enter_context(laptop(folder / "cluster", "--images", str(images)))
        cluster.done("apply", "-f", str(ROOT / "examples" / "rides" / "manifests"))
        cluster.done("rollout", "status", "deployment/eta", "-n", "rides", "--timeout=60s")
        spec = {"routingKey": "faults", "forks": []}
        sandbox = {"apiVersion": "sandlane.dev/v1alpha1", "kind": "Sandbox", "spec": spec}
        cluster.done("apply", "-f", "-", stdin=sandbox | {"metadata": {"name": "faults", "namespace": "rides"}})
        made = Rig(cluster, folder)
        made.url, made.key = cluster.sandlane("url", "eta", "-n", "rides").strip(), "faults"
        made.port = await serve(stack)
        host, port = await address(cluster)
        made.proxy = FaultyProxy(host, port)
        await made.proxy.start()
        stack.push_async_callback(made.proxy.close)
        made.start_connect()
        try:
            await until(made.connected, "connected")
            yield made
        finally:
            if made.connect is not None:
                made.connect.terminate()
                made.connect.wait(20)


async def serve(stack: AsyncExitStack) -> int:
    """The process on the laptop."""
    application = web.Application()

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text="laptop")

    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = int(sock.getsockname()[1])
    await web.TCPSite(runner, "127.0.0.1", port).start()
    return port


async def address(cluster: Laptop) -> tuple[str, int]:
    """Where the tunnel servers are: they are made with the first LocalWorkload."""
    spec = {"sandbox": "faults", "from": {"kind": "Deployment", "name": "eta"}}
    local = {"apiVersion": "sandlane.dev/v1alpha1", "kind": "LocalWorkload"}
    local |= {"metadata": {"name": LOCAL, "namespace": "rides"}}
    local |= {"spec": spec | {"mappings": [{"port": 8084, "to": "localhost:1"}]}}
    cluster.done("apply", "-f", "-", stdin=local)
    command = ("get", "configmap", "sandlane-tunnel", "-n", "sandlane-system", "-o", "json")
    await until(lambda: cluster.kubectl(*command).returncode == 0, "tunnel servers are made")
    host, _, port = json.loads(cluster.done(*command))["data"]["address"].rpartition(":")
    return host, int(port)


async def until(check: Callable[[], bool], what: str, *, swallow: bool = False) -> None:
    """Wait for something; end the benchmark if it does not come, or with `swallow` go on."""
    end = time.monotonic() + PATIENCE
    while not await asyncio.to_thread(check):
        await asyncio.sleep(0.1)
        if time.monotonic() > end:
            if swallow:
                return
            raise SystemExit(f"not within {PATIENCE:.0f} s: {what}")


async def first_answer(made: Rig) -> float:
    """Seconds from starting `sandlane connect` to the first request that the laptop answers."""
    assert made.connect is not None
    made.connect.terminate()
    made.connect.wait(20)
    await until(lambda: not made.connected(), "disconnected")
    start = time.monotonic()
    made.start_connect()
    async with aiohttp.ClientSession() as session:
        while time.monotonic() < start + PATIENCE:
            row = Row()
            await made._ask(session, row, start)
            if row.answers[0].what == "laptop":
                return row.answers[0].done
            await asyncio.sleep(0.02)
    raise SystemExit("the laptop never answered")


async def measure(folder: Path, wanted: list[str]) -> tuple[dict[str, Row], list[float]]:
    """Every fault in turn, each from a connected laptop; and how long connecting takes."""
    rows = {}
    async with rig(folder) as made:
        connecting = [await first_answer(made) for _ in range(3)]
        for name in wanted:
            await until(made.connected, f"connected before: {name}")
            rows[name] = await made.measure(FAULTS[name])
            print(name, cells(rows[name]), flush=True)
    return rows, connecting


def cells(row: Row) -> tuple[str, ...]:
    """A row of the table."""
    seen = Counter(each.what for each in row.answers)
    slow = sum(1 for each in row.answers if each.what == "laptop" and each.done - each.sent > 1)
    longest = max((each.done - each.sent for each in row.answers), default=0.0)
    median = statistics.median(each.done - each.sent for each in row.answers if each.what == "laptop")
    failed = ", ".join(f"{count} x {what}" for what, count in sorted(seen.items()) if what != "laptop") or "none"
    wrong = sum(count for what, count in seen.items() if what.startswith("WRONG"))
    return (
        f"{seen['laptop']} ({median * 1000:.0f} ms)",
        failed,
        f"{slow}, longest {longest:.1f} s",
        "never" if row.routed is None else f"{row.routed:.1f} s",
        "never" if row.noticed is None else f"{row.noticed:.1f} s",
        f"{row.recovery:.1f} s",
        str(wrong),
    )


def run() -> list[Table]:
    """The table; `FAULTS=TEXT,TEXT` in the environment chooses faults by parts of their names."""
    chosen = os.environ.get("FAULTS", "").split(",")
    wanted = [name for name in FAULTS if any(text in name for text in chosen)]
    with tempfile.TemporaryDirectory(prefix="sandlane-faults-") as folder:
        rows, connecting = asyncio.run(measure(Path(folder), wanted))
    columns = (
        "fault",
        "right answers (median)",
        "failed",
        "over 1 s",
        "routes changed after",
        "Connected=False after",
        "well again after",
        "wrong",
    )
    note = (
        "A request every 50 ms to a Service in a local cluster, with a sandbox's key, answered by a process behind a real "
        "`sandlane connect` (`onDisconnect: Fail`) whose connections go through a proxy that makes faults. *Well again*: seconds "
        "from the fault's end to the last request that failed or took over a second. *Routes changed*: the first 503 at once. *Wrong*: answered by anybody else."
    )
    table = tuple((name, *cells(row)) for name, row in rows.items())
    seconds = ", ".join(f"{each:.1f} s" for each in sorted(connecting))
    first = f"From starting `sandlane connect` to the first request that the laptop answers: {seconds} (limit: 3 s)."
    return [Table("tunnel_faults", "Faults between callers and a laptop", columns, table, note, (first,))]
