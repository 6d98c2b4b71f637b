"""The log files of a cluster's processes: opened for their owner only, read when one has to say why it ended."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO


def open_log(path: Path) -> BinaryIO:
    """A log file to append to, for its owner only."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")


def last_lines(log: Path, count: int = 12) -> list[str]:
    """The last lines of a log file, to say why a process ended."""
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(file.tell() - 16_384, 0))
            return file.read().decode(errors="replace").splitlines()[-count:]
    except OSError:
        return []
