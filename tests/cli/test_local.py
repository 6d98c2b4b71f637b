"""The commands of the local cluster, where no cluster is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest

from sandlane.cli.local import served_url
from sandlane.local.settings import DataDir
from sandlane.local.up.claim import Lock


def sandlane(*args: str) -> subprocess.CompletedProcess[str]:
    """Run `sandlane ...`."""
    return subprocess.run([sys.executable, "-m", "sandlane", *args], capture_output=True, text=True, timeout=60)


class Refused(Exception):
    """What a command would print before it exits."""


def refuse(message: object) -> NoReturn:
    """In the place of printing and exiting."""
    raise Refused(str(message))


def test_help_lists_the_commands() -> None:
    """`--help` works without loading anything heavy, and names the commands."""
    done = sandlane("--help")
    assert done.returncode == 0
    assert {"up", "down", "status", "url", "manager", "version"} <= set(done.stdout.split())


def test_status_of_nothing(tmp_path: Path) -> None:
    """Without a cluster status exits with 3 and says so, in JSON too."""
    done = sandlane("status", "--data-dir", str(tmp_path), "-o", "json")
    assert done.returncode == 3
    assert json.loads(done.stdout) == {"running": False, "ready": False, "dataDir": str(tmp_path)}


def test_a_second_up_says_who_runs(tmp_path: Path) -> None:
    """`up` on a running directory names the process and how to reach the cluster."""
    data = DataDir(tmp_path / "data")
    data.prepare()
    lock = Lock(data.lock)
    done = sandlane("up", "--detach", "--data-dir", str(data.root))
    lock.release()
    assert done.returncode == 1
    assert f"already runs in {data.root} (process {os.getpid()})" in done.stderr
    assert f"KUBECONFIG={data.kubeconfig}" in done.stderr


def test_up_refuses_another_version(tmp_path: Path) -> None:
    """A directory of another format is refused before anything starts."""
    data = DataDir(tmp_path / "data")
    data.prepare()
    data.version.write_text("0")
    done = sandlane("up", "--detach", "--data-dir", str(data.root))
    assert (done.returncode, done.stderr.count("data format 0")) == (1, 1)


def test_up_refuses_a_missing_image_map(tmp_path: Path) -> None:
    """A file that is not there is said at once."""
    done = sandlane("up", "--detach", "--data-dir", str(tmp_path / "d"), "--images", str(tmp_path / "none.yaml"))
    assert done.returncode == 1
    assert "No such file" in done.stderr


def service(*ports: dict[str, Any], ip: str = "127.20.32.5") -> dict[str, Any]:
    """A Service."""
    return {"metadata": {"name": "web"}, "spec": {"clusterIP": ip, "ports": list(ports)}}


HTTP, METRICS = {"name": "http", "port": 8080}, {"name": "metrics", "port": 9090}


@pytest.mark.parametrize(
    ("wanted", "url"),
    [("", "http://127.20.32.5:8080"), ("metrics", "http://127.20.32.5:9090"), ("9090", "http://127.20.32.5:9090")],
)
def test_url_picks_a_port(wanted: str, url: str) -> None:
    """The first port, or the one asked for by name or number."""
    assert served_url(service(HTTP, METRICS), wanted, refuse) == url


def test_url_of_low_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without privilege the URL has the port that is really served."""
    monkeypatch.setattr("sandlane.local.proxy.ports.first_bindable_port", lambda: 1024)
    assert served_url(service({"port": 80}), "", refuse) == "http://127.20.32.5:10080"
    assert served_url(service({"port": 443}), "", refuse) == "https://127.20.32.5:10443"


def test_url_refuses_what_it_cannot_give() -> None:
    """Unknown ports and headless Services are refused with what there is."""
    with pytest.raises(Refused, match="no port 'grpc'; it has: http"):
        served_url(service(HTTP), "grpc", refuse)
    with pytest.raises(Refused, match="no cluster IP"):
        served_url(service(HTTP, ip="None"), "", refuse)
