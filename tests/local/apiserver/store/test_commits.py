"""Between a write and its commit: nobody may learn of what a crash or a full disk would take back."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sandlane.kube.clock import SystemClock
from sandlane.kube.resource import Key
from sandlane.kube.transport import Request, Response
from sandlane.local.apiserver.answers import StreamResponse
from sandlane.local.apiserver.server import ApiServer
from sandlane.local.apiserver.store.journal import Journal, Row
from sandlane.local.apiserver.store.objects import ObjectStore, StorageFull, Stored

CONFIGS = ("", "configmaps")
PATH = "/api/v1/namespaces/default/configmaps"
MERGE = {"content-type": "application/merge-patch+json"}
JSON = {"content-type": "application/json"}


@dataclass
class Disk:
    """A journal whose commits wait for `go`, or fail."""

    store: ObjectStore
    path: Path
    go: threading.Event = field(default_factory=threading.Event)
    entered: threading.Event = field(default_factory=threading.Event)
    fails: bool = False

    async def busy(self) -> None:
        """A commit is under way."""
        assert await asyncio.to_thread(self.entered.wait, 10)

    async def put(self, name: str, data: str, expected: int | None = None) -> Stored:
        """Write an object."""
        return await self.store.put(CONFIGS, Key("default", name), lambda version: data.encode(), expected)

    def listed(self) -> list[str]:
        """What a reader sees."""
        return [stored.data.decode() for _, stored in self.store.list_at(CONFIGS, self.store.published)]

    def written(self) -> list[str]:
        """What is in the file."""
        connection = sqlite3.connect(self.path)
        rows = connection.execute("SELECT name FROM objects WHERE plural = 'configmaps' ORDER BY name").fetchall()
        connection.close()
        return [row[0] for row in rows]


@pytest.fixture
async def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Disk]:
    """A store on a disk that does as told."""
    journal = Journal(tmp_path / "db")
    made, commit = Disk(ObjectStore(journal), tmp_path / "db"), journal._commit
    made.go.set()

    def at_will(rows: list[Row]) -> None:
        made.entered.set()
        assert made.go.wait(10)
        if made.fails:
            made.fails = False
            raise sqlite3.OperationalError("disk full")
        commit(rows)

    monkeypatch.setattr(journal, "_commit", at_will)
    yield made
    made.go.set()
    made.store.close()


async def test_readers_see_what_is_committed(disk: Disk) -> None:
    """A new, a changed and a deleted object are read as they were until the commit; `settled` waits for it."""
    store, a, b, c = disk.store, Key("default", "a"), Key("default", "b"), Key("default", "c")
    old, gone = await disk.put("b", "b1"), await disk.put("c", "c1")
    disk.go.clear()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(disk.put("a", "a1"))
        tasks.create_task(disk.put("b", "b2", old.version))
        tasks.create_task(store.remove(CONFIGS, c, lambda version: b"", gone.version))
        await asyncio.sleep(0)
        assert store.committed(CONFIGS, a) is None
        assert store.committed(CONFIGS, b) is old
        assert store.committed(CONFIGS, c) is gone
        assert disk.listed() == ["b1", "c1"]
        waiting = [tasks.create_task(store.settled(CONFIGS, key)) for key in (a, b, c)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        store.forget_history()
        assert disk.listed() == ["b1", "c1"]
        disk.go.set()
    assert [task.result() and task.result().data for task in waiting] == [b"a1", b"b2", None]
    assert disk.listed() == ["a1", "b2"]


async def test_what_builds_on_a_failed_commit_fails(disk: Disk) -> None:
    """Writes that were handed over before the failure was heard of fail too, in memory and in the file."""
    kept = await disk.put("kept", "1")
    disk.go.clear()
    disk.entered.clear()
    first = asyncio.create_task(disk.put("first", "1"))
    await disk.busy()
    second = asyncio.create_task(disk.put("second", "1"))
    changed = asyncio.create_task(disk.put("kept", "2", kept.version))
    await asyncio.sleep(0)
    disk.fails = True
    disk.go.set()
    outcomes = await asyncio.gather(first, second, changed, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [StorageFull] * 3
    assert disk.listed() == ["1"]
    assert disk.store.get(CONFIGS, Key("default", "kept")) is kept
    await disk.put("later", "1")
    assert disk.written() == ["kept", "later"]


async def ask(server: ApiServer, method: str, name: str, body: Any = None) -> tuple[int, Any]:
    """Send a request; the code and the object."""
    raw = msgspec.json.encode(body) if body is not None else b""
    answer = await server.handle(Request(method, PATH + name, (), MERGE if method == "PATCH" else JSON, raw))
    assert isinstance(answer, Response)
    return answer.status, msgspec.json.decode(answer.body)


@pytest.mark.parametrize("fails", [False, True])
async def test_answers_wait_for_the_writes_that_they_speak_of(disk: Disk, fails: bool) -> None:
    """What others did to an object is confirmed to nobody before its commit, and not at all when that fails."""
    server = ApiServer(disk.store, clock=SystemClock(), rng=random.Random(1))
    await server.prepare()
    for name in ("patched", "deleted"):
        assert (await ask(server, "POST", "", {"metadata": {"name": name}}))[0] == 201
    disk.go.clear()
    patch = {"data": {"key": "value"}}
    requests = [
        ("POST", "", {"metadata": {"name": "new"}}),
        ("PATCH", "/patched", patch),
        ("DELETE", "/deleted", None),
    ]
    async with asyncio.TaskGroup() as tasks:
        own = [tasks.create_task(ask(server, *request)) for request in requests]
        await asyncio.sleep(0)
        after = [tasks.create_task(ask(server, *request)) for request in requests]
        for _ in range(20):
            await asyncio.sleep(0)
        assert not any(task.done() for task in (*own, *after))
        assert (await ask(server, "GET", "/new"))[0] == 404
        assert "data" not in (await ask(server, "GET", "/patched"))[1]
        assert (await ask(server, "GET", "/deleted"))[0] == 200
        listed = (await ask(server, "GET", ""))[1]
        assert [item["metadata"]["name"] for item in listed["items"]] == ["deleted", "patched"]
        disk.fails = fails
        disk.go.set()
    codes = [task.result()[0] for task in (*own, *after)]
    assert codes == ([507, 507, 507, 201, 200, 200] if fails else [201, 200, 200, 409, 200, 404])
    assert own[1].result()[1] == after[1].result()[1] or fails
    assert (await ask(server, "GET", "/patched"))[1]["data"] == {"key": "value"}
    await server.close()


async def test_a_list_and_its_watch_survive_a_failed_commit(disk: Disk) -> None:
    """Whoever listed, or opened a watch with initial events, while a write waited never hears of it once it failed."""
    server = ApiServer(disk.store, clock=SystemClock(), rng=random.Random(1))
    await server.prepare()
    disk.go.clear()
    doomed = asyncio.create_task(ask(server, "POST", "", {"metadata": {"name": "doomed"}}))
    await asyncio.sleep(0)
    listed = (await ask(server, "GET", ""))[1]
    streams = [
        await server.handle(Request("GET", PATH, query))
        for query in (
            (("watch", "true"), ("resourceVersion", listed["metadata"]["resourceVersion"])),
            (("watch", "true"), ("sendInitialEvents", "true"), ("resourceVersionMatch", "NotOlderThan")),
        )
    ]
    disk.fails = True
    disk.go.set()
    assert (await doomed)[0] == 507
    assert (await ask(server, "POST", "", {"metadata": {"name": "next"}}))[0] == 201
    assert listed["items"] == []
    for stream in streams:
        assert isinstance(stream, StreamResponse)
        async with asyncio.timeout(10):
            line = msgspec.json.decode(await anext(aiter(stream.lines)))
        assert (line["type"], line["object"]["metadata"]["name"]) == ("ADDED", "next")
        await stream.lines.aclose()  # type: ignore[attr-defined]
    await server.close()
