"""What `sandlane up`, `down` and `status` do: start a supervisor and wait for it, end it, ask how it is.

These run in the user's own short-lived process (or, for `up` without `--detach`, become the supervisor).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from sandlane.kube.clock import Clock
from sandlane.local.settings import DataDir, DataDirError
from sandlane.local.up.claim import AlreadyRunning, holder
from sandlane.local.up.logs import last_lines, open_log
from sandlane.local.up.state import ClusterState, read_state

START_SECONDS = 60.0
STOP_SECONDS = 60.0
_PAUSE = 0.03


class StartFailed(Exception):
    """The cluster did not become ready; the message says why, with the last lines of the log at fault."""


def command_line(data: DataDir, images: Path | None, port: int | None) -> list[str]:
    """The command that runs a supervisor."""
    argv = [sys.executable, "-m", "sandlane.local.up", "--data-dir", str(data.root)]
    if images:
        argv += ["--images", str(images.expanduser().absolute())]
    return [*argv, "--port", str(port)] if port else argv


def check(data: DataDir) -> None:
    """Refuse early what the supervisor would refuse. Raises `DataDirError`, `AlreadyRunning`."""
    data.prepare()
    if (pid := holder(data.lock)) is not None:
        raise AlreadyRunning(pid)


def start_detached(
    data: DataDir,
    clock: Clock,
    sleep: Callable[[float], None],
    *,
    images: Path | None = None,
    port: int | None = None,
    report: Callable[[ClusterState], None] = lambda state: None,
) -> ClusterState:
    """Start a supervisor that outlives us and wait until the cluster is ready.

    Raises `DataDirError`, `AlreadyRunning`, and `StartFailed` after which nothing is left running.
    """
    check(data)
    data.status.unlink(missing_ok=True)
    with open_log(data.log("supervisor")) as output:
        offset = output.tell()
        supervisor = subprocess.Popen(
            command_line(data, images, port),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd="/",
        )
    try:
        return _wait_ready(data, clock, sleep, supervisor, offset, report)
    except (StartFailed, KeyboardInterrupt):
        if supervisor.poll() is None:
            supervisor.terminate()
            try:
                supervisor.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                supervisor.kill()
        raise


def _wait_ready(
    data: DataDir,
    clock: Clock,
    sleep: Callable[[float], None],
    supervisor: subprocess.Popen[bytes],
    offset: int,
    report: Callable[[ClusterState], None],
) -> ClusterState:
    end = clock.monotonic() + START_SECONDS
    state: ClusterState | None = None
    while True:
        code = supervisor.poll()
        state = read_state(data.status) or state
        if state is not None:
            report(state)
            if state.ready and code is None:
                return state
        if code is not None:
            if (pid := holder(data.lock)) is not None:  # somebody else was faster
                raise AlreadyRunning(pid)
            raise StartFailed(_why(data, state, offset))
        if clock.monotonic() > end:
            raise StartFailed(f"not ready after {START_SECONDS:.0f} s: {_why(data, state, offset)}")
        sleep(_PAUSE)


def _why(data: DataDir, state: ClusterState | None, offset: int) -> str:
    if state is not None:
        late = [process for process in state.processes if not process.ready]
        culprit = next((p for p in late if state.failed.startswith(f"{p.name} ")), late[0] if late else None)
        if culprit is not None:
            text = state.failed or f"{culprit.name}: {culprit.message or culprit.state}"
            return "\n".join([text, *(f"  {line}" for line in last_lines(Path(culprit.log)))])
    with data.log("supervisor").open("rb") as file:
        file.seek(offset)
        said = file.read().decode(errors="replace").strip()
    return said or "the supervisor ended without a word"


def state_of(data: DataDir) -> ClusterState | None:
    """How a running cluster is, None if it does not run."""
    pid = holder(data.lock)
    if pid is None:
        return None
    state = read_state(data.status)
    if state is None or state.pid != pid:
        return ClusterState(
            pid=pid,
            version="",
            server="",
            data_dir=str(data.root),
            kubeconfig=str(data.kubeconfig),
            block="",
            started_at="",
        )
    return state


def stop(data: DataDir, clock: Clock, sleep: Callable[[float], None]) -> bool:
    """End a running cluster and wait for it; whether one ran. Raises `DataDirError` if it does not end."""
    pid = holder(data.lock)
    if pid is None:
        return False
    if pid == 0:
        raise DataDirError(f"{data.lock} is held by an unknown process")
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return True
        end = clock.monotonic() + STOP_SECONDS
        while clock.monotonic() < end:
            if holder(data.lock) is None:
                return True
            sleep(_PAUSE)
    raise DataDirError(f"process {pid} does not end: see {data.log('supervisor')}")
