"""`sandlane uninstall` leaves a cluster as it was, with a living manager and without one."""

from __future__ import annotations

import json
import os
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from support.laptop import BIN, DEADLINE, Laptop, laptop, run, until

RIDES = Path(__file__).resolve().parents[2] / "examples" / "rides"
KINDS = (
    "deployments,services,poddisruptionbudgets,configmaps,secrets,serviceaccounts,leases,namespaces,roles,rolebindings"
)
GLOBAL = "crd,mutatingwebhookconfigurations,validatingwebhookconfigurations,clusterroles,clusterrolebindings"
STRANGERS: list[dict[str, Any]] = [
    {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "near", "namespace": "rides"}, "spec": {
        "replicas": 0, "selector": {"matchLabels": {"app": "near"}}, "template": {
            "metadata": {"labels": {"app": "near"}}, "spec": {"containers": [{"name": "a", "image": "any"}]}}}},
    {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {
        "name": "borrowed", "namespace": "rides", "labels": {"app.kubernetes.io/managed-by": "sandlane"}}},
    {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "sandlane-webhook-certificate", "namespace": "rides"}},
    {"apiVersion": "v1", "kind": "Service", "metadata": {
        "name": "odd", "namespace": "rides", "annotations": {"sandlane.dev/routing": "always", "theirs": "1"}}, "spec": {
            "selector": {"app": "eta"}, "sessionAffinity": "ClientIP", "publishNotReadyAddresses": True, "ports": [
                {"name": "b", "port": 9002, "targetPort": "http", "appProtocol": "http"},
                {"name": "a", "port": 9001, "targetPort": 8084, "appProtocol": "http"}]}},
]  # fmt: skip


def everything(cluster: Laptop) -> dict[str, Any]:
    """What users can see of all objects that an uninstallation could touch."""
    found = {}
    for kinds, where in ((KINDS, ("-A",)), (GLOBAL, ())):
        for obj in json.loads(cluster.done("get", kinds, *where, "-o", "json"))["items"]:
            metadata = obj["metadata"]
            for name in ("resourceVersion", "managedFields", "generation"):
                metadata.pop(name, None)
            (metadata.get("annotations") or {}).pop("deployment.kubernetes.io/revision", None)
            obj.pop("status", None)
            if obj["kind"] == "Lease":
                obj.pop("spec")
            found[f"{obj['kind']} {metadata.get('namespace', '')}/{metadata['name']}"] = json.dumps(obj)
    return found


@pytest.mark.parametrize("alive", [True, False], ids=["with a manager", "without a manager"])
def test_nothing_is_left_but_the_app(tmp_path: Path, alive: bool) -> None:
    """Each Service is byte for byte what it was, nothing of ours is left anywhere, nothing of others is touched."""
    with ExitStack() as stack:
        cluster = stack.enter_context(laptop(tmp_path / "data", "--images", str(RIDES / "images.yaml")))
        before = set(everything(cluster))
        cluster.done("apply", "-f", str(RIDES / "manifests"))
        cluster.done(
            "create", "--save-config", "-f", "-", stdin={"apiVersion": "v1", "kind": "List", "items": STRANGERS[:3]}
        )
        cluster.done("rollout", "status", "deployment/eta", "-n", "rides", f"--timeout={DEADLINE:.0f}s")
        plain = everything(cluster)
        odd = json.loads(cluster.done("create", "-f", "-", "-o", "json", stdin=STRANGERS[3]))
        cluster.done("apply", "-f", str(RIDES / "sandboxes" / "new-eta.yaml"))
        cluster.done("wait", "sbx/new-eta", "-n", "rides", "--for=condition=Ready", f"--timeout={DEADLINE:.0f}s")

        def turned(name: str) -> bool:
            service = cluster.get("service", name, "-n", "rides")
            return "sandlane.dev/original" in service["metadata"].get("annotations", {})

        until(lambda: turned("eta") and turned("odd"), "both Services are turned")
        manager = cluster.pid("manager")
        if not alive:
            os.kill(manager, signal.SIGSTOP)
        config = str(cluster.folder / "kubeconfig")
        uninstall = [str(BIN / "sandlane"), "uninstall", "--kubeconfig", config, *(() if alive else ("--wait", "1"))]
        said = run(uninstall)
        assert "Sandbox rides/new-eta deleted" in said
        assert "Service rides/odd turned back" in said
        assert "Namespace sandlane-system deleted" in said
        assert ("finalizer removed" in said) is not alive

        after = everything(cluster)
        given_back = json.loads(after.pop("Service rides/odd"))
        assert json.dumps(given_back["spec"]) == json.dumps(odd["spec"])
        assert given_back["metadata"]["annotations"] == odd["metadata"]["annotations"]
        assert {name: after.get(name) for name in plain if name not in before} == {
            name: plain[name] for name in plain if name not in before
        }
        ours = {name for name in before if "sandlane" in name}
        assert set(after) == set(plain) - ours
        assert run(uninstall) == "nothing of Sandlane is in this cluster\n"
        if not alive:
            os.kill(manager, signal.SIGCONT)

        until(lambda: cluster.process("manager").state == "ended", "the manager ends for good")
        assert cluster.status().ready
        assert "uninstalled" in cluster.sandlane("status")
        assert set(everything(cluster)) == {*after, "Service rides/odd"}
