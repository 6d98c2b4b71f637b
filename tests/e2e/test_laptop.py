"""A laptop as a part of the cluster, used as its user would: one local cluster, rides in it, and the commands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from support.laptop import BIN, DEADLINE, Laptop, laptop, run, until

RIDES = Path(__file__).resolve().parents[2] / "examples" / "rides"
HEAD = {"apiVersion": "sandlane.dev/v1alpha1", "kind": "LocalWorkload"}


class Developer:
    """Somebody who may edit `rides` and connect, and nothing else."""

    def __init__(self, cluster: Laptop, name: str, folder: Path) -> None:
        config = json.loads((cluster.folder / "kubeconfig").read_text())
        config["users"][0]["user"]["as"] = name
        self.cluster = cluster
        self.kubeconfig = folder / f"{name}.json"
        self.kubeconfig.write_text(json.dumps(config))
        self.env = os.environ | {"SANDLANE_RUNTIME_DIR": str(folder / "run")}

    def sandlane(self, *arguments: str, stdin: object = None, code: int = 0) -> str:
        """What `sandlane ...` says."""
        command = [str(BIN / "sandlane"), *arguments]
        if arguments[0] not in ("connections", "disconnect"):
            at = command.index("--") if "--" in command else len(command)
            command[at:at] = ["--kubeconfig", str(self.kubeconfig), "-n", "rides"]
        done = subprocess.run(
            command,
            input="" if stdin is None else json.dumps(stdin),
            capture_output=True,
            text=True,
            env=self.env,
            timeout=2 * DEADLINE,
            check=False,
        )
        assert done.returncode == code, f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    """A local cluster with rides and a sandbox, after the demo has run in it."""
    with laptop(tmp_path_factory.mktemp("laptop") / "data", "--images", str(RIDES / "images.yaml")) as cluster:
        told = run([sys.executable, str(RIDES / "demo_local.py"), "--use", str(cluster.folder)])
        assert "The laptop answered what its key sent, and nothing else." in told
        bindings = {
            "rolebinding": ["--clusterrole=edit", "-n", "rides"],
            "clusterrolebinding": ["--clusterrole=sandlane-connect"],
        }
        for kind, rest in bindings.items():
            cluster.done("create", kind, "dev", "--user=dev", *rest)
        cluster.done("create", "rolebinding", "looker", "--user=looker", "--clusterrole=view", "-n", "rides")
        yield cluster


@pytest.fixture(scope="module")
def dev(cluster: Laptop, tmp_path_factory: pytest.TempPathFactory) -> Developer:
    """A developer."""
    return Developer(cluster, "dev", tmp_path_factory.mktemp("dev"))


class Caller:
    """Somebody in the cluster who asks `routes` with the sandbox's key."""

    def __init__(self, cluster: Laptop) -> None:
        self.key = cluster.done("get", "sbx", "near-drivers", "-n", "rides", "-o", "jsonpath={.status.routingKey}")
        self.url = cluster.sandlane("url", "routes", "-n", "rides").strip()

    def asks(self) -> str:
        """The answer."""
        request = urllib.request.Request(self.url, headers={"baggage": f"sandlane-routing-key={self.key}"})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            return str(error)


