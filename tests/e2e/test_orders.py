"""Messages through a real broker: each is processed once, by the workload that its key says."""

from __future__ import annotations

import asyncio
import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest

from support.laptop import BIN, DEADLINE, Laptop, laptop, until

ORDERS = Path(__file__).resolve().parents[2] / "examples" / "orders"
HAVE_BROKER = (BIN / "nats-server").exists() or shutil.which("nats-server")


def ordered(url: str, key: str = "") -> Any:
    """Send an order as the example's `send.py` does; the answer."""
    return asyncio.run(runpy.run_path(str(ORDERS / "send.py"))["send"](url, key, 2))


def processed(cluster: Laptop) -> int:
    """How many orders all workers together have processed."""
    names = cluster.done("get", "pods", "-n", "orders", "-o", "name").split()
    logs = "".join(cluster.done("logs", name, "-n", "orders") for name in names if "worker" in name)
    return logs.count(": order ")


@pytest.mark.skipif(not HAVE_BROKER, reason="no nats-server")
def test_each_message_is_processed_once_by_whom_its_key_says(tmp_path: Path) -> None:
    """Baseline and fork read the same subject; only one of them processes a message, also after the sandbox is gone."""
    with laptop(tmp_path / "data", "--images", str(ORDERS / "images.yaml")) as cluster:
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
        until(lambda: processed(cluster) - before >= 6, "the logs are written")
        assert processed(cluster) - before == 6
        cluster.done("delete", "sbx", "cheaper", "-n", "orders", f"--timeout={DEADLINE:.0f}s")
        until(lambda: ordered(url, key) == baseline, "the baseline has the key's orders again")
