"""Progress of a start, line by line as parts become ready, with a moving sign on terminals."""

from __future__ import annotations

from typing import TextIO

from sandlane.kube.clock import Clock
from sandlane.local.up.state import ClusterState

_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class Progress:
    """Prints each part of the cluster once, when it is ready."""

    def __init__(self, out: TextIO, clock: Clock) -> None:
        self._out = out
        self._clock = clock
        self._since = clock.monotonic()
        self._shown: set[str] = set()
        self._frame = 0
        self._moving = out.isatty()
        self._summed_up = False

    def show(self, state: ClusterState) -> None:
        """Print what is new in a state."""
        if self._summed_up:
            return
        self._clear()
        seconds = self._clock.monotonic() - self._since
        for process in state.processes:
            if process.ready and process.name not in self._shown:
                self._shown.add(process.name)
                self._line(f"✓ {process.title} ({seconds:.1f} s)")
        if state.ready:
            self._summed_up = True
            self._line(f"\nThe cluster is ready after {seconds:.1f} s.")
            self._line(f"  API server  {state.server}")
            self._line(f"  addresses   {state.block}")
            self._line(f"  data        {state.data_dir}")
            self._line(f"\n  export KUBECONFIG={state.kubeconfig}")
        elif self._moving:
            late = ", ".join(p.title for p in state.processes if not p.ready)
            self._frame += 1
            self._out.write(f"{_FRAMES[self._frame % len(_FRAMES)]} waiting for {late}")
        self._out.flush()

    def _clear(self) -> None:
        if self._moving:
            self._out.write("\r\x1b[K")

    def _line(self, text: str) -> None:
        self._out.write(f"{text}\n")
