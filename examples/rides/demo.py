"""The main job, shown and checked: two sandboxes share one baseline, each request goes where its key says.

Starts a local cluster in a temporary directory, deploys rides, applies the sandboxes, sends real requests
and compares who served each hop with who should have. Exits 0 only if every answer was right.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
SERVICES = ("frontend", "customers", "drivers", "routes", "eta")
BASELINE = dict.fromkeys(SERVICES, "baseline")
DEADLINE = 60.0  # seconds for any one wait

console = Console()


class Failed(Exception):
    """The demo did not go as it must; the message says what and why."""


@dataclass
class Cluster:
    """The local cluster of this demo, and the two commands that a user has for it."""

    folder: Path

    def sandlane(self, *args: str) -> str:
        """Run `sandlane ...` on this cluster and give its output."""
        return run([str(BIN / "sandlane"), *args, "--data-dir", str(self.folder)])

    def kubectl(self, *args: str) -> str:
        """Run `kubectl ...` on this cluster and give its output."""
        return run([str(BIN / "kubectl"), "--kubeconfig", str(self.folder / "kubeconfig"), *args])


def run(command: list[str]) -> str:
    """The output of a command. Raises `Failed` with what it printed if it does not succeed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=2 * DEADLINE, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{' '.join(command)}: no end after {error.timeout:.0f} s") from None
    if done.returncode != 0:
        raise Failed(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout


@contextmanager
def step(what: str) -> Iterator[None]:
    """Show progress while something is waited for, and how long it took."""
    started = time.monotonic()
    with console.status(what):
        yield
    console.print(f"[green]✓[/] {what} [dim]({time.monotonic() - started:.1f} s)[/]")


def served_by(url: str, key: str | None) -> dict[str, str]:
    """Send one request and say who served each hop: `baseline`, or a sandbox's name."""
    target = urlsplit(url)
    headers = {"baggage": f"team=demo,sandlane-routing-key={key}"} if key else {}
    host = target.hostname or ""
    if host.endswith(".localhost"):  # always this machine, as for curl and browsers
        headers, host = headers | {"Host": target.netloc}, "127.0.0.1"
    connection = http.client.HTTPConnection(host, target.port, timeout=10)
    try:
        connection.request("GET", "/?customer=2", headers=headers)
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status != 200:
        raise Failed(f"{url} answered {response.status}: {body[:500].decode(errors='replace')}")
    return {hop["service"]: hop["sandbox"] or "baseline" for hop in json.loads(body)["hops"]}


def same(seen: dict[str, str], wanted: dict[str, str]) -> None:
    """Raise `Failed` unless a request was served by whom it should have been."""
    if seen != wanted:
        raise Failed(f"served by {seen}, not by {wanted}")


def expect(name: str, send: Callable[[], dict[str, str]], wanted: dict[str, str], table: Table) -> None:
    """Send a request, put who served it into the table, and raise `Failed` if it was not as wanted."""
    seen = send()
    cells = [
        f"[{'cyan' if seen.get(s, '-') == 'baseline' else 'magenta'}]{seen.get(s, '-')}[/]"
        + ("" if seen.get(s) == wanted[s] else f" [red]≠ {wanted[s]}[/]")
        for s in SERVICES
    ]
    table.add_row(name, *cells)
    if seen != wanted:
        raise Failed(f"{name}: served by {seen}, not by {wanted}")


def show(rows: list[tuple[str, str | None, dict[str, str]]], url: str, title: str) -> None:
    """Send a request for each row (name, key, wanted) and print the table, also when one is wrong."""
    table = Table("request", *SERVICES, title=title, title_justify="left")
    try:
        for name, key, wanted in rows:
            expect(name, lambda key=key: served_by(url, key), wanted, table)  # type: ignore[misc]
    finally:
        console.print(table)


def until(what: str, check: Callable[[], object]) -> None:
    """Repeat a check until it does not raise `Failed`; raise the last one after the deadline."""
    end = time.monotonic() + DEADLINE
    while True:
        try:
            check()
            return
        except (Failed, OSError) as error:
            if time.monotonic() > end:
                raise Failed(f"{what}: not so after {DEADLINE:.0f} s: {error}") from error
        time.sleep(0.1)


def demo(cluster: Cluster) -> None:
    """The demo, from an empty folder to the last check."""
    with step("sandlane up: API server, controllers, node, Service proxy, manager"):
        cluster.sandlane("up", "--detach", "--images", str(HERE / "images.yaml"))
    with step("kubectl apply: rides, five services"):
        cluster.kubectl("apply", "-f", str(HERE / "manifests"))
        for service in SERVICES:
            cluster.kubectl("rollout", "status", f"deployment/{service}", "-n", "rides", f"--timeout={DEADLINE:.0f}s")
    url = cluster.sandlane("url", "frontend", "-n", "rides").strip()
    with step(f"the app answers at {url}"):
        until("rides answers", lambda: served_by(url, None))
    with step("kubectl apply: sandboxes new-eta and near-drivers, route group better-times"):
        cluster.kubectl("apply", "-f", str(HERE / "sandboxes"))
        for kind, name in (("sbx", "new-eta"), ("sbx", "near-drivers"), ("rtg", "better-times")):
            cluster.kubectl("wait", kind, name, "-n", "rides", "--for=condition=Ready", f"--timeout={DEADLINE:.0f}s")
    keys = {
        name: cluster.kubectl("get", kind, name, "-n", "rides", "-o", "jsonpath={.status.routingKey}")
        for kind, name in (("sbx", "new-eta"), ("sbx", "near-drivers"), ("rtg", "better-times"))
    }
    show(
        [
            ("no key", None, BASELINE),
            (f"key of new-eta ({keys['new-eta']})", keys["new-eta"], BASELINE | {"eta": "new-eta"}),
            (
                f"key of near-drivers ({keys['near-drivers']})",
                keys["near-drivers"],
                BASELINE | {"drivers": "near-drivers"},
            ),
            (
                f"key of better-times ({keys['better-times']})",
                keys["better-times"],
                BASELINE | {"eta": "new-eta", "drivers": "near-drivers"},
            ),
            ("unknown key", "nobody-has-this", BASELINE),
        ],
        url,
        "Who serves each hop",
    )
    preview = cluster.kubectl("get", "sbx", "new-eta", "-n", "rides", "-o", "jsonpath={.status.endpoints[0].url}")
    with step(f"the preview address {preview} is the key of new-eta"):
        until("it is served", lambda: same(served_by(preview, None), BASELINE | {"eta": "new-eta"}))
    with (
        step("kubectl apply of the unchanged manifests, under load, breaks nothing"),
        watched(url, {None: BASELINE, keys["new-eta"]: BASELINE | {"eta": "new-eta"}}),
    ):
        cluster.kubectl("apply", "-f", str(HERE / "manifests"))
    with step("kubectl delete sbx new-eta"):
        cluster.kubectl("delete", "sbx", "new-eta", "-n", "rides", f"--timeout={DEADLINE:.0f}s")
    show(
        [
            ("key of new-eta, deleted", keys["new-eta"], BASELINE),
            ("key of near-drivers", keys["near-drivers"], BASELINE | {"drivers": "near-drivers"}),
            ("no key", None, BASELINE),
        ],
        url,
        "After new-eta was deleted",
    )


@contextmanager
def watched(url: str, wanted: dict[str | None, dict[str, str]]) -> Iterator[None]:
    """Send requests with each key all the while; raise `Failed` if a single one is not served as wanted."""
    done = threading.Event()
    problems: list[str] = []

    def send(key: str | None) -> None:
        while not done.is_set() and not problems:
            try:
                check(url, key, wanted[key])
            except (Failed, OSError, http.client.HTTPException) as error:
                problems.append(str(error))

    threads = [threading.Thread(target=send, args=(key,)) for key in wanted]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()
    if problems:
        raise Failed(problems[0])


def check(url: str, key: str | None, wanted: dict[str, str]) -> None:
    """Raise `Failed` unless a request is served as wanted."""
    seen = served_by(url, key)
    if seen != wanted:
        raise Failed(f"served by {seen}, not by {wanted}")


def main() -> int:
    """Run the demo, clean up, and say what went wrong if anything did."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the cluster running and say how to look around")
    keep = parser.parse_args().keep
    folder = Path(tempfile.mkdtemp(prefix="sandlane-demo-"))
    cluster = Cluster(folder)
    status = 0
    try:
        demo(cluster)
        console.print("[bold green]Every request went where its key says.[/]")
    except Failed as error:
        console.print(f"[bold red]The demo failed:[/] {error}", markup=True, highlight=False)
        status = 1
    except KeyboardInterrupt:
        console.print("Interrupted.")
        status = 130
    if keep:
        console.print(
            f"\nThe cluster is still running. To look around:\n"
            f"  export KUBECONFIG={folder}/kubeconfig PATH={BIN}:$PATH\n"
            f"  kubectl get sbx,rtg,deploy,svc -n rides\n"
            f"  curl -H 'baggage: sandlane-routing-key=KEY' $(sandlane url frontend -n rides --data-dir {folder})\n"
            f"To end it: sandlane down --data-dir {folder} && rm -r {folder}"
        )
        return status
    with step("sandlane down, clean up"):
        try:
            cluster.sandlane("down")
        except Failed as error:
            console.print(f"[bold red]Could not stop the cluster in {folder}:[/] {error}", highlight=False)
            return status or 1
        if status and os.environ.get("SANDLANE_DEMO_KEEP_LOGS"):
            console.print(f"Logs: {folder / 'logs'}")
        else:
            shutil.rmtree(folder)
    return status


if __name__ == "__main__":
    sys.exit(main())
