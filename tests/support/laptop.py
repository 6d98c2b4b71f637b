"""A local cluster, used as its user would: `sandlane` and `kubectl` as commands."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
DEADLINE = 60.0


class Laptop:
    """One data directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def sandlane(self, *arguments: str) -> str:
        """The output of `sandlane ...`."""
        return run([str(BIN / "sandlane"), *arguments, "--data-dir", str(self.folder)])

    def kubectl(self, *arguments: str, stdin: object = None) -> subprocess.CompletedProcess[str]:
        """Run `kubectl ...`; objects for its standard input are sent as JSON."""
        command = [str(BIN / "kubectl"), "--kubeconfig", str(self.folder / "kubeconfig"), *arguments]
        text = json.dumps(stdin) if stdin is not None else ""
        return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, input=text, check=False)

    def done(self, *arguments: str, stdin: object = None) -> str:
        """The output of `kubectl ...`, which must succeed."""
        ended = self.kubectl(*arguments, stdin=stdin)
        assert ended.returncode == 0, f"kubectl {' '.join(arguments)}: {ended.stdout}{ended.stderr}"
        return ended.stdout

    def refused(self, *arguments: str, stdin: object = None) -> str:
        """What `kubectl ...` says on failing, which it must."""
        ended = self.kubectl(*arguments, stdin=stdin)
        assert ended.returncode != 0, f"kubectl {' '.join(arguments)}: {ended.stdout}{ended.stderr}"
        return ended.stderr

    def get(self, *arguments: str) -> dict[str, Any]:
        """An object."""
        found: dict[str, Any] = json.loads(self.done("get", *arguments, "-o", "json"))
        return found

    def status(self) -> dict[str, Any]:
        """`sandlane status -o json`, whether it is ready or not."""
        command = [str(BIN / "sandlane"), "status", "-o", "json", "--data-dir", str(self.folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def pid(self, name: str) -> int:
        """The process id of a part of the cluster."""
        return next(int(process["pid"]) for process in self.status()["processes"] if process["name"] == name)


@contextmanager
def laptop(folder: Path, *options: str) -> Iterator[Laptop]:
    """A local cluster that is ready, and stopped at the end."""
    made = Laptop(folder)
    made.sandlane("up", "--detach", *options)
    try:
        yield made
    finally:
        made.sandlane("down")


def until(check: Callable[[], object], what: str) -> None:
    """Wait until a check gives something true."""
    end = time.monotonic() + DEADLINE
    while not check():
        assert time.monotonic() < end, f"not so after {DEADLINE:.0f} s: {what}"
        time.sleep(0.05)


def run(command: list[str]) -> str:
    """The output of a command, which must succeed."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=2 * DEADLINE, stdin=subprocess.DEVNULL, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout
