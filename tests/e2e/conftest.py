"""The cluster that tests share which need nothing of their own in it."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.laptop import BIN, DEADLINE, Laptop, processes_of

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    """A cluster that has the images of the examples and was started in the foreground.

    It prints its progress, stays, and ends everything on Ctrl-C.
    """
    folder = tmp_path_factory.mktemp("shared")
    images: dict[str, Any] = {}
    for example in (EXAMPLES / "orders", EXAMPLES / "rides"):
        images |= yaml.safe_load((example / "images.yaml").read_text().replace("${dir}", str(example)))["images"]
    (folder / "images.yaml").write_text(json.dumps({"images": images}))
    made = Laptop(folder / "data")
    command = [str(BIN / "sandlane"), "up", "--data-dir", str(made.folder), "--images", str(folder / "images.yaml")]
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
