"""When the lines of a container's log were written.

Containers write into their log files themselves, so that nothing stands between. What the node knows is how far a file had
grown at which time: it notes that twice a second, in a file beside the log, while the log grows.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from sandlane.kube.clock import Clock

PERIOD = 0.5


def _file(log: Path) -> Path:
    return log.with_suffix(".times")


async def note_times(log: Path, clock: Clock) -> None:
    """Note how far a log has grown until cancelled, and once more then."""
    noted = 0
    with _file(log).open("w", encoding="ascii") as file:
        while True:
            stopping = False
            try:
                await clock.sleep(PERIOD)
            except asyncio.CancelledError:
                stopping = True
            if (size := _size(log)) > noted:
                file.write(f"{size} {clock.now().timestamp():.6f}\n")
                file.flush()
                noted = size
            if stopping:
                raise asyncio.CancelledError


def _size(log: Path) -> int:
    try:
        return log.stat().st_size
    except FileNotFoundError:
        return 0


class LogTimes:
    """What was noted of a log; it is read when this is made."""

    def __init__(self, log: Path) -> None:
        self._sizes: list[int] = []
        self._times: list[float] = []
        with suppress(FileNotFoundError):
            for line in _file(log).read_text(encoding="ascii").splitlines():
                size, _, time = line.partition(" ")
                if size.isdigit() and time:
                    self._sizes.append(int(size))
                    self._times.append(float(time))

    def start(self, since: datetime) -> int:
        """Where what was written from a moment on begins."""
        index = bisect_left(self._times, since.timestamp())
        return self._sizes[index - 1] if index else 0

    def of(self, offset: int, now: datetime) -> datetime:
        """When the byte at an offset was written; `now` where that is not noted yet."""
        index = bisect_right(self._sizes, offset)
        return datetime.fromtimestamp(self._times[index], UTC) if index < len(self._times) else now


async def stamped(log: Path, start: int, chunks: AsyncIterator[bytes], clock: Clock) -> AsyncIterator[bytes]:
    """Each line of a log, read from an offset on, with its time before it, as the kubelet writes it."""
    times, at, rest = LogTimes(log), start, b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        made = []
        for line in lines:
            made.append(b"%s %s\n" % (_text(times.of(at, clock.now())), line))
            at += len(line) + 1
        yield b"".join(made)
    if rest:
        yield b"%s %s" % (_text(times.of(at, clock.now())), rest)


def _text(time: datetime) -> bytes:
    return f"{time:%Y-%m-%dT%H:%M:%S}.{time.microsecond:06}000Z".encode()
