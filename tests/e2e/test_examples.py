"""The examples in a local cluster: messages through a real broker, and `sandlane trace` on real routers."""

from __future__ import annotations

import asyncio
import json
import os
import runpy
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.laptop import BIN, DEADLINE, Laptop, until

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
ORDERS, RIDES = EXAMPLES / "orders", EXAMPLES / "rides"
HAVE_BROKER = (BIN / "nats-server").exists() or shutil.which("nats-server")
DOORS = ("frontend", "routes", "eta")


def ordered(url: str, key: str = "") -> Any:
    """Send an order as the example's `send.py` does; the answer."""
    return asyncio.run(runpy.run_path(str(ORDERS / "send.py"))["send"](url, key, 2))


def is_baselines(url: str, key: str) -> bool:
    """Whether the baseline answers an order; while the sandbox goes nobody may."""
    import nats.errors

    try:
        return bool(ordered(url, key)["by"] == "baseline")
    except nats.errors.TimeoutError:
        return False


def processed(cluster: Laptop) -> int:
    """How many orders all workers together have processed."""
    names = cluster.done("get", "pods", "-n", "orders", "-o", "name").split()
    logs = "".join(cluster.done("logs", name, "-n", "orders") for name in names if "worker" in name)
    return logs.count(": order ")


@pytest.mark.skipif(not HAVE_BROKER, reason="no nats-server")
def test_each_message_is_processed_once_by_whom_its_key_says(cluster: Laptop) -> None:
    """Baseline and fork read the same subject; only one of them processes a message, also after the sandbox is gone."""
    cluster.done("apply", "-f", str(ORDERS / "manifests"), "-f", str(ORDERS / "sandboxes"))
    cluster.done("rollout", "status", "deployment/worker", "-n", "orders", f"--timeout={DEADLINE:.0f}s")
    cluster.done("wait", "sbx", "cheaper", "-n", "orders", "--for=condition=Ready", f"--timeout={DEADLINE:.0f}s")
    key = cluster.get("sbx", "cheaper", "-n", "orders")["status"]["routingKey"]
    url = cluster.sandlane("url", "nats", "-n", "orders").strip().replace("http", "nats")
    baseline, fork = {"by": "baseline", "price": 200}, {"by": "cheaper", "price": 160}
    until(lambda: ordered(url) == baseline and ordered(url, key) == fork, "baseline and fork answer")
    before = processed(cluster)
    for _ in range(2):
        assert ordered(url) == baseline
        assert ordered(url, key) == fork
        assert ordered(url, "unknown") == baseline
    manager = cluster.pid("manager")
    os.kill(manager, signal.SIGKILL)
    assert ordered(url, key) == fork, "the last routes count while the manager is away"
    assert ordered(url) == baseline
    until(lambda: processed(cluster) - before >= 8, "the logs are written")
    assert processed(cluster) - before == 8
    cluster.done("delete", "sbx", "cheaper", "-n", "orders", f"--timeout={DEADLINE:.0f}s")
    until(lambda: is_baselines(url, key), "the baseline has the key's orders again")


def traced(cluster: Laptop, key: str, code: int) -> dict[str, Any]:
    """What `sandlane trace` says of a request to the frontend."""
    command = [str(BIN / "sandlane"), "trace", "frontend", "-n", "rides", "--key", key, "-o", "json"]
    command += ["--data-dir", str(cluster.folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def propagate(cluster: Laptop, how: str) -> None:
    """Let the service `routes` pass on what these propagators do."""
    cluster.done("set", "env", "deployment/routes", "-n", "rides", f"OTEL_PROPAGATORS={how}")
    cluster.done("rollout", "status", "deployment/routes", "-n", "rides", f"--timeout={DEADLINE:.0f}s")


def test_where_the_key_is_lost(cluster: Laptop) -> None:
    """The way of a request, the service that drops baggage, and one that drops all context."""
    cluster.done("apply", "-f", str(RIDES / "manifests"), "-f", str(RIDES / "sandboxes" / "new-eta.yaml"))
    cluster.done("annotate", "service", *DOORS, "-n", "rides", "sandlane.dev/routing=always")
    cluster.done("wait", "sbx", "new-eta", "-n", "rides", "--for=condition=Ready", f"--timeout={DEADLINE:.0f}s")
    key = cluster.get("sbx", "new-eta", "-n", "rides")["status"]["routingKey"]

    def turned() -> bool:
        specs = [cluster.get("service", name, "-n", "rides")["spec"]["selector"] for name in DOORS]
        return all("sandlane.dev/router" in spec for spec in specs)

    until(turned, "the Services are turned")
    whole = traced(cluster, key, 0)
    assert whole["verdict"] == "arrived"
    assert [(hop["door"].split("/")[1].split(":")[0], hop["key"]) for hop in whole["hops"]] == [(n, key) for n in DOORS]
    assert whole["hops"][-1]["servedBy"].startswith("new-eta/")
    assert whole["hops"][-1]["caller"] == "rides/routes:8083"
    propagate(cluster, "tracecontext")
    lost = traced(cluster, key, 1)
    assert lost["message"].startswith(
        "lost between rides/routes:8083 and rides/eta:8084: the call to rides/eta:8084 had no key"
    )
    propagate(cluster, "none")
    silent = traced(cluster, key, 0)
    assert silent["notReached"] == ["rides/eta:8084"]
    assert "rides/eta:8084 has a route for the key and did not see the probe" in silent["message"]
