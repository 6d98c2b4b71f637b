"""The connections of this user on this machine: a folder each, locked by the process that holds the connection.

A folder whose lock is free belongs to a process that was killed: whoever looks removes it. The log of a connection in the
background lies beside its folder, and stays there when the connection has ended by itself, until somebody has been told.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from sandlane.kube.clock import Clock, timestamp
from sandlane.laptop.errors import ConnectError
from sandlane.laptop.state import State

RUNTIME_DIR = "SANDLANE_RUNTIME_DIR"
LONGEST = 85
"""Bytes of a folder's path: the kernel takes 107 for a socket in it."""
_LOCK, _RECORD, _LOG = "lock", "connection.json", ".log"


class Record(msgspec.Struct, rename="camel"):
    """One connection, as other commands see it. `id` is its process id as text."""

    id: str
    pid: int
    started_at: str
    namespace: str
    sandbox: str
    log: str
    state: State = msgspec.field(default_factory=State)


def runtime_dir() -> Path:
    """Where connections are kept; made for this user alone. Raises `ConnectError` when it is somebody else's."""
    given = os.environ.get(RUNTIME_DIR)
    base = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(given) if given else Path(base) / "sandlane" if base else _temporary()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise ConnectError(f"{folder} belongs to somebody else or others may write to it: set ${RUNTIME_DIR}")
    return folder


def _temporary() -> Path:
    return Path(tempfile.gettempdir()) / f"sandlane-{os.geteuid()}"


class Entry:
    """The folder of a connection of this process, for its sockets and its record."""

    def __init__(self, folder: Path, record: Record) -> None:
        self.folder = folder
        self.record = record

    def write(self, state: State) -> None:
        """Tell others how the connection is."""
        self.record.state = state
        new = self.folder / f"{_RECORD}.new"
        new.write_bytes(msgspec.json.encode(self.record))
        new.rename(self.folder / _RECORD)

    def forget_log(self) -> None:
        """Nobody has to be told why the connection has ended."""
        Path(self.record.log).unlink(missing_ok=True)


@contextmanager
def own_folder(prefix: str = "") -> Iterator[Path]:
    """A folder of this process, for this user alone; removed at the end, or by whoever looks after we were killed."""
    folder = runtime_dir() / f"{prefix}{os.getpid()}"
    if len(os.fsencode(folder)) > LONGEST:
        raise ConnectError(f"{folder} is too long a path for Unix sockets: set ${RUNTIME_DIR} to a shorter one")
    shutil.rmtree(folder, ignore_errors=True)  # of a killed process that had our number
    folder.mkdir(mode=0o700)
    with (folder / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def entry(clock: Clock, namespace: str, sandbox: str) -> Iterator[Entry]:
    """The folder of a connection of this process, with a record in it that others can read."""
    with own_folder() as folder:
        pid = os.getpid()
        record = Record(str(pid), pid, timestamp(clock.now()), namespace, sandbox, str(folder.with_suffix(_LOG)))
        made = Entry(folder, record)
        made.write(State())
        yield made


def records() -> list[Record]:
    """The connections that are held now, oldest first. What killed processes have left is removed."""
    found = []
    for folder in sorted(runtime_dir().iterdir()):
        if folder.suffix == _LOG:
            continue
        if not _held(folder):
            shutil.rmtree(folder, ignore_errors=True)
            continue
        if not folder.name.isdigit():
            continue
        try:
            found.append(msgspec.json.decode((folder / _RECORD).read_bytes(), type=Record))
        except (OSError, msgspec.DecodeError):
            continue  # it is just starting or ending
    return sorted(found, key=lambda record: (record.started_at, record.pid))


def ended() -> list[tuple[str, str]]:
    """Background connections that have ended by themselves since somebody last asked: the id, and the last words."""
    found = []
    for log in sorted(runtime_dir().glob(f"*{_LOG}")):
        if not _held(log.with_suffix("")):
            words = log.read_text(errors="replace").strip().splitlines()
            found.append((log.stem, words[-1] if words else "it was killed"))
            log.unlink(missing_ok=True)
    return found


def wait_until_ended(record: Record, seconds: float, clock: Clock, sleep: Callable[[float], None]) -> bool:
    """Whether a connection has ended within so many seconds."""
    end = clock.monotonic() + seconds
    while _held(runtime_dir() / record.id):
        if clock.monotonic() > end:
            return False
        sleep(0.05)
    return True


def _held(folder: Path) -> bool:
    """Whether a process holds the folder's lock."""
    try:
        with (folder / _LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
