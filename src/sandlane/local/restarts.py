"""Tells the cluster when the supervisor had to start a process again: a Warning Event on the Node.

`RestartReporter.run` is one task that looks at the supervisor's status file every few seconds.
"""

from __future__ import annotations

from pathlib import Path

from sandlane.kube.cache import Informer
from sandlane.kube.clock import Clock
from sandlane.kube.resource import NODES
from sandlane.kube.unstructured import Unstructured
from sandlane.local.up.state import read_state
from sandlane.runtime.recorder import WARNING, EventRecorder

SECONDS = 2.0
REASON = "ProcessRestarted"


class RestartReporter:
    """Compares the supervisor's counts with those that were reported."""

    def __init__(self, status: Path, nodes: Informer[Unstructured], recorder: EventRecorder, clock: Clock) -> None:
        self._status = status
        self._nodes = nodes
        self._recorder = recorder
        self._clock = clock
        self._reported: dict[str, int] = {}
        self._modified = 0

    async def run(self) -> None:
        """Look until cancelled. Restarts before our own start count too: the agent may be what was restarted."""
        await self._nodes.synced.wait()
        while True:
            self.look()
            await self._clock.sleep(SECONDS)

    def look(self) -> None:
        """Report what is new."""
        try:
            modified = self._status.stat().st_mtime_ns
        except FileNotFoundError:
            return
        node = next(iter(self._nodes.store), None)
        if modified == self._modified or node is None:
            return
        state = read_state(self._status)
        if state is None:
            return
        self._modified = modified
        for process in state.processes:
            if process.restarts > self._reported.get(process.name, 0):
                text = (
                    f"{process.title} {process.last_end}; started again (restart {process.restarts}), see {process.log}"
                )
                self._recorder.event(NODES, node.metadata, REASON, text, kind=WARNING)
            self._reported[process.name] = process.restarts
