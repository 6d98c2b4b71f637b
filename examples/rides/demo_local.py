"""A process on this machine answers one hop for one sandbox's key, through a tunnel. Every answer is checked.

Run after `demo.py`'s pattern: a local cluster in a temporary directory, rides, one sandbox, `sandlane connect`.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from demo import BASELINE, BIN, DEADLINE, HERE, SERVICES, Cluster, Failed, check, console, show, step, until


def free_port() -> int:
    """A port that nobody listens at now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def listening(port: int) -> None:
    """Raise `Failed` unless somebody listens."""
    with socket.socket() as sock:
        if sock.connect_ex(("127.0.0.1", port)):
            raise Failed(f"nothing listens at port {port}")


def demo(cluster: Cluster, processes: list[subprocess.Popen[bytes]]) -> None:
    """The demo, from an empty folder to the last check."""
    with step("sandlane up"):
        cluster.sandlane("up", "--detach", "--images", str(HERE / "images.yaml"))
    with step("kubectl apply: rides, and the sandbox near-drivers"):
        cluster.kubectl("apply", "-f", str(HERE / "manifests"))
        cluster.kubectl("apply", "-f", str(HERE / "sandboxes" / "near-drivers.yaml"))
        for service in SERVICES:
            cluster.kubectl("rollout", "status", f"deployment/{service}", "-n", "rides", f"--timeout={DEADLINE:.0f}s")
        cluster.kubectl(
            "wait", "sbx", "near-drivers", "-n", "rides", "--for=condition=Ready", f"--timeout={DEADLINE:.0f}s"
        )
    url = cluster.sandlane("url", "frontend", "-n", "rides").strip()
    key = cluster.kubectl("get", "sbx", "near-drivers", "-n", "rides", "-o", "jsonpath={.status.routingKey}")
    port = free_port()
    with step(f"a process of ours takes eta's place at 127.0.0.1:{port}"):
        env = {
            "PYTHONPATH": str(HERE),
            "SANDLANE_SANDBOX": "laptop",
            "RIDES_VERSION": "mine",
            "POD_IP": "127.0.0.1",
            "PORT": str(port),
        }
        eta = [sys.executable, "-m", "rides.eta2"]
        processes.append(
            subprocess.Popen(eta, env=os.environ | env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )
        until("it listens", lambda: listening(port))
    with step("sandlane connect near-drivers --workload eta"):
        command = [str(BIN / "sandlane"), "connect", "near-drivers", "-n", "rides", "--workload", "eta"]
        command += ["--port", f"8084=localhost:{port}", "--data-dir", str(cluster.folder)]
        log = (cluster.folder / "connect.log").open("wb")
        processes.append(subprocess.Popen(command, stdout=log, stderr=log))
        until("the LocalWorkload is there", lambda: cluster.kubectl("get", "lwl", "near-drivers-eta", "-n", "rides"))
        cluster.kubectl(
            "wait", "lwl", "near-drivers-eta", "-n", "rides", "--for=condition=Ready", f"--timeout={DEADLINE:.0f}s"
        )
    laptop = BASELINE | {"drivers": "near-drivers", "eta": "laptop"}
    show(
        [("no key", None, BASELINE), (f"key of near-drivers ({key})", key, laptop)], url, "With the laptop in the path"
    )
    with step("Ctrl-C: routes out first, nothing left behind"):
        processes[-1].send_signal(signal.SIGINT)
        processes[-1].wait(timeout=DEADLINE)
        until("the key is served by the cluster again", lambda: check(url, key, BASELINE | {"drivers": "near-drivers"}))
        if cluster.kubectl("get", "lwl", "-n", "rides", "-o", "name"):
            raise Failed("the LocalWorkload is still there")


def main() -> int:
    """Run the demo, clean up, and say what went wrong if anything did."""
    cluster = Cluster(Path(tempfile.mkdtemp(prefix="sandlane-demo-")))
    processes: list[subprocess.Popen[bytes]] = []
    status = 0
    try:
        demo(cluster, processes)
        console.print("[bold green]The laptop answered what its key sent, and nothing else.[/]")
    except (Failed, subprocess.TimeoutExpired) as error:
        console.print(f"[bold red]The demo failed:[/] {error}", highlight=False)
        status = 1
    for process in processes:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=DEADLINE)
    with step("sandlane down, clean up"):
        cluster.sandlane("down")
    shutil.rmtree(cluster.folder)
    return status


if __name__ == "__main__":
    sys.exit(main())