@contextmanager
def answering(text: bytes) -> Iterator[int]:
    """A process of the laptop that answers everything with a text; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_the_cluster_is_told_apart_from_what_is_wrong_before_connecting(
    dev: Developer, tmp_path: Path, cluster: Laptop
) -> None:
    """A port, a workload or a sandbox that is not there, and rights that are missing: each is said, and nothing is made."""
    said = dev.sandlane("connect", "nothing", code=1)
    assert "there is no Sandbox nothing in namespace rides; it has near-drivers" in said
    said = dev.sandlane("connect", "near-drivers", "--workload", "eta", "--port", "80", code=1)
    assert "eta has no container port 80; it has 8084 (http)" in said
    looker = Developer(cluster, "looker", tmp_path)
    said = looker.sandlane("connect", "near-drivers", "--workload", "eta", "--port", "8084", code=1)
    assert "you may not connect localworkloads.sandlane.dev near-drivers-eta in namespace rides" in said
    assert "you may not create certificatesigningrequests.certificates.k8s.io" in said
    assert cluster.done("get", "lwl", "-n", "rides", "-o", "name") == ""


def test_several_workloads_of_a_file_through_the_api_server(dev: Developer, cluster: Laptop, tmp_path: Path) -> None:
    """With nothing exposed, by port-forward, for who may do that; another user is refused with the holder's name; one that
    is deleted ends alone, and gets no request more; a killed connection leaves no Envoy behind."""
    with answering(b"from the laptop") as routes:
        _several_workloads(dev, cluster, tmp_path, {"eta": (8084, 1), "routes": (8083, routes)})


def _several_workloads(dev: Developer, cluster: Laptop, tmp_path: Path, ports: dict[str, tuple[int, int]]) -> None:
    said = dev.sandlane("connect", "near-drivers", "-w", "eta", "-p", "8084", "--transport", "port-forward", code=1)
    assert "you may not get pods/portforward in namespace sandlane-system" in said
    namespace = ("-n", "sandlane-system")
    cluster.done("create", "rolebinding", "forward", *namespace, "--role=sandlane-port-forward", "--user=dev")
    spec = {"sandbox": "near-drivers", "from": {"kind": "Deployment", "name": "eta"}}
    items: list[dict[str, Any]] = [
        HEAD
        | {
            "metadata": {"name": name},
            "spec": spec | {"from": {"name": name}, "mappings": [{"port": port, "to": f"localhost:{to}"}]},
        }
        for name, (port, to) in ports.items()
    ]
    document = {"apiVersion": "v1", "kind": "List", "items": items}
    said = dev.sandlane("connect", "-f", "-", "--detach", "--transport", "port-forward", stdin=document)
    assert "nothing listens at 127.0.0.1:1 yet (for port 8084)" in said
    [record] = json.loads(dev.sandlane("connections", "-o", "json"))
    assert record["state"]["transport"] == "port-forward"
    assert [held["ready"] for held in record["state"]["workloads"]] == [True, True]
    cluster.done("create", "rolebinding", "sue", "--user=sue", "--clusterrole=edit", "-n", "rides")
    cluster.done("create", "clusterrolebinding", "sue", "--user=sue", "--clusterrole=sandlane-connect")
    sue = Developer(cluster, "sue", tmp_path)
    said = sue.sandlane("connect", "near-drivers", "-w", "eta", code=1)
    assert "LocalWorkload rides/eta: it is held by dev (since 20" in said
    caller = Caller(cluster)
    assert caller.asks() == "from the laptop"
    cluster.done("delete", "lwl", "routes", "-n", "rides")  # returns when the tunnel servers have confirmed it
    assert "from the laptop" not in caller.asks()

    def over() -> str:
        [record] = json.loads(dev.sandlane("connections", "-o", "json"))
        return str(record["state"]["workloads"][1]["over"])

    until(lambda: "the LocalWorkload" in over(), "who held the deleted one is told")
    children = Path(f"/proc/{record['pid']}/task/{record['pid']}/children").read_text().split()
    os.kill(record["pid"], signal.SIGKILL)
    until(lambda: not any(Path(f"/proc/{child}").exists() for child in children), "the Envoy has ended, too")
    assert "nothing is connected" in dev.sandlane("connections")
    wait = ("wait", "lwl", "--all", "-n", "rides", "--for=condition=Connected=False", f"--timeout={DEADLINE:.0f}s")
    cluster.done(*wait)
    cluster.done("delete", "lwl", "--all", "-n", "rides")


def test_a_program_runs_with_the_containers_eyes(dev: Developer, cluster: Laptop) -> None:
    """Variables, files, Services by variable and by name, the key for requests that have none, and its exit code."""
    key = cluster.done("get", "sbx", "near-drivers", "-n", "rides", "-o", "jsonpath={.status.routingKey}")
    script = """
import json, os, sys, urllib.request
def version(url):
    return {hop["service"]: hop["version"] for hop in json.load(urllib.request.urlopen(url, timeout=10))["hops"]}["drivers"]
print(os.environ["SANDLANE_ROUTING_KEY"], os.environ["POD_IP"], os.environ["SANDLANE_BASELINE"])
host, port = os.environ["FRONTEND_SERVICE_HOST"], os.environ["FRONTEND_SERVICE_PORT"]
print(version(f"http://{host}:{port}/?customer=2"), version("http://frontend.rides.svc:8080/?customer=2"))
sys.exit(7)
"""
    command = ("run", "-s", "near-drivers", "-w", "routes", "--inject-key")
    said = dev.sandlane(*command, "--", sys.executable, "-c", script, code=7)
    assert f"{key} 127.0.0.1 rides/Deployment/routes" in said
    assert "2-near 2-near" in said
    assert "you may not list Services of all namespaces" in said
    assert list((Path(dev.env["SANDLANE_RUNTIME_DIR"])).iterdir()) == []
