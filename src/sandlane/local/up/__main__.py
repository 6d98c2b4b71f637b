"""`python -m sandlane.local.up`: the supervisor of one local cluster, below its guards. `sandlane up` starts it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import sandlane.slim  # noqa: F401 - first
from sandlane.local.settings import DataDir, DataDirError
from sandlane.local.up.claim import AlreadyRunning, Lock
from sandlane.local.up.guard import guard


def main() -> int:
    """Run until a signal comes; 0 unless the start failed."""
    parser = argparse.ArgumentParser(prog="sandlane.local.up")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--port", type=int)
    parser.add_argument("--show", action="store_true", help="print the progress of the start")
    options = parser.parse_args()
    data = DataDir(options.data_dir)
    try:
        data.prepare()
        lock = Lock(data.lock)  # held until the last of guards and supervisor has ended
    except (DataDirError, AlreadyRunning) as error:
        print(error, file=sys.stderr)
        return 1
    guard()
    guard()
    return _supervise(data, lock, options)


def _supervise(data: DataDir, lock: Lock, options: argparse.Namespace) -> int:
    """Here, and not above, everything is imported that guards do without."""
    from sandlane.kube.clock import SystemClock
    from sandlane.local.up.logs import last_lines
    from sandlane.local.up.progress import Progress
    from sandlane.local.up.supervisor import supervise

    clock = SystemClock()
    progress = Progress(sys.stdout, clock)
    try:
        state = supervise(
            data,
            lock,
            clock,
            images=options.images,
            port=options.port,
            report=progress.show if options.show else lambda state: None,
        )
    except DataDirError as error:
        print(error, file=sys.stderr)
        return 1
    if state.failed:
        culprit = next(p for p in state.processes if state.failed.startswith(f"{p.name} "))
        print("\n".join([state.failed, *last_lines(Path(culprit.log))]), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
