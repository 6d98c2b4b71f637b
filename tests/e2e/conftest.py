"""The cluster that tests share which need nothing of their own in it."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator

import pytest

from support.laptop import BIN, DEADLINE, Laptop, processes_of


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    """A cluster that was started in the foreground. It prints its progress, stays, and ends everything on Ctrl-C."""
    made = Laptop(tmp_path_factory.mktemp("shared") / "data")
    command = [str(BIN / "sandlane"), "up", "--data-dir", str(made.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        seen = ""
        while "export KUBECONFIG" not in seen:
            line = running.stdout.readline()
            assert line, seen + made.logs()
            seen += line
        assert "✓ Service proxy" in seen
        yield made
        running.send_signal(signal.SIGINT)
        assert running.wait(DEADLINE) == 0, made.logs()
    assert processes_of(made.folder) == []
