"""What the supervisor says of itself in `run/status.json`, for `sandlane status` and for whoever waits for it."""

from __future__ import annotations

from pathlib import Path

import msgspec


class ProcessState(msgspec.Struct, rename="camel"):
    """One supervised process. `state` is starting | running | waiting (to be started again) | stopped | ended (for good)."""

    name: str
    title: str
    state: str = "starting"
    ready: bool = False
    pid: int | None = None
    restarts: int = 0
    message: str = ""
    """Why it is not ready."""
    last_end: str = ""
    """How it ended last."""
    log: str = ""

    @property
    def fine(self) -> bool:
        """Whether the cluster lacks nothing of it."""
        return self.ready or self.state == "ended"


class ClusterState(msgspec.Struct, rename="camel"):
    """The whole cluster."""

    pid: int
    version: str
    server: str
    data_dir: str
    kubeconfig: str
    block: str
    started_at: str
    ready: bool = False
    failed: str = ""
    """Why the start was given up; empty otherwise."""
    processes: list[ProcessState] = []


def read_state(path: Path) -> ClusterState | None:
    """The state in a file, None if there is none (yet)."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=ClusterState)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
