"""The local cluster: start, sandbox to first keyed answer, writes per sandbox, idle cost."""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples" / "rides"))

from demo import HERE, SERVICES, Cluster, served_by, until

from bench.report import Table

ROUNDS = 5
IDLE_SECONDS = 30
SANDBOXES = 10
WRITES = re.compile(
    r'^rest_client_requests_total\{code="2\d\d",method="(POST|PUT|PATCH|DELETE)",resource="(?!subjectaccessreviews)[^"]*",verb="[^"]*"\} ([\d.]+)$',
    re.MULTILINE,
)


def sandbox(name: str, workload: str = "eta") -> str:
    """A manifest of a sandbox with one fork."""
    fork = {
        "forkOf": {"kind": "Deployment", "name": workload},
        "customizations": {"images": [{"image": "rides/eta:2"}]},
    }
    return json.dumps(
        {
            "apiVersion": "sandlane.dev/v1alpha1",
            "kind": "Sandbox",
            "metadata": {"name": name, "namespace": "rides"},
            "spec": {"forks": [fork], "routingKey": name},
        }
    )


def writes(block: int) -> float:
    """Successful writes of the manager so far; SubjectAccessReviews, which store nothing, are none."""
    with urllib.request.urlopen(f"http://127.{block}.0.3:18002/metrics", timeout=5) as answer:
        return sum(float(count) for _, count in WRITES.findall(answer.read().decode()))


def cost(folder: Path) -> dict[str, tuple[float, float, float]]:
    """CPU seconds, PSS and RSS (MiB) of each process of the cluster, by what it is."""
    state = json.loads((folder / "run" / "status.json").read_text())
    pids = {process["name"]: process["pid"] for process in state["processes"] if process.get("pid")}
    pids["supervisor"] = state["pid"]
    found = {}
    for name, pid in pids.items():
        stat = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        pss = int(re.search(r"^Pss:\s+(\d+)", rollup, re.MULTILINE)[1])  # type: ignore[index]
        rss = int(re.search(r"^Rss:\s+(\d+)", rollup, re.MULTILINE)[1])  # type: ignore[index]
        found[name] = ((int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK"), pss / 1024, rss / 1024)
    return found


def one_sandbox(cluster: Cluster, url: str, name: str, block: int) -> tuple[float, float, float]:
    """Seconds from apply to the first answer by the fork, seconds of the forked process' own start, writes to Ready."""
    manifest = cluster.folder / f"{name}.json"
    manifest.write_text(sandbox(name))
    before, started = writes(block), time.monotonic()
    cluster.kubectl("apply", "-f", str(manifest))
    while served_by(url, name)["eta"] != name:
        time.sleep(0.005)
    took = time.monotonic() - started
    cluster.kubectl("wait", "sbx", name, "-n", "rides", "--for=condition=Ready", "--timeout=60s")
    settled = writes(block)
    while (now := writes(block)) != settled:
        settled = now
    return took, process_start(), settled - before


def process_start() -> float:
    """Seconds that the forked program needs by itself until it listens."""
    import socket
    import subprocess

    env = os.environ | {"PYTHONPATH": str(HERE), "POD_IP": "127.0.0.1", "PORT": "19384"}
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "rides.eta2"], env=env, stdout=subprocess.DEVNULL)
    try:
        while True:
            with socket.socket() as sock:
                if sock.connect_ex(("127.0.0.1", 19384)) == 0:
                    return time.monotonic() - started
            time.sleep(0.002)
    finally:
        process.terminate()
        process.wait()


def run() -> list[Table]:
    """All of it, on a cluster in a temporary directory."""
    folder = Path(tempfile.mkdtemp(prefix="sandlane-bench-"))
    cluster = Cluster(folder)
    starts = []
    try:
        for _ in range(3):
            started = time.monotonic()
            cluster.sandlane("up", "--detach", "--images", str(HERE / "images.yaml"))
            starts.append(time.monotonic() - started)
            cluster.sandlane("down")
            shutil.rmtree(folder)
            folder.mkdir()
        cluster.sandlane("up", "--detach", "--images", str(HERE / "images.yaml"))
        block = json.loads((folder / "cluster.json").read_text())["block"]
        cluster.kubectl("apply", "-f", str(HERE / "manifests"))
        for service in SERVICES:
            cluster.kubectl("rollout", "status", f"deployment/{service}", "-n", "rides", "--timeout=60s")
        url = cluster.sandlane("url", "frontend", "-n", "rides").strip()
        until("rides answers", lambda: served_by(url, None))
        first = one_sandbox(cluster, url, "first", block)
        later = [one_sandbox(cluster, url, f"later-{index}", block) for index in range(ROUNDS)]
        for index in range(SANDBOXES - ROUNDS - 1):
            one_sandbox(cluster, url, f"more-{index}", block)
        time.sleep(5)
        before = cost(folder)
        time.sleep(IDLE_SECONDS)
        after = cost(folder)
    finally:
        cluster.sandlane("down")
        shutil.rmtree(folder, ignore_errors=True)
    python = [name for name in after if name != "proxy"]
    cpu = sum(after[name][0] - before[name][0] for name in after) / IDLE_SECONDS * 100
    beyond = statistics.median(took - own for took, own, _ in later)
    rows = (
        ("`sandlane up --detach` to ready, whole command", f"{statistics.median(starts):.1f} s", "5 s"),
        (
            "apply of a sandbox to the first answer by its fork, Service turned",
            f"{statistics.median(t for t, _, _ in later):.2f} s",
            "",
        ),
        ("… of which the forked process itself needs", f"{statistics.median(o for _, o, _ in later):.2f} s", ""),
        ("… beyond that", f"{beyond:.2f} s", "1.5 s"),
        ("the same for the first override of a Service (router made, Service turned)", f"{first[0]:.2f} s", ""),
        (
            "API writes from apply to Ready, Service turned (Events and status included, access reviews not)",
            f"{statistics.median(w for _, _, w in later):.0f}",
            "8",
        ),
        ("API writes for the first override of a Service", f"{first[2]:.0f}", ""),
        (f"idle CPU of the cluster's processes, rides and {SANDBOXES} sandboxes", f"{cpu:.1f} % of a core", "3 %"),
        ("memory of the Python processes, sum of PSS", f"{sum(after[n][1] for n in python):.0f} MiB", "250 MiB"),
        ("memory of the Python processes, sum of RSS", f"{sum(after[n][2] for n in python):.0f} MiB", ""),
    )
    note = f"Medians of {ROUNDS} sandboxes and of 3 starts; idle cost over {IDLE_SECONDS} s."
    return [Table("local_cluster", "The local cluster", ("figure", "measured", "limit"), rows, note)]
