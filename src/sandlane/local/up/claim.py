"""What makes a running cluster the only one of its directory and of its addresses: a file lock and two bound ports."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import zlib
from pathlib import Path

import msgspec

from sandlane.local.settings import API_PORT_BASE, FIRST_BLOCK, LAST_BLOCK, DataDir, DataDirError, Settings, write_whole


class AlreadyRunning(Exception):
    """Another supervisor holds the directory."""

    def __init__(self, pid: int) -> None:
        super().__init__(f"already running (process {pid})")
        self.pid = pid


class Lock:
    """An advisory lock on a file that names its holder; the kernel frees it when the holder ends, however it ends."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = _pid(self._fd)
            os.close(self._fd)
            raise AlreadyRunning(pid) from None
        self.sign()

    def sign(self) -> None:
        """Name this process as the holder: the lock may have been taken by the one that started us."""
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Free the lock."""
        os.close(self._fd)


def _pid(fd: int) -> int:
    text = os.pread(fd, 32, 0).decode(errors="replace").strip()
    return int(text) if text.isdigit() else 0


def holder(path: Path) -> int | None:
    """The process that holds the lock, or None."""
    try:
        fd = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _pid(fd)
    finally:
        os.close(fd)
    return None


def claim_block(data: DataDir, port: int | None = None) -> tuple[Settings, socket.socket]:
    """The cluster's addresses, and the socket that keeps others off them while it is open.

    The first start takes a free block; later starts need the same one, because Services keep their addresses.
    Raises `DataDirError`.
    """
    known = data.settings()
    if known is not None:
        settings = known if port is None else msgspec.structs.replace(known, api_port=port)
        claimed = _bind(*settings.claim)
        if claimed is None:
            raise DataDirError(
                f"the addresses 127.{settings.block}.0.0/16 of this cluster are in use by another local cluster: "
                f"stop that one first"
            )
        _check_api_port(settings, claimed)
    else:
        settings, claimed = _first_free(data, port)
    if settings != known:
        write_whole(data.settings_file, msgspec.json.encode(settings))
    return settings, claimed


def _first_free(data: DataDir, port: int | None) -> tuple[Settings, socket.socket]:
    """A free block. Each directory begins its search elsewhere, so that it hardly takes that of a stopped cluster."""
    blocks = range(FIRST_BLOCK, LAST_BLOCK + 1)
    start = zlib.crc32(str(data.root).encode())
    for offset in range(len(blocks)):
        block = blocks[(start + offset) % len(blocks)]
        settings = Settings(block, port or API_PORT_BASE + block)
        claimed = _bind(*settings.claim)
        if claimed is None:
            continue
        if port is not None:
            _check_api_port(settings, claimed)
        elif not _is_free("127.0.0.1", settings.api_port):
            claimed.close()
            continue
        return settings, claimed
    raise DataDirError("no free block 127.N.0.0/16 on this machine: stop another local cluster first")


def _check_api_port(settings: Settings, claimed: socket.socket) -> None:
    if not _is_free("127.0.0.1", settings.api_port):
        claimed.close()
        raise DataDirError(
            f"port {settings.api_port} on 127.0.0.1, which the API server of this cluster uses, is in use by another "
            f"program: stop that one, or choose another with --port"
        )


def _is_free(host: str, port: int) -> bool:
    found = _bind(host, port)
    if found is not None:
        found.close()
    return found is not None


def _bind(host: str, port: int) -> socket.socket | None:
    """A listening socket (so that two binders cannot share it), or None if the address is taken."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a TIME_WAIT of the last run is no obstacle
        made.bind((host, port))
        made.listen(1)
    except OSError as error:
        made.close()
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            return None
        raise
    return made
