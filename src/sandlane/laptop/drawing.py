"""A connection as a table on the terminal, drawn with rich."""

from __future__ import annotations

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sandlane.laptop.state import Held, State

SHOWN = 12
_PER_SECOND = 4


def live(state: State) -> Live:
    """Shows `state` as it is now and again, while it is entered."""
    return Live(get_renderable=lambda: draw(state), refresh_per_second=_PER_SECOND)


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
