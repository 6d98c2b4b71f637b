"""`sandlane uninstall` leaves a cluster as it was, with a living manager and without one."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.laptop import BIN, DEADLINE, laptop, run

RIDES = Path(__file__).resolve().parents[2] / "examples" / "rides"


@pytest.mark.parametrize("alive", [True, False], ids=["with a manager", "without a manager"])
def test_nothing_is_left_but_the_app(tmp_path: Path, alive: bool) -> None:
    """Services are as their owner wrote them; no kind, webhook, router, fork or finalizer is left."""
    with ExitStack() as stack:
        cluster = stack.enter_context(laptop(tmp_path / "data", "--images", str(RIDES / "images.yaml")))
        cluster.done("apply", "-f", str(RIDES / "manifests"))
        wanted = cluster.get("service", "eta", "-n", "rides")["spec"]["selector"]
        workloads = cluster.done("get", "deployments,services", "-n", "rides", "-o", "name")
        cluster.done("apply", "-f", str(RIDES / "sandboxes" / "new-eta.yaml"))
        cluster.done("wait", "sbx/new-eta", "-n", "rides", "--for=condition=Ready", f"--timeout={DEADLINE:.0f}s")
        assert cluster.get("service", "eta", "-n", "rides")["spec"]["selector"] != wanted
        if not alive:
            manager = cluster.pid("manager")
            os.kill(manager, signal.SIGSTOP)
            stack.callback(os.kill, manager, signal.SIGCONT)
        said = run([str(BIN / "sandlane"), "uninstall", "--kubeconfig", str(cluster.folder / "kubeconfig")])
        assert "Sandbox rides/new-eta deleted" in said
        assert ("finalizer removed" in said) is not alive
        assert cluster.get("service", "eta", "-n", "rides")["spec"]["selector"] == wanted
        assert cluster.done("get", "deployments,services", "-n", "rides", "-o", "name") == workloads
        kinds = "crd,mutatingwebhookconfiguration,validatingwebhookconfiguration,poddisruptionbudget"
        assert "sandlane" not in cluster.done("get", kinds, "-A", "-o", "name")
