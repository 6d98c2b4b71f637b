"""Output of containers: one file per run, the last few kept; read for `kubectl logs`, also as it grows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import datetime
from pathlib import Path

import msgspec

from sandlane.kube.clock import Clock
from sandlane.local.node.logtimes import LogTimes, stamped

KEPT = 2
CHUNK = 64 * 1024
TAIL = 4096


class ContainerLogs:
    """The log files of one container: `0.log`, `1.log`, ... by restart."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, run: int) -> Path:
        """The file of a run."""
        return self.folder / f"{run}.log"

    def prepare(self, run: int) -> Path:
        """Make room for a run's file; older ones than the last are removed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.glob("*.*"):
            if path.stem.isdigit() and int(path.stem) <= run - KEPT:
                path.unlink(missing_ok=True)
        return self.path(run)

    def last_lines(self, run: int, count: int = 3) -> str:
        """The last lines of a run."""
        try:
            with self.path(run).open("rb") as file:
                size = file.seek(0, 2)
                file.seek(max(0, size - TAIL))
                text = file.read().decode(errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(line for line in text.splitlines()[-count:] if line.strip())


class Wanted(msgspec.Struct, frozen=True):
    """What is asked of a log: lines from its end, bytes in all, from a moment on, with the time before each line."""

    follow: bool = False
    tail: int | None = None
    limit: int | None = None
    since: datetime | None = None
    timestamps: bool = False


async def read_log(path: Path, clock: Clock, wanted: Wanted, running: Callable[[], bool]) -> AsyncIterator[bytes]:
    """A log's bytes; with `follow` until the container ends. Raises `FileNotFoundError`."""
    start = 0 if wanted.tail is None else _tail_offset(path, wanted.tail)
    if wanted.since is not None:
        start = max(start, _line_start(path, LogTimes(path).start(wanted.since)))
    chunks: AsyncIterator[bytes] = _from(path, start, clock, wanted.follow, running)
    if wanted.timestamps:
        chunks = stamped(path, start, chunks, clock)
    sent = 0
    async for chunk in chunks:
        if wanted.limit is not None and sent + len(chunk) >= wanted.limit:
            yield chunk[: wanted.limit - sent]
            return
        sent += len(chunk)
        yield chunk


async def _from(
    path: Path, start: int, clock: Clock, follow: bool, running: Callable[[], bool]
) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        while True:
            ended = not running()
            chunk = file.read(CHUNK)
            if chunk:
                yield chunk
            elif not follow or ended:
                return
            else:
                await clock.sleep(0.1)


def _line_start(path: Path, offset: int) -> int:
    """Where the line begins that an offset is in; the end stays the end."""
    if offset >= path.stat().st_size:
        return offset
    begin = max(0, offset - CHUNK)
    with path.open("rb") as file:
        file.seek(begin)
        return begin + file.read(offset - begin).rfind(b"\n") + 1


def _tail_offset(path: Path, lines: int) -> int:
    """Where the last `lines` lines begin."""
    size = path.stat().st_size
    if lines <= 0:
        return size
    with path.open("rb") as file:
        end, found = size, 0
        while end > 0:
            begin = max(0, end - CHUNK)
            file.seek(begin)
            block = file.read(end - begin)
            at = len(block)
            while (at := block.rfind(b"\n", 0, at)) >= 0:
                if begin + at + 1 == size:
                    continue  # the final line's own end
                found += 1
                if found == lines:
                    return begin + at + 1
            end = begin
    return 0
