"""Tables of measured figures: what every benchmark returns, and how docs/benchmarks.md shows it."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"


@dataclass(frozen=True)
class Table:
    """One benchmark's result. `note` says what was done and against what; `rows` are cells as text.

    `bench` is the benchmark that makes it, where it makes several.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    limits: tuple[str, ...] = field(default=())
    bench: str = ""

    def markdown(self) -> str:
        """The table as a section of the page."""
        lines = [f"## {self.title}", "", f"`make bench BENCH={self.bench or self.name}` on {machine()}.", ""]
        if self.note:
            lines += [self.note, ""]
        lines += [_row(self.columns), _row("---" for _ in self.columns)]
        lines += [_row(row) for row in self.rows]
        lines += ["", *self.limits] if self.limits else []
        return "\n".join(lines) + "\n"


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def machine() -> str:
    """The machine in words: cores, memory, Python."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}, CPython {platform.python_version()}"


def publish(table: Table) -> None:
    """Put the table into docs/benchmarks.md in place of the one of the same name."""
    page = PAGE.read_text()
    start, end = f"<!-- {table.name} -->", f"<!-- /{table.name} -->"
    section = f"{start}\n{table.markdown()}{end}\n"
    if start in page:
        page = re.sub(re.escape(start) + ".*?" + re.escape(end) + "\n", lambda _: section, page, flags=re.DOTALL)
    else:
        page = page.rstrip("\n") + "\n\n" + section
    PAGE.write_text(page)
