"""`sandlane up` with real processes, a real Envoy and the real kubectl."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.laptop import BIN, DEADLINE, Laptop, processes_of, processes_with, until


def test_everything_is_ready(cluster: Laptop) -> None:
    """After `up --detach` every part is ready, and kubectl works with the kubeconfig."""
    state = json.loads(cluster.sandlane("status", "-o", "json"))
    assert state["ready"]
    assert {p["name"] for p in state["processes"]} == {"apiserver", "agent", "proxy", "manager"}
    assert "kube-system" in cluster.done("get", "namespaces", "-o", "name")
    assert "sandboxes" in cluster.done("api-resources", "--api-group=sandlane.dev", "-o", "name")


def test_a_second_up_says_so(cluster: Laptop) -> None:
    """`up` on a running directory fails with the process and the way in."""
    said = cluster.sandlane("up", "--detach", code=1)
    assert f"already runs in {cluster.folder} (process {cluster.status().pid})" in said


def test_the_api_server_is_reached_through_its_service(cluster: Laptop) -> None:
    """The Service `kubernetes` answers on its cluster IP, with a certificate for that address."""
    url = cluster.sandlane("url", "kubernetes").strip()
    config = json.loads((cluster.folder / "kubeconfig").read_text())
    config["clusters"][0]["cluster"]["server"] = url
    other = cluster.folder / "through-service.json"
    other.write_text(json.dumps(config))
    done = subprocess.run(
        [str(BIN / "kubectl"), "--kubeconfig", str(other), "get", "--raw", "/readyz"],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "ok"), done.stderr


POD = """
apiVersion: v1
kind: ConfigMap
metadata: {name: page}
data: {index.html: "from a volume\\n"}
---
apiVersion: v1
kind: Service
metadata: {name: page}
spec: {selector: {app: page}, ports: [{port: 8000}]}
---
apiVersion: v1
kind: Pod
metadata: {name: page, labels: {app: page}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: any
      command: [PYTHON, -m, http.server, "8000", --bind, $(IP), --directory, /sandlane-e2e/www]
      env: [{name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]
      readinessProbe: {tcpSocket: {port: 8000}}
      volumeMounts: [{name: www, mountPath: /sandlane-e2e/www}]
  volumes: [{name: www, configMap: {name: page}}]
""".replace("PYTHON", sys.executable)


def test_a_pod_is_used_with_kubectl(cluster: Laptop) -> None:
    """A Pod serves its volume; exec sees it, reaches Services by name and the API as the Pod's account; ports are forwarded."""
    cluster.done("apply", "-f", "-", stdin=POD)
    cluster.done("wait", "--for=condition=Ready", "pod/page", f"--timeout={DEADLINE:.0f}s")
    ask = "import urllib.request as u; print(u.urlopen('http://page.default.svc.cluster.local:8000/').read().decode())"
    until(  # a name is known a moment after its Service is there
        lambda: "from a volume" in cluster.done("exec", "page", "--", sys.executable, "-c", ask), "the Service answers"
    )
    assert cluster.done("exec", "-i", "page", "--", "cat", stdin="said") == "said"
    inside = ["env", "-u", "KUBECONFIG", f"HOME={cluster.folder}/nobody", str(BIN / "kubectl"), "auth", "whoami"]
    assert "system:serviceaccount:default:default" in cluster.done("exec", "page", "--", *inside)
    command = [
        str(BIN / "kubectl"),
        "--kubeconfig",
        str(cluster.folder / "kubeconfig"),
        "port-forward",
        "page",
        ":8000",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as forwarding:
        try:
            assert forwarding.stdout is not None
            port = forwarding.stdout.readline().split(" -> ")[0].rpartition(":")[2]
            for _ in range(2):
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as response:
                    assert response.read() == b"from a volume\n"
        finally:
            forwarding.terminate()
    cluster.done("delete", "pod/page", "service/page", "configmap/page")


@pytest.mark.parametrize("name", ["manager", "proxy", "agent", "apiserver"])
def test_a_killed_process_comes_back(cluster: Laptop, name: str) -> None:
    """After kill -9 of a part the cluster becomes ready again, with its state, and says what happened."""
    cluster.done("create", "configmap", f"before-{name}")
    before = cluster.pid(name)
    os.kill(before, signal.SIGKILL)
    until(lambda: cluster.pid(name) != before and cluster.status().ready, "ready again")
    assert cluster.process(name).restarts >= 1
    assert cluster.process(name).last_end == "killed by SIGKILL"
    assert f"configmap/before-{name}" in cluster.done("get", "configmap", f"before-{name}", "-o", "name")


def test_a_taken_port_is_said(tmp_path: Path) -> None:
    """When somebody listens on the wanted port, `up` fails with the port and leaves nothing behind."""
    other = Laptop(tmp_path / "data")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = other.sandlane("up", "--detach", "--port", str(port), code=1)
    assert f"port {port}" in said
    assert processes_of(other.folder) == []


PROGRAM = """
import http.server, os, signal, threading
# as every well-behaved server: go on until nobody sends requests here any more
signal.signal(signal.SIGTERM, lambda *_: threading.Timer(0.7, os._exit, (0,)).start())
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"{os.environ['VERSION']} {os.environ['HOSTNAME']}".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
print("serving", os.environ["VERSION"], flush=True)
http.server.ThreadingHTTPServer((os.environ["POD_IP"], 8080), Handler).serve_forever()
"""
MANIFEST = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: web
        image: web:1
        env: [{name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /, port: http}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http}]
"""


def parent_of(pid: int) -> int:
    """The parent of a process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image map with two versions of a small web server."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "web.py").write_text(PROGRAM)
    entries = {
        f"web:{version}": {"command": ["${python}", "${dir}/web.py"], "env": {"VERSION": version}}
        for version in ("1", "2")
    }
    file = folder / "images.yaml"
    file.write_text(json.dumps({"images": entries}))
    return file


def answers(url: str, count: int = 1) -> set[tuple[str, ...]]:
    """(version, Pod) of this many answers."""
    found = set()
    for _ in range(count):
        with urllib.request.urlopen(url, timeout=5) as response:
            found.add(tuple(response.read().decode().split()))
    return found


def test_a_deployment_from_apply_to_delete(tmp_path: Path, images: Path) -> None:
    """Apply, reach it by its Service, scale, roll forward while it answers, undo, lose the cluster, start it again, delete.

    After kill -9 of the supervisor, or of its outermost guard, all is gone, children of containers too.
    """
    own = Laptop(tmp_path / "data")
    own.sandlane("up", "--detach", "--images", str(images))
    try:
        own.done("apply", "-f", "-", stdin=MANIFEST)
        own.done("rollout", "status", "deployment/web", f"--timeout={DEADLINE:.0f}s")
        url = own.sandlane("url", "web").strip()
        until(lambda: {version for version, _ in answers(url)} == {"1"}, "version 1 answers")

        own.done("scale", "deployment/web", "--replicas=3")
        own.done("rollout", "status", "deployment/web", f"--timeout={DEADLINE:.0f}s")
        until(lambda: len(answers(url, 12)) == 3, "three Pods answer")

        own.done("set", "image", "deployment/web", "web=web:2")
        done = threading.Event()
        versions: list[str] = []

        def ask_all_the_time() -> None:
            while not done.is_set():
                versions.extend(version for version, _ in answers(url))

        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(ask_all_the_time)
            try:
                own.done("rollout", "status", "deployment/web", f"--timeout={DEADLINE:.0f}s")
                until(lambda: {version for version, _ in answers(url, 6)} == {"2"}, "only version 2 answers")
            finally:
                done.set()
            asking.result(DEADLINE)  # no request failed
        assert set(versions) == {"1", "2"}

        own.done("rollout", "undo", "deployment/web")
        own.done("rollout", "status", "deployment/web", f"--timeout={DEADLINE:.0f}s")
        until(lambda: {version for version, _ in answers(url, 6)} == {"1"}, "version 1 is back")
        history = own.done("rollout", "history", "deployment/web")
        assert [line.split()[0] for line in history.splitlines()[2:] if line] == ["2", "3"]

        os.kill(own.pid("manager"), signal.SIGKILL)
        os.kill(own.pid("proxy"), signal.SIGKILL)
        until(lambda: own.status().ready and answers(url), "it answers again")
        until(lambda: "ProcessRestarted" in own.done("get", "events", "-A"), "the restart is an Event")

        own.kubectl("config", "set-context", "--current", "--namespace=default")  # kubectl writes it anew, as YAML
        supervisor = own.status().pid
        os.kill(supervisor, signal.SIGKILL)
        until(lambda: processes_of(images.parent) == processes_of(own.folder) == [], "nothing outlives its supervisor")
        own.sandlane("status", code=3)
        own.sandlane("up", "--detach", "--images", str(images))
        until(lambda: len(answers(url, 12)) == 3, "three Pods answer at the same address after a restart")

        own.done("delete", "deployment,service", "web")
        until(lambda: not own.done("get", "pods,replicasets,endpointslices", "-l", "app=web", "-o", "name"), "gone")
        until(lambda: not processes_of(images.parent / "web.py"), "no process is left")
        marker = f"sleep {10_000_000 + os.getpid()}"
        own.done("create", "deployment", "tree", "--image=none", "--", "sh", "-c", f"{marker} & wait")
        until(lambda: processes_with(marker), "the grandchild runs")
        os.kill(parent_of(parent_of(own.status().pid)), signal.SIGKILL)
        until(lambda: not processes_of(own.folder) and not processes_with(marker), "nothing outlives its guard")
    finally:
        own.sandlane("down")
