"""The object store: one sequence of versions, compare-and-swap, history, watchers, durability."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from sandlane.kube.resource import Key
from sandlane.local.apiserver.store import objects
from sandlane.local.apiserver.store.journal import Journal, JournalError, Row
from sandlane.local.apiserver.store.objects import ObjectStore, StaleVersion, StorageFull, TooOld

PODS = ("", "pods")
NODES = ("", "nodes")


async def put(store: ObjectStore, name: str, data: str = "", expected: int | None = None) -> int:
    """Write `data` under a name; its version."""
    stored = await store.put(PODS, Key("d", name), lambda version: f"{data}@{version}".encode(), expected)
    return stored.version


def names(store: ObjectStore, version: int) -> dict[str, str]:
    """What was there at a version."""
    return {key.name: at.data.decode().partition("@")[0] for key, at in store.list_at(PODS, version)}


async def test_versions_are_one_sequence() -> None:
    """Every write of any resource takes the next version; the first is high enough for 1 to be too old."""
    store = ObjectStore()
    first = await put(store, "a")
    node = await store.put(NODES, Key("", "n"), lambda version: b"", None)
    gone = await store.remove(PODS, Key("d", "a"), lambda version: b"", first)
    assert (node.version, gone.version) == (first + 1, first + 2)
    assert first > 100
    with pytest.raises(TooOld):
        store.watch(PODS, 1)


async def test_only_the_expected_version_is_replaced() -> None:
    """A write that expects another version, or an object where there is none, fails and changes nothing."""
    store = ObjectStore()
    version = await put(store, "a", "one")
    for expected in (None, version - 1):
        with pytest.raises(StaleVersion):
            await put(store, "a", "two", expected)
    with pytest.raises(StaleVersion):
        await put(store, "b", "two", version)
    with pytest.raises(StaleVersion):
        await store.remove(PODS, Key("d", "a"), lambda v: b"", version + 1)
    assert names(store, store.version) == {"a": "one"}


async def test_the_past_can_be_listed() -> None:
    """A list at a version shows what was there then, creations, changes and deletions undone."""
    store = ObjectStore()
    a = await put(store, "a", "1")
    b = await put(store, "b", "1")
    a2 = await put(store, "a", "2", a)
    await store.remove(PODS, Key("d", "b"), lambda version: b"", b)
    assert names(store, a) == {"a": "1"}
    assert names(store, b) == {"a": "1", "b": "1"}
    assert names(store, a2) == {"a": "2", "b": "1"}
    assert names(store, store.version) == {"a": "2"}
    store.forget_history()
    with pytest.raises(TooOld):
        store.list_at(PODS, a2)


@pytest.mark.parametrize(("bound", "value"), [("HISTORY", 3), ("HISTORY_BYTES", 3 * 104)])
async def test_history_is_bounded(monkeypatch: pytest.MonkeyPatch, bound: str, value: int) -> None:
    """History is bounded in number and bytes, of each resource apart; what it no longer reaches is too old."""
    monkeypatch.setattr(objects, bound, value)
    store = ObjectStore()
    versions = [await put(store, f"p{index}", "x" * 100) for index in range(6)]
    with pytest.raises(TooOld):
        store.watch(PODS, versions[1])
    watcher = store.watch(PODS, versions[2])
    assert [event.key.name for event in iter(watcher.pop, None)] == ["p3", "p4", "p5"]
    store.watch(NODES, versions[0])


async def test_a_watcher_that_never_reads_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its queue is dropped and it learns so; others get every event."""
    monkeypatch.setattr(objects, "WATCHER_EVENTS", 5)
    store = ObjectStore()
    lazy, busy = store.watch(PODS, store.version), store.watch(PODS, store.version)
    seen = []
    for index in range(10):
        await put(store, f"p{index}")
        seen += [event.key.name for event in iter(busy.pop, None)]
    assert lazy.overflowed
    assert lazy.pop() is None
    assert seen == [f"p{index}" for index in range(10)]


async def test_a_closed_watcher_is_forgotten() -> None:
    """No event is kept for it."""
    store = ObjectStore()
    watcher = store.watch(PODS, store.version)
    watcher.close()
    await put(store, "a")
    assert watcher.pop() is None


