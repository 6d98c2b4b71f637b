"""Load from `wrk` (Debian package `wrk`): closed loop, what it reports as numbers."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 6e7}


@dataclass(frozen=True)
class Load:
    """Requests per second, median and 99th percentile in microseconds, answers that were not 2xx or 3xx."""

    rps: float
    p50: float
    p99: float
    errors: int


def wrk(
    url: str, *, connections: int, seconds: int, headers: dict[str, str] | None = None, script: Path | None = None
) -> Load:
    """Run wrk with one thread, and a script of its own kind. Raises `SystemExit` with what to install when it is not there."""
    if not shutil.which("wrk"):
        raise SystemExit("this benchmark needs wrk: apt-get install wrk")
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
    for name, value in (headers or {}).items():
        command += ["-H", f"{name}: {value}"]
    if script is not None:
        command += ["-s", str(script)]
    out = subprocess.run([*command, url], check=True, capture_output=True, text=True, timeout=seconds + 30).stdout
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    socket = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", out)
    return Load(
        float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1]),  # type: ignore[index]
        _percentile(out, 50),
        _percentile(out, 99),
        (int(bad[1]) if bad else 0) + (sum(map(int, socket.groups())) if socket else 0),
    )


def _percentile(out: str, which: int) -> float:
    match = re.search(rf"^\s+{which}%\s+([\d.]+)(us|ms|s|m)$", out, re.MULTILINE)
    assert match, out
    return float(match[1]) * UNITS[match[2]]
