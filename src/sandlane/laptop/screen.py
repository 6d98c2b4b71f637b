"""A connection on the terminal: live with rich where there is one, otherwise a plain line for each change."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from sandlane.laptop.inbound import Seen
from sandlane.laptop.state import State


def spoken(seen: Seen) -> str:
    """One request in a line."""
    what = f"{seen.method or '-'} {seen.path or ''}".rstrip()
    return f"{seen.at} {seen.workload}:{seen.port or '-'} {what} {seen.status or '-'} {seen.ms} ms"


class Lines:
    """Says each thing once."""

    def __init__(self, state: State, out: TextIO | None = None) -> None:
        self._state = state
        self._out = out
        self._said: dict[str, tuple[str, list[str]]] = {}

    def changed(self) -> None:
        """Print what has changed."""
        if all(held.over for held in self._state.workloads):
            return  # the command's last words say why
        for held in self._state.workloads:
            text, silent = held.spoken(), list(held.not_listening)
            before, silent_before = self._said.get(held.title, ("", silent))
            self._said[held.title] = (text, silent)
            if text != before:
                self._print(f"{held.title}: {text}")
            if silent != silent_before:
                gone = ", ".join(silent)
                self._print(f"{held.title}: {f'nothing listens at {gone}' if silent else 'everything listens'}")

    def requests(self, seen: Sequence[Seen]) -> None:
        """Print requests."""
        for each in seen:
            self._print(spoken(each))

    def _print(self, text: str) -> None:
        print(text, file=self._out or sys.stdout, flush=True)


@contextmanager
def screen(state: State) -> Iterator[Lines]:
    """Show `state` until the block ends."""
    if not sys.stdout.isatty():
        yield Lines(state)
        return
    from sandlane.laptop.drawing import live  # rich takes long to import

    class Nothing(Lines):
        def changed(self) -> None:
            """The screen is drawn anew by itself."""

        def requests(self, seen: Sequence[Seen]) -> None:
            """They are in the state."""

    with live(state):
        yield Nothing(state)
