"""Guards: processes that only wait, so that nothing of a cluster outlives it, whichever process is killed.

The kernel ends direct children of a killed process (PR_SET_PDEATHSIG), but not what those have started. A guard is the
"subreaper" of everything below it: orphans become its children, and it kills them when what it guards has ended. Two
guards stand above the supervisor, so that one of them can be killed, too. This module imports next to nothing: a guard
costs a few MiB.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Collection
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent: int, number: int) -> None:
    """Have the kernel send us this signal when our parent ends; end at once when it has ended already."""
    _libc.prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """Become the parent of every descendant that loses its own."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)


def guard() -> None:
    """Fork. The child returns; the parent stays as its guard, passes signals on, and exits with its exit code."""
    adopt_orphans()
    me = os.getpid()
    child = os.fork()
    if child == 0:
        die_with_parent(me, signal.SIGTERM)
        return

    def pass_on(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    for number in SIGNALS:
        signal.signal(number, pass_on)
    _, status = os.waitpid(child, 0)
    while kill_children(()):
        pass
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def kill_children(spare: Collection[int]) -> int:
    """Kill and reap our children but these; how many there were. Their own children are ours after that."""
    found = [pid for pid in _children() if pid not in spare]
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for pid in found:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
    return len(found)


def _children() -> list[int]:
    me, found = os.getpid(), []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parent = file.read().rpartition(b")")[2].split()[1]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(parent) == me:
                found.append(int(name))
    return found
