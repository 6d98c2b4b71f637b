"""What makes writes durable: SQLite in WAL mode, synchronous=FULL, many writes in one commit.

A thread of its own owns the connection. Writes wait in line; each commit takes all that wait. A write is acknowledged
after its commit, never before. When a commit fails, all writes that were handed over before the event loop heard of it
fail too, as they may build on what is not there. A file that is no database of ours, or of another version, is refused.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import structlog

log = structlog.get_logger(__name__)

FORMAT = 1
"""The version of the tables."""
APPLICATION_ID = 0x53414E44


class JournalError(RuntimeError):
    """The file cannot be used; the message says why and what to do."""


class Row(NamedTuple):
    """One object: `data` is None to delete it."""

    group: str
    plural: str
    namespace: str
    name: str
    version: int
    data: bytes | None


Acknowledge = Callable[[BaseException | None], None]


class _Entry(NamedTuple):
    row: Row
    acknowledge: Acknowledge
    era: int


class Journal:
    """Writes rows to a SQLite file in the order given."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._era = 0  # counts the failures that the event loop has heard of
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection = _open(path)
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._started = False

    def load(self) -> Iterator[Row]:
        """All objects. Call it before the first write."""
        query = "SELECT grp, plural, namespace, name, version, data FROM objects ORDER BY grp, plural, namespace, name"
        for row in self._connection.execute(query):
            yield Row(*row)

    def last_version(self) -> int:
        """The highest resourceVersion ever written, deletes included; 0 in a new file."""
        row = self._connection.execute("SELECT value FROM meta WHERE key = 'version'").fetchone()
        return int(row[0]) if row else 0

    def write(self, row: Row, acknowledge: Acknowledge) -> None:
        """Write a row; `acknowledge` is called in the event loop after the commit, with what went wrong if it did."""
        if not self._started:
            self._loop = asyncio.get_running_loop()
            self._started = True
            self._thread.start()
        self._waiting.put(_Entry(row, acknowledge, self._era))

    def close(self) -> None:
        """Write what waits, and close."""
        if self._started:
            self._waiting.put(None)
            self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        assert self._loop is not None
        closing, failures = False, 0
        error: sqlite3.Error | None = None
        while not closing:
            batch = [self._waiting.get()]
            while not self._waiting.empty():
                batch.append(self._waiting.get())
            closing = None in batch
            entries = [entry for entry in batch if entry is not None]
            doomed = [entry for entry in entries if entry.era < failures]
            entries = entries[len(doomed) :]
            try:
                if doomed:
                    self._loop.call_soon_threadsafe(_acknowledge_all, doomed, error)
                if not entries:
                    continue
                try:
                    self._commit([entry.row for entry in entries])
                except sqlite3.Error as failure:
                    log.error("journal_write_failed", path=str(self._path), error=str(failure))
                    failures += 1
                    error = failure
                    self._loop.call_soon_threadsafe(self._failed, entries, error)
                else:
                    self._loop.call_soon_threadsafe(_acknowledge_all, entries, None)
            except RuntimeError:
                return  # the loop is gone, and with it everyone who waits

    def _failed(self, entries: list[_Entry], error: sqlite3.Error) -> None:
        self._era += 1
        _acknowledge_all(entries, error)

    def _commit(self, rows: list[Row]) -> None:
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            for row in rows:
                if row.data is None:
                    connection.execute(
                        "DELETE FROM objects WHERE grp = ? AND plural = ? AND namespace = ? AND name = ?", row[:4]
                    )
                else:
                    connection.execute("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?, ?)", row)
            version = max(row.version for row in rows)
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('version', ?)", (str(version),))
            connection.execute("COMMIT")
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _acknowledge_all(entries: list[_Entry], error: BaseException | None) -> None:
    for entry in entries:
        entry.acknowledge(error)


def _open(path: Path) -> sqlite3.Connection:
    new = not path.exists()
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        if new:
            path.chmod(0o600)
            connection.executescript(
                f"PRAGMA application_id = {APPLICATION_ID};"
                f"PRAGMA user_version = {FORMAT};"
                "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;"
                "CREATE TABLE objects (grp TEXT, plural TEXT, namespace TEXT, name TEXT, version INTEGER, data BLOB,"
                " PRIMARY KEY (grp, plural, namespace, name));"
            )
            return connection
        owner = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if owner != APPLICATION_ID:
            raise JournalError(f"{path} is not a database of Sandlane: move it away, or choose another data directory")
        if version != FORMAT:
            raise JournalError(
                f"{path} has format {version}, this Sandlane writes format {FORMAT}: use the Sandlane that made it, "
                "or another data directory"
            )
        fault = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if fault != "ok":
            raise JournalError(f"{path} is damaged ({fault}): restore it from a copy, or use another data directory")
    except sqlite3.Error as error:
        raise JournalError(f"{path} cannot be opened as a database: {error}") from error
    return connection
