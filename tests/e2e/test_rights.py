"""The manager has the rights that it needs, and no others: shown by running it with exactly those that the manifests give.

One manager runs in the local cluster, as the ServiceAccount, through the whole life of sandboxes; another one runs from the
manifests as in a Pod, with the ServiceAccount's token.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

import sandlane
from sandlane.api.places import MANAGER_NAME, NAMESPACE, WEBHOOK_SERVICE
from sandlane.install.objects import everything, manager_options
from support.conformance.cluster import running
from support.laptop import BIN, DEADLINE, Laptop, laptop, until
from support.rights import Asked, asked, granted, used

ROOT = Path(__file__).resolve().parents[2]
RIDES = ROOT / "examples" / "rides"
NOT_IN_THIS_STORY = {
    ("delete", "sandboxes"): "their time is over: a minute at least",
    ("delete", "routegroups"): "their time is over: a minute at least",
    ("update", "sandboxes/finalizers"): "asked for by OwnerReferencesPermissionEnforcement only",
    ("update", "secrets"): "a certificate is renewed after two months",
    ("get", "pods/log"): "a crashed container's last line: the process node tells it in the Pod's status",
    ("sign", "signers"): "asked for by the API server, of whoever writes a certificate",
    ("approve", "signers"): "asked for by the API server, of whoever approves a request",
}
PERHAPS_IN_THIS_STORY = {("watch", "leases"): "a standby watches the leader's Lease: each manager here leads at once"}
IN_CLUSTER = """
import sys
from pathlib import Path
import sandlane.kube.config as config
config.IN_CLUSTER = Path(sys.argv[1])
from sandlane.cli.manager import main
sys.exit(main(sys.argv[2:]))
"""


def wait_ready(cluster: Laptop, kind: str, name: str) -> None:
    """Wait until one of our objects is ready."""
    cluster.done("wait", kind, name, "-n", "rides", "--for=condition=Ready", f"--timeout={DEADLINE:.0f}s")


def sandbox(name: str, *forks: Any, **spec: Any) -> dict[str, Any]:
    """A Sandbox."""
    head = {"apiVersion": "sandlane.dev/v1alpha1", "kind": "Sandbox", "metadata": {"name": name, "namespace": "rides"}}
    return head | {"spec": {"forks": list(forks), **spec}}


def fork(name: str, **customizations: Any) -> dict[str, Any]:
    """A fork of a Deployment."""
    return {"forkOf": {"kind": "Deployment", "name": name}, "customizations": customizations}


@pytest.fixture(scope="module")
def in_the_local_cluster(tmp_path_factory: pytest.TempPathFactory) -> set[Asked]:
    """What the manager asks in the life of sandboxes, a route group and a local workload."""
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("rights") / "data"
        cluster = stack.enter_context(laptop(folder, "--images", str(RIDES / "images.yaml")))
        cluster.done("apply", "-f", str(RIDES / "manifests"))
        cluster.done("apply", "-f", str(RIDES / "sandboxes"))
        wait_ready(cluster, "sbx", "new-eta")
        wait_ready(cluster, "rtg", "better-times")
        _change_and_drift(cluster)
        _crash(cluster)
        with _connected(cluster):
            wait_ready(cluster, "lwl", "near-drivers-eta")
        local = {"name": "own", "from": {"name": "routes"}, "mappings": [{"port": 8083, "to": "localhost:1"}]}
        cluster.done("apply", "-f", "-", stdin=sandbox("own", local=[local]))
        until(lambda: cluster.done("get", "lwl", "-n", "rides", "-o", "name"), "the sandbox's own LocalWorkload")
        cluster.done("delete", "rtg,sbx", "--all", "-n", "rides", f"--timeout={DEADLINE:.0f}s")
        until(lambda: not cluster.done("get", "pdb,lwl", "-n", "rides", "-o", "name"), "the router is gone")
        until(
            lambda: cluster.kubectl("get", "secret", "sandlane-preview-xds", "-n", NAMESPACE).returncode,
            "the preview gateway is gone",
        )
        block = json.loads((folder / "cluster.json").read_text())["block"]
        return asked(f"127.{block}.0.3:18002")


def _change_and_drift(cluster: Laptop) -> None:
    """A new spec, and the same damage twice, so that an Event is counted instead of written anew."""
    cluster.done("apply", "-f", "-", stdin=sandbox("new-eta", fork("eta", env=[{"name": "A", "value": "1"}])))
    wait_ready(cluster, "sbx", "new-eta")
    selector = ("-l", "sandlane.dev/sandbox=new-eta", "-n", "rides")
    for _ in range(2):
        before = cluster.done("get", "service", *selector, "-o", "jsonpath={.items[*].metadata.uid}")
        cluster.done("delete", "service", *selector)

        def back(before: str = before) -> bool:
            return cluster.done("get", "service", *selector, "-o", "jsonpath={.items[*].metadata.uid}") not in (
                "",
                before,
            )

        until(back, "the Service is made again")


def _crash(cluster: Laptop) -> None:
    """A fork whose container ends at once: its last line is in the status."""
    broken = {
        "spec": {"template": {"spec": {"containers": [{"name": "eta", "command": ["sh", "-c", "echo oh no; exit 3"]}]}}}
    }
    cluster.done("apply", "-f", "-", stdin=sandbox("broken", fork("eta", patch={"type": "strategic", "value": broken})))
    status = ("get", "sbx", "broken", "-n", "rides", "-o", "jsonpath={.status.forks}")
    until(lambda: "oh no" in cluster.done(*status), "the last line is told")


@contextmanager
def _connected(cluster: Laptop) -> Iterator[None]:
    """A laptop in the place of `eta`, by somebody who may edit this namespace and connect, and nothing else."""
    cluster.done("create", "rolebinding", "dev", "--clusterrole=edit", "--user=dev", "-n", "rides")
    cluster.done("create", "clusterrolebinding", "dev", "--clusterrole=sandlane-connect", "--user=dev")
    config = json.loads((cluster.folder / "kubeconfig").read_text())
    config["users"][0]["user"]["as"] = "dev"
    kubeconfig = cluster.folder / "dev.json"
    kubeconfig.write_text(json.dumps(config))
    command = [str(BIN / "sandlane"), "connect", "near-drivers", "-n", "rides", "--workload", "eta"]
    command += ["--port", "8084=localhost:1", "--kubeconfig", str(kubeconfig)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        try:
            until(
                lambda: cluster.kubectl("get", "lwl", "near-drivers-eta", "-n", "rides").returncode == 0, "it is there"
            )
            yield
        finally:
            running.send_signal(signal.SIGINT)
            running.wait(DEADLINE)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@pytest.fixture(scope="module")
def from_the_manifests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Laptop, str]]:
    """A cluster with `deploy/sandlane.yaml`, and its manager as in a Pod; the address of its metrics."""
    folder = tmp_path_factory.mktemp("manifests")
    with ExitStack() as stack:
        cluster = stack.enter_context(running(folder / "data", controllers=False))
        user = Laptop(folder / "data")
        user.done("apply", "--server-side", "-f", str(ROOT / "deploy" / "sandlane.yaml"))
        account = folder / "serviceaccount"
        account.mkdir()
        config = json.loads(cluster.kubeconfig.read_text())["clusters"][0]["cluster"]
        (account / "ca.crt").write_bytes(base64.b64decode(config["certificate-authority-data"]))
        (account / "namespace").write_text(NAMESPACE)
        (account / "token").write_text(user.done("create", "token", MANAGER_NAME, "-n", NAMESPACE).strip())
        xds, webhook, health, metrics, routes, grpc = free_ports(6)
        options = manager_options(NAMESPACE) | {
            "xdsBindAddress": f"127.0.0.1:{xds}",
            "routesBindAddress": f"127.0.0.1:{routes}",
            "routesGrpcBindAddress": f"127.0.0.1:{grpc}",
            "routesAuth": True,
            "webhookHost": "127.0.0.1",
            "webhookPort": webhook,
            "healthProbeBindAddress": f"127.0.0.1:{health}",
            "metricsBindAddress": f"127.0.0.1:{metrics}",
        }
        (folder / "manager.yaml").write_text(yaml.safe_dump(options))
        host, _, port = config["server"].removeprefix("https://").partition(":")
        environment = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
        environment |= {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
        command = [sys.executable, "-c", IN_CLUSTER, str(account), "--config", str(folder / "manager.yaml")]
        log = stack.enter_context((folder / "manager.log").open("w"))
        manager = stack.enter_context(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        stack.callback(manager.terminate)
        user.done("apply", "-f", "-", stdin=_endpoint(webhook))

        def ready() -> bool:
            assert manager.poll() is None, (folder / "manager.log").read_text()
            try:
                return bool(urllib.request.urlopen(f"http://127.0.0.1:{health}/readyz", timeout=5).read())
            except OSError:
                return False

        until(ready, f"the manager is ready, see {folder}/manager.log")
        until(lambda: _bundle(user), "the webhooks' bundle is written")
        _read_routes(user, f"http://127.0.0.1:{routes}/v1/rules")
        yield user, f"127.0.0.1:{metrics}"


def _read_routes(user: Laptop, url: str) -> None:
    """Whoever may `get` the path reads the routes, others do not."""
    for account, groups, status in (("nobody", "", 403), ("reader", "--clusterrole=cluster-admin", 200)):
        user.done("create", "serviceaccount", account, "-n", "default")
        if groups:
            user.done("create", "clusterrolebinding", account, groups, f"--serviceaccount=default:{account}")
        token = user.done("create", "token", account, "-n", "default").strip()
        request = urllib.request.Request(url, headers={"authorization": f"Bearer {token}"})
        try:
            got = urllib.request.urlopen(request, timeout=DEADLINE).status
        except urllib.error.HTTPError as error:
            got = error.code
        assert got == status


def _endpoint(port: int) -> dict[str, Any]:
    """Where the Service of the webhooks leads: what the endpoints' controller writes for the manager's Pods."""
    labels = {"kubernetes.io/service-name": WEBHOOK_SERVICE}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": WEBHOOK_SERVICE, "namespace": NAMESPACE, "labels": labels},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
        "ports": [{"name": "webhook", "port": port, "protocol": "TCP"}],
    }


def _bundle(user: Laptop) -> bool:
    kinds = ("mutatingwebhookconfiguration", "validatingwebhookconfiguration")
    hooks = [hook for kind in kinds for hook in user.get(kind, WEBHOOK_SERVICE)["webhooks"]]
    return all(hook["clientConfig"].get("caBundle") for hook in hooks)


def test_nothing_is_forbidden_and_nothing_superfluous(
    in_the_local_cluster: set[Asked], from_the_manifests: tuple[Laptop, str]
) -> None:
    """No request is refused for want of a right; every right that is given is used, but for those named above."""
    requests = in_the_local_cluster | asked(from_the_manifests[1])
    assert not [each for each in requests if each.code in ("401", "403")]
    roles = [obj for obj in everything(version=sandlane.__version__) if obj["metadata"]["name"] == MANAGER_NAME]
    given = granted(obj for obj in roles if obj["kind"] in ("ClusterRole", "Role"))
    assert given - used(requests) - set(PERHAPS_IN_THIS_STORY) == set(NOT_IN_THIS_STORY)
    assert used(requests) - given == set()


def test_a_manager_in_a_pod_leads_and_answers(from_the_manifests: tuple[Laptop, str]) -> None:
    """With its own token it takes the Lease, and the API server finds its webhooks by their Service."""
    user, _ = from_the_manifests
    assert user.get("lease", MANAGER_NAME, "-n", NAMESPACE)["spec"]["holderIdentity"]
    user.done("apply", "--server-side", "-f", str(ROOT / "deploy" / "sandlane.yaml"))
    assert _bundle(user), "applying the manifests again must leave the bundle alone"
    user.done("create", "namespace", "rides")
    bad = sandbox("bad", fork("eta"), fork("eta"), ttl={"duration": "x"})
    said = user.refused("apply", "-f", "-", stdin=bad)
    assert "spec.ttl.duration" in said
    assert "spec.forks[1].forkOf: Deployment eta is replaced by spec.forks[0].forkOf already" in said
    user.done("apply", "-f", "-", stdin=sandbox("good", fork("eta")))
    conditions = "jsonpath={.status.conditions[?(@.type=='Accepted')].reason}"
    until(
        lambda: user.done("get", "sbx", "good", "-n", "rides", "-o", conditions) == "BaselineNotFound",
        "it is reconciled",
    )
