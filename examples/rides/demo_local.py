"""Processes on this machine answer hops for one sandbox's key, through a tunnel, and call the cluster. Every answer is checked.

A local cluster in a temporary directory (or a running one, with `--use`), rides, one sandbox; then `sandlane connect` for a
process that was started before, and `sandlane run --connect` for one that calls other services.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from demo import BASELINE, BIN, DEADLINE, HERE, SERVICES, Cluster, Failed, check, console, run, show, step, until

PATHS = {"PYTHONPATH": str(HERE)}


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


def demo(cluster: Cluster, processes: list[subprocess.Popen[bytes]], *, fresh: bool) -> None:
    """The demo, from an empty folder (if `fresh`) to the last check."""
    if fresh:
        with step("sandlane up"):
            cluster.sandlane("up", "--detach", "--images", str(HERE / "images.yaml"))
    with step("kubectl apply: rides, and the sandbox near-drivers"):
        cluster.kubectl("apply", "-f", str(HERE / "manifests"))
        cluster.kubectl("apply", "-f", str(HERE / "sandboxes" / "near-drivers.yaml"))
        for service in SERVICES:
            cluster.kubectl("rollout", "status", f"deployment/{service}", "-n", "rides", f"--timeout={DEADLINE:.0f}s")
        wait = ("wait", "sbx", "near-drivers", "-n", "rides", "--for=condition=Ready", f"--timeout={DEADLINE:.0f}s")
        cluster.kubectl(*wait)
    url = cluster.sandlane("url", "frontend", "-n", "rides").strip()
    key = cluster.kubectl("get", "sbx", "near-drivers", "-n", "rides", "-o", "jsonpath={.status.routingKey}")
    sandboxed = BASELINE | {"drivers": "near-drivers"}
    rows = [("no key", None, BASELINE), (f"key of near-drivers ({key})", key, sandboxed)]
    connected(cluster, processes, url, rows)
    called_out(cluster, processes, url, rows)
    with step("nothing is left behind"):
        until("the key is served by the cluster again", lambda: check(url, key, sandboxed))
        if cluster.kubectl("get", "lwl", "-n", "rides", "-o", "name"):
            raise Failed("a LocalWorkload is still there")


Rows = list[tuple[str, str | None, dict[str, str]]]


def connected(cluster: Cluster, processes: list[subprocess.Popen[bytes]], url: str, rows: Rows) -> None:
    """A process that runs already takes a hop."""
    port = free_port()
    with step(f"a process of ours, `eta`, listens at 127.0.0.1:{port}"):
        env = PATHS | {"SANDLANE_SANDBOX": "laptop", "POD_IP": "127.0.0.1", "PORT": str(port)}
        eta = [sys.executable, "-m", "rides.eta2"]
        nowhere = subprocess.DEVNULL
        processes.append(subprocess.Popen(eta, env=os.environ | env, stdout=nowhere, stderr=nowhere))
        until("it listens", lambda: listening(port))
    with step("sandlane connect near-drivers --workload eta --detach"):
        command = ("connect", "near-drivers", "-n", "rides", "--workload", "eta", "--port", f"8084=localhost:{port}")
        cluster.sandlane(*command, "--detach")
    console.print(run([str(BIN / "sandlane"), "connections"]).rstrip(), highlight=False)
    show(with_laptop(rows, "eta"), url, "eta is on this machine, for one key")
    with step("sandlane disconnect: routes out first"):
        run([str(BIN / "sandlane"), "disconnect", "near-drivers"])


def called_out(cluster: Cluster, processes: list[subprocess.Popen[bytes]], url: str, rows: Rows) -> None:
    """A process that is started with the container's environment takes a hop and calls another service in the cluster."""
    port = free_port()
    with step("sandlane run --sandbox near-drivers --workload routes --connect -- python -m rides.routes"):
        command = [str(BIN / "sandlane"), "run", "--sandbox", "near-drivers", "--workload", "routes", "-n", "rides"]
        command += ["--connect", "--port", f"8083=localhost:{port}", "--data-dir", str(cluster.folder), "--"]
        command += ["env", "SANDLANE_SANDBOX=laptop", f"PORT={port}", sys.executable, "-m", "rides.routes"]
        with (cluster.folder / "run.log").open("wb") as log:
            env = os.environ | PATHS
            processes.append(subprocess.Popen(command, stdout=log, stderr=log, env=env, start_new_session=True))
        until("the LocalWorkload is there", lambda: cluster.kubectl("get", "lwl", "near-drivers-routes", "-n", "rides"))
        wait = ("wait", "lwl", "near-drivers-routes", "-n", "rides", "--for=condition=Ready")
        cluster.kubectl(*wait, f"--timeout={DEADLINE:.0f}s")
        until("it listens", lambda: listening(port))
    show(with_laptop(rows, "routes"), url, "routes is on this machine, and calls eta in the cluster")
    with step("Ctrl-C: the program ends, and the tunnel with it"):
        os.killpg(processes[-1].pid, signal.SIGINT)  # as a terminal does
        processes[-1].wait(timeout=DEADLINE)


def with_laptop(rows: Rows, service: str) -> Rows:
    """The same, with one hop of the key on this machine."""
    return [(name, key, wanted | {service: "laptop"} if key else wanted) for name, key, wanted in rows]


def main() -> int:
    """Run the demo, clean up, and say what went wrong if anything did."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--use", type=Path, help="the data directory of a running cluster, which is left running")
    used: Path | None = parser.parse_args().use
    cluster = Cluster(used or Path(tempfile.mkdtemp(prefix="sandlane-demo-")))
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # our children must hear it, even if we run in the background
    processes: list[subprocess.Popen[bytes]] = []
    status = 0
    try:
        demo(cluster, processes, fresh=used is None)
        console.print("[bold green]The laptop answered what its key sent, and nothing else.[/]")
    except (Failed, subprocess.TimeoutExpired) as error:
        console.print(f"[bold red]The demo failed:[/] {error}", highlight=False)
        status = 1
    for process in processes:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=DEADLINE)
    if used is None:
        with step("sandlane down, clean up"):
            cluster.sandlane("down")
        shutil.rmtree(cluster.folder)
    return status


if __name__ == "__main__":
    sys.exit(main())
