"""A local cluster, used as its user would: `sandlane` and `kubectl` as commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sandlane.local.settings import DataDir
from sandlane.local.up.state import ClusterState, ProcessState, read_state

BIN = Path(sys.executable).parent
DEADLINE = 60.0
PAUSE = 0.2
"""Between two looks, most of which start a process: more of them would only slow down what is awaited."""


class Laptop:
    """One data directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def sandlane(self, *arguments: str, code: int = 0) -> str:
        """The output of `sandlane ...`; what it complains of where it is to fail."""
        command = [str(BIN / "sandlane"), *arguments, "--data-dir", str(self.folder)]
        return run(command, code=code, also=self.logs)

    def kubectl(self, *arguments: str, stdin: object = "") -> subprocess.CompletedProcess[str]:
        """Run `kubectl ...`; what is for its standard input is text or objects, which are sent as JSON."""
        command = [str(BIN / "kubectl"), "--kubeconfig", str(self.folder / "kubeconfig"), *arguments]
        text = stdin if isinstance(stdin, str) else json.dumps(stdin)
        return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, input=text, check=False)

    def done(self, *arguments: str, stdin: object = "") -> str:
        """The output of `kubectl ...`, which must succeed."""
        ended = self.kubectl(*arguments, stdin=stdin)
        assert ended.returncode == 0, f"kubectl {' '.join(arguments)}: {ended.stdout}{ended.stderr}"
        return ended.stdout

    def refused(self, *arguments: str, stdin: object = "") -> str:
        """What `kubectl ...` says on failing, which it must."""
        ended = self.kubectl(*arguments, stdin=stdin)
        assert ended.returncode != 0, f"kubectl {' '.join(arguments)}: {ended.stdout}{ended.stderr}"
        return ended.stderr

    def get(self, *arguments: str) -> dict[str, Any]:
        """An object."""
        found: dict[str, Any] = json.loads(self.done("get", *arguments, "-o", "json"))
        return found

    def status(self) -> ClusterState:
        """How it is, as `sandlane status` tells it, without the time that a command takes."""
        state = read_state(DataDir(self.folder).status)
        assert state is not None, f"{self.folder} has no state"
        return state

    def process(self, name: str) -> ProcessState:
        """A part of the cluster."""
        return next(each for each in self.status().processes if each.name == name)

    def pid(self, name: str) -> int:
        """The process id of a part of the cluster."""
        found = self.process(name).pid
        assert found, f"{name} does not run"
        return found

    def logs(self) -> str:
        """The ends of all logs."""
        parts = [f"--- {path.name}\n{path.read_text()[-2000:]}" for path in sorted(self.folder.glob("logs/*.log"))]
        return "\n".join(["", *parts])


@contextmanager
def laptop(folder: Path, *options: str) -> Iterator[Laptop]:
    """A local cluster that is ready, and stopped at the end."""
    made = Laptop(folder)
    made.sandlane("up", "--detach", *options)
    try:
        yield made
    finally:
        made.sandlane("down")


def processes_of(folder: Path) -> list[str]:
    """Command lines of all processes that mention the directory."""
    return processes_with(str(folder))


def processes_with(text: str) -> list[str]:
    """Command lines of all processes that hold this text."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if text in line:
                found.append(line.strip())
    return found


def until(check: Callable[[], object], what: str) -> None:
    """Wait until a check gives something true; failures count as false."""
    end, last = time.monotonic() + DEADLINE, None
    while time.monotonic() < end:
        try:
            if check():
                return
        except (AssertionError, OSError) as error:
            last = error
        time.sleep(PAUSE)
    raise AssertionError(f"not so after {DEADLINE:.0f} s: {what}") from last


def run(command: list[str], *, code: int = 0, also: Callable[[], str] = lambda: "") -> str:
    """The output of a command, or its errors where it is to fail. `also` is told when it ends in another way."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=2 * DEADLINE, stdin=subprocess.DEVNULL, check=False
    )
    assert done.returncode == code, f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}{also()}"
    return done.stderr if code else done.stdout
