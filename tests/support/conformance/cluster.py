"""The API server and the controllers as processes of their own, for clients that know nothing of Python."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).parents[2]
DEADLINE = 20.0


@dataclass(frozen=True)
class Cluster:
    """Where it serves, and how to make it forget its history."""

    kubeconfig: Path
    pid: int

    @property
    def compact(self) -> str:
        """A command that makes the server forget its history."""
        return f"kill -USR1 {self.pid}"


@contextmanager
def running(folder: Path, *, controllers: bool = True) -> Iterator[Cluster]:
    """A cluster whose state is in `folder`, stopped at the end."""
    with ExitStack() as stack:
        options = ["--data-dir", str(folder), "--listen", "127.0.0.1:0"]
        server = stack.enter_context(_process("sandlane.local.apiserver", options, folder / "server.log"))
        kubeconfig = folder / "kubeconfig"
        _wait_for(server, folder / "server.log", "serving at")
        if controllers:
            log = folder / "controllers.log"
            agent = stack.enter_context(_process("support.conformance.controllers", [str(kubeconfig)], log))
            _wait_for(agent, log, '"ready"', "ready ")
        yield Cluster(kubeconfig, server.pid)


@contextmanager
def _process(module: str, arguments: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"PYTHONPATH": str(TESTS)}
    with open(log, "wb") as output:
        command = [sys.executable, "-m", module, *arguments]
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise


def _wait_for(process: subprocess.Popen[bytes], log: Path, *texts: str) -> None:
    end = time.monotonic() + DEADLINE
    while not any(text in log.read_text() for text in texts):
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"{process.args}: {log.read_text()[-3000:]}")
        time.sleep(0.02)
