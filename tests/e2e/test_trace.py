"""`sandlane trace` on real routers: a service that loses its callers' context is found."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from support.laptop import BIN, DEADLINE, Laptop, laptop, until

RIDES = Path(__file__).resolve().parents[2] / "examples" / "rides"
DOORS = ("frontend", "routes", "eta")


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


def test_where_the_key_is_lost(tmp_path: Path) -> None:
    """The way of a request, the service that drops baggage, and one that drops all context."""
    with laptop(tmp_path / "data", "--images", str(RIDES / "images.yaml")) as cluster:
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
        assert [(hop["door"].split("/")[1].split(":")[0], hop["key"]) for hop in whole["hops"]] == [
            (n, key) for n in DOORS
        ]
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