async def test_writes_survive(tmp_path: Path) -> None:
    """A new store over the same file has every object, and goes on with higher versions than were ever seen."""
    store = ObjectStore(Journal(tmp_path / "db"))
    versions = await asyncio.gather(*(put(store, f"p{index}", str(index)) for index in range(50)))
    await store.remove(PODS, Key("d", "p7"), lambda version: b"", versions[7])
    seen = store.version
    store.close()
    again = ObjectStore(Journal(tmp_path / "db"))
    assert names(again, again.version) == {f"p{index}": str(index) for index in range(50) if index != 7}
    assert again.version > seen
    with pytest.raises(TooOld):
        again.watch(PODS, seen)
    again.close()


async def test_events_follow_commits(tmp_path: Path) -> None:
    """A watcher hears of a write when it is durable, not before, and in order."""
    store = ObjectStore(Journal(tmp_path / "db"))
    watcher = store.watch(PODS, store.version)
    async with asyncio.TaskGroup() as tasks:
        for index in range(5):
            tasks.create_task(put(store, f"p{index}"))
        await asyncio.sleep(0)
        assert watcher.pop() is None
    assert [event.key.name for event in iter(watcher.pop, None)] == [f"p{index}" for index in range(5)]
    store.close()


async def test_each_commit_reaches_the_disk(tmp_path: Path) -> None:
    """The file is written ahead, and every commit waits for the disk: journal_mode=WAL, synchronous=FULL."""
    journal = Journal(tmp_path / "db")
    settings = {
        name: journal._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")
    }
    journal.close()
    assert settings == {"journal_mode": "wal", "synchronous": 2}


async def test_writers_share_commits_and_wait_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is answered before the commit; what waits meanwhile goes into one commit."""
    path, may_go, entered = tmp_path / "db", threading.Event(), threading.Event()
    journal = Journal(path)
    commit, sizes = journal._commit, []

    def slow(rows: list[Row]) -> None:
        entered.set()
        assert may_go.wait(10)
        sizes.append(len(rows))
        commit(rows)

    monkeypatch.setattr(journal, "_commit", slow)
    store = ObjectStore(journal)
    with closing(sqlite3.connect(path)) as other:
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(put(store, "first"))
            assert await asyncio.to_thread(entered.wait, 10)
            rest = [tasks.create_task(put(store, f"p{index}")) for index in range(50)]
            await asyncio.sleep(0)
            assert not any(task.done() for task in (first, *rest))
            assert other.execute("SELECT count(*) FROM objects").fetchone() == (0,)
            may_go.set()
        assert other.execute("SELECT count(*) FROM objects").fetchone() == (51,)
    assert sizes == [1, 50]
    store.close()


async def test_a_full_disk_takes_writes_back(tmp_path: Path) -> None:
    """The writer learns that its write failed; memory and file are as before, and later writes work."""
    journal = Journal(tmp_path / "db")
    store = ObjectStore(journal)
    kept = await put(store, "kept", "1")
    pages = journal._connection.execute("PRAGMA page_count").fetchone()[0]
    journal._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(StorageFull):
        await put(store, "big", "x" * 1_000_000)
    with pytest.raises(StorageFull):
        await put(store, "kept", "x" * 1_000_000, kept)
    assert names(store, store.version) == {"kept": "1"}
    await put(store, "kept", "2", kept)
    store.close()
    again = ObjectStore(Journal(tmp_path / "db"))
    assert names(again, again.version) == {"kept": "2"}
    again.close()


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    """Text, another program's database, another format and a damaged file each give a message with the path."""
    text = tmp_path / "text"
    text.write_text("hello " * 1000)
    foreign = tmp_path / "foreign"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE t (x)")
    connection.close()
    newer = tmp_path / "newer"
    Journal(newer).close()
    connection = sqlite3.connect(newer)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    for path, words in ((text, "not a database"), (foreign, "not a database of Sandlane"), (newer, "format 99")):
        with pytest.raises(JournalError, match=words) as caught:
            Journal(path)
        assert str(path) in str(caught.value)


async def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    """Bytes overwritten in the middle of the file are noticed at the start."""
    path = tmp_path / "db"
    store = ObjectStore(Journal(path))
    await asyncio.gather(*(put(store, f"p{index}", "x" * 500) for index in range(100)))
    store.close()
    data = bytearray(path.read_bytes())
    data[8192:20000] = b"\xaa" * (20000 - 8192)
    path.write_bytes(data)
    with pytest.raises(JournalError, match=r"damaged|malformed|cannot be opened"):
        Journal(path)
