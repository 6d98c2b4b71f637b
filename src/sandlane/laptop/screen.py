"""A connection on the terminal: live with rich where there is one, otherwise a plain line for each change."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sandlane.laptop.inbound import Seen
from sandlane.laptop.state import Held, State

SHOWN = 12
_PER_SECOND = 4


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
    console = Console()
    if not console.is_terminal:
        yield Lines(state)
        return

    class Nothing(Lines):
        def changed(self) -> None:
            """The screen is drawn anew by itself."""

        def requests(self, seen: Sequence[Seen]) -> None:
            """They are in the state."""

    with Live(get_renderable=lambda: draw(state), console=console, refresh_per_second=_PER_SECOND):
        yield Nothing(state)


def draw(state: State) -> Group:
    """The whole screen."""
    table = Table(box=None, pad_edge=False, show_edge=False)
    for title in ("LOCAL WORKLOAD", "SANDBOX", "PORT", "TO", "CONNECTION"):
        table.add_column(title, overflow="fold")
    for held in state.workloads:
        for number, target in enumerate(held.mappings):
            silent = target.to in held.not_listening
            to = Text(f"{target.to} (nothing listens)" if silent else target.to, "yellow" if silent else "")
            first = number == 0
            how = Text(held.spoken(), _style(held)) if first else Text("")
            table.add_row(held.title if first else "", held.sandbox if first else "", str(target.port), to, how)
    parts: list[Table | Text] = [table]
    if state.last:
        requests = Table(box=None, pad_edge=False, show_edge=False)
        for title in ("TIME", "WORKLOAD", "REQUEST", "STATUS", "MS"):
            requests.add_column(title, overflow="ellipsis", no_wrap=True, justify="right" if title == "MS" else "left")
        for seen in state.last[-SHOWN:]:
            style = "red" if seen.status >= 500 or not seen.status else "yellow" if seen.status >= 400 else ""
            what = f"{seen.method or '-'} {seen.path or ''}"
            where = f"{seen.workload}:{seen.port or '-'}"
            requests.add_row(seen.at, where, Text(what), Text(str(seen.status or "-"), style), str(seen.ms))
        parts += [Text(""), requests]
    way = f" by {state.transport}" if state.transport else ""
    parts.append(Text(f"\n{state.requests} requests{way}; Ctrl-C takes the routes out and ends", "dim"))
    return Group(*parts)


def _style(held: Held) -> str:
    if held.over or not held.tunnels:
        return "red"
    return "yellow" if held.ready is False else "green"
