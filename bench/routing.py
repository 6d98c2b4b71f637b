"""What routing by key costs a request: a router with one and with ten thousand sandboxes on one Service against a plain Envoy."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from bench.load import wrk
from bench.report import Table
from bench.tunnel import H2, answer, cluster, listener, server
from sandlane.routing.envoy.binary import envoy_binary
from sandlane.routing.envoy.clusters import PRESERVE_CASE
from support.router import Router, router, sandbox, service
from support.service_proxy import free_port

ROUNDS = 5
SECONDS = 3
CONNECTIONS = 16
SANDBOXES = 10_000
DOOR = 20_001
RATE = 8_000
"""Requests per second at which latencies are compared."""
KEEP = {"header_key_format": PRESERVE_CASE}
SCRIPT = """
local number, last = NUMBER, 0
request = function()
  last = (last * 1103515245 + 12345) % 2147483648
  return wrk.format("GET", "/", {["baggage"] = "user=1,sandlane-routing-key=key-" .. (last % number)})
end
"""


@dataclass
class Sample:
    """One run: requests per second, CPU microseconds of Envoy per request, 99th percentile in microseconds."""

    rps: float
    cpu: float
    p99: float


def pinned(core: int) -> Callable[[], None]:
    """Runs what is started on one core, where there are several."""
    cores = sorted(os.sched_getaffinity(0))
    return lambda: os.sched_setaffinity(0, {cores[core % len(cores)]})


@contextlib.contextmanager
def on_core(core: int) -> Iterator[None]:
    """What is started meanwhile runs on one core."""
    before = os.sched_getaffinity(0)
    pinned(core)()
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@asynccontextmanager
async def plain_envoy(folder: Path, name: str, config: dict[str, Any], core: int) -> AsyncIterator[int]:
    """An Envoy with a fixed configuration; gives its process id."""
    path = folder / f"{name}.json"
    path.write_text(json.dumps(config))
    with on_core(core):
        process = await asyncio.create_subprocess_exec(
            *(str(envoy_binary()), "-c", str(path), "--concurrency", "1", "--disable-hot-restart", "-l", "error"),
            stderr=asyncio.subprocess.DEVNULL,
        )
    try:
        yield process.pid
    finally:
        process.kill()
        await process.wait()


def cpu_seconds(pid: int) -> float:
    """CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> float:
    """MiB of a process that are resident."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def closed_loop(pid: int, url: str, script: Path | None) -> Sample:
    """wrk as fast as it goes."""
    before = cpu_seconds(pid)
    with on_core(1):
        load = wrk(url, connections=CONNECTIONS, seconds=SECONDS, script=script)
    if load.errors:
        raise SystemExit(f"{load.errors} requests to {url} failed")
    return Sample(load.rps, 1e6 * (cpu_seconds(pid) - before) / (load.rps * SECONDS), load.p99)


def open_loop(url: str, key: str, folder: Path) -> float:
    """The 99th percentile, in microseconds, at `RATE` requests per second."""
    log = folder / "h2load.log"
    log.unlink(missing_ok=True)
    command = ["h2load", "--h1", "-t1", f"-c{CONNECTIONS}", f"--rps={RATE // CONNECTIONS}", f"-D{SECONDS}"]
    command += ["-H", f"baggage: user=1,sandlane-routing-key={key}", f"--log-file={log}", url]
    with on_core(1):
        subprocess.run(command, check=True, capture_output=True, timeout=SECONDS + 30)
    times = [int(line.split()[2]) for line in log.read_text().splitlines()]
    return statistics.quantiles(times, n=100)[98]


async def fill(made: Router, upstream: int, sandboxes: int) -> None:
    """A Service with this many sandboxes, all of whose forks answer at one address."""
    at = ("127.0.0.1", upstream)
    objects = service("app", DOOR, at)
    for number in range(sandboxes):
        objects += sandbox(f"key-{number}", "app", at)
    await made.serve(objects)


async def measure(folder: Path) -> tuple[dict[str, list[Sample]], dict[str, list[float]], dict[str, float]]:
    """Everything in one run, in turns."""
    app, plain, keeping = free_port(), free_port(), free_port()
    forward = {"route": {"cluster": "app", "timeout": "0s"}}
    unlimited = {"thresholds": [{"max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000}]}
    static = server("plain", [listener("in", plain, forward)], [cluster("app", app) | {"circuit_breakers": unlimited}])
    kept_listener, kept_cluster = (
        listener("in", keeping, forward),
        cluster("app", app) | {"circuit_breakers": unlimited},
    )
    kept_listener["filter_chains"][0]["filters"][0]["typed_config"]["http_protocol_options"] = KEEP
    options = {"@type": H2, "explicit_http_config": {"http_protocol_options": KEEP}}
    kept_cluster["typed_extension_protocol_options"] = {H2.partition("/")[2]: options}
    kept = server("kept", [kept_listener], [kept_cluster])
    upstream = server("app", [listener("in", app, answer(100))], [])
    closed: dict[str, list[Sample]] = {}
    opened: dict[str, list[float]] = {}
    (folder / "one").mkdir()
    (folder / "many").mkdir()
    scripts = {}
    for number in (1, SANDBOXES):
        scripts[number] = folder / f"{number}.lua"
        scripts[number].write_text(SCRIPT.replace("NUMBER", str(number)))
    async with (
        plain_envoy(folder, "app", upstream, 1),
        plain_envoy(folder, "plain", static, 0) as plain_pid,
        plain_envoy(folder, "kept", kept, 0) as kept_pid,
        contextlib.AsyncExitStack() as stack,
    ):
        with on_core(0):
            one = await stack.enter_async_context(router(folder / "one"))
            many = await stack.enter_async_context(router(folder / "many"))
        await fill(one, app, 1)
        await fill(many, app, SANDBOXES)
        sizes = {"one": memory(one.pid), "many": memory(many.pid)}
        paths: dict[str, tuple[int, str, Path | None]] = {
            "plain Envoy, one static route": (plain_pid, f"http://127.0.0.1:{plain}/", scripts[SANDBOXES]),
            "the same, header lines keep their case": (kept_pid, f"http://127.0.0.1:{keeping}/", scripts[SANDBOXES]),
            "router, 1 sandbox": (one.pid, f"http://{one.host}:{DOOR}/", scripts[1]),
            f"router, {SANDBOXES:,} sandboxes": (many.pid, f"http://{many.host}:{DOOR}/", scripts[SANDBOXES]),
            f"router, {SANDBOXES:,} sandboxes, no key": (many.pid, f"http://{many.host}:{DOOR}/", None),
        }
        for round_ in range(ROUNDS + 1):
            for name, (pid, url, script) in paths.items():
                sample = await asyncio.to_thread(closed_loop, pid, url, script)
                if round_:  # the first warms up
                    closed.setdefault(name, []).append(sample)
        sizes["many, used"] = memory(many.pid)
        for _ in range(ROUNDS):
            for name, (_, url, script) in paths.items():
                if script is not None:
                    key = f"key-{0 if '1 sandbox' in name else SANDBOXES // 2}"
                    opened.setdefault(name, []).append(await asyncio.to_thread(open_loop, url, key, folder))
    return closed, opened, sizes


def run() -> list[Table]:
    """The cost of a request and of ten thousand sandboxes."""
    for tool, package in (("wrk", "wrk"), ("h2load", "nghttp2-client")):
        if not shutil.which(tool):
            raise SystemExit(f"this benchmark needs {tool}: apt-get install {package}")
    with tempfile.TemporaryDirectory() as folder:
        closed, opened, sizes = asyncio.run(measure(Path(folder)))
    rows = []
    base = next(iter(closed))

    def ratio(name: str, value: Callable[[Sample], float]) -> float:
        return statistics.median(
            value(mine) / value(plain) for mine, plain in zip(closed[name], closed[base], strict=True)
        )

    for name, samples in closed.items():
        latencies = opened.get(name)
        against = (
            statistics.median(mine / plain for mine, plain in zip(latencies, opened[base], strict=True))
            if latencies
            else None
        )
        rows.append(
            (
                name,
                f"{statistics.median(each.rps for each in samples):,.0f}",
                f"{ratio(name, lambda each: each.rps):.2f}",
                f"{statistics.median(each.cpu for each in samples):.1f}",
                f"{ratio(name, lambda each: each.cpu):.2f}",
                f"{statistics.median(latencies):,.0f}" if latencies else "",
                f"{against:.2f}" if against is not None else "",
            )
        )
    flat = statistics.median(
        many.cpu / one.cpu for one, many in zip(*(closed[name] for name in list(closed)[2:4]), strict=True)
    )
    note = (
        f"Envoy with one worker on one core; `wrk` with {CONNECTIONS} connections and the server on the other. Keys are drawn at random "
        f"from all sandboxes; all forks answer at one address. Medians of {ROUNDS} rounds of {SECONDS} s, ratios within each round. Latencies "
        f"at {RATE:,} requests/s, sent at a fixed rate by `h2load`. Limits: CPU ratio 1.20, throughput 0.83, latency 1.3."
    )
    columns = ("path", "requests/s", "ratio", "Envoy CPU µs/request", "ratio", "p99 µs at equal load", "ratio")
    requests = Table("routing", "A request through a router", columns, tuple(rows), note)
    grown = sizes["many"] - sizes["one"]
    sizes_rows = (
        ("CPU per request, 10,000 sandboxes against 1", f"{flat:.2f}", "1.05"),
        ("router's memory with 1 sandbox", f"{sizes['one']:.0f} MiB", ""),
        ("10,000 sandboxes on one Service add", f"{grown:.0f} MiB", "60 MiB"),
        ("the same after requests with all keys", f"{sizes['many, used'] - sizes['one']:.0f} MiB", ""),
    )
    head = ("what", "measured", "limit")
    sizes_table = Table("routing_sizes", "A router with 10,000 sandboxes", head, sizes_rows, bench="routing")
    return [requests, sizes_table]
