"""All objects in memory, with one resourceVersion sequence, compare-and-swap, and watches over a bounded history.

A write changes memory at once, goes to the journal, and reaches watchers and readers in order after its commit. When a
commit fails, the write and all after it that were not yet committed are taken back, and their callers told: nobody else
has seen them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator

import msgspec

from sandlane.kube.resource import Key
from sandlane.local.apiserver.resource_type import StorageKey
from sandlane.local.apiserver.store.journal import Journal, Row

FIRST_VERSION = 100
HISTORY = 2000
"""Events kept per resource for watches that resume."""
HISTORY_BYTES = 32 * 1024 * 1024
"""Bytes of objects in the events kept per resource."""
WATCHER_EVENTS = 20_000
"""Events that may wait for one watcher before it is cut off."""
WATCHER_BYTES = 64 * 1024 * 1024
"""Bytes of objects in the events that may wait for one watcher."""
RESTART_GAP = 10_000
"""Versions left out at each start: one that was seen before a crash but never committed is not given twice."""


class StaleVersion(Exception):
    """Compare-and-swap failed: the object has changed."""


class TooOld(Exception):
    """The history no longer reaches back to that version."""


class StorageFull(Exception):
    """The journal could not write; nothing of the write remains."""


class Stored(msgspec.Struct, frozen=True, gc=False):
    """An object at rest: its version and its JSON."""

    version: int
    data: bytes


Listing = list[tuple[Key, Stored]]


class Event(msgspec.Struct, frozen=True, gc=False):
    """A change of one object: `before` is None when it was created, `after` when it was deleted (`last` then holds its
    last state, at the version of the deletion)."""

    version: int
    key: Key
    before: bytes | None
    after: bytes | None
    last: bytes | None = None

    @property
    def size(self) -> int:
        """Bytes of the state that it brings."""
        return len(self.after or self.last or b"")


class Watcher:
    """One watch: events wait here until they are read."""

    def __init__(self, storage: StorageKey, store: ObjectStore, since: int) -> None:
        self.storage = storage
        self._since = since
        self._store = store
        self._events: deque[Event] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self.overflowed = False

    def push(self, event: Event) -> None:
        """Add an event; too many, and the watch is cut off."""
        if event.version <= self._since:
            return
        if len(self._events) >= WATCHER_EVENTS or self._bytes > WATCHER_BYTES:
            self.overflowed = True
            self._events.clear()
        if not self.overflowed:
            self._events.append(event)
            self._bytes += event.size
        self._wake.set()

    def pop(self) -> Event | None:
        """The next event, if one waits."""
        if not self._events:
            return None
        event = self._events.popleft()
        self._bytes -= event.size
        return event

    async def wait(self, seconds: float) -> bool:
        """Wait for an event; whether there is one."""
        if self._events or self.overflowed:
            return True
        self._wake.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        """Take no more events."""
        self._store.unwatch(self)


class _History:
    """The latest events of a resource, bounded in number and in bytes. `floor` is the last version it does not reach."""

    def __init__(self, floor: int) -> None:
        self.events: deque[Event] = deque()
        self.floor = floor
        self._bytes = 0

    def append(self, event: Event) -> None:
        """Add the newest event; the oldest ones go where it gets too much."""
        self.events.append(event)
        self._bytes += event.size
        while len(self.events) > HISTORY or (self._bytes > HISTORY_BYTES and len(self.events) > 1):
            gone = self.events.popleft()
            self._bytes -= gone.size
            self.floor = gone.version

    def since(self, version: int) -> Iterator[Event]:
        """The events after a version, newest first."""
        for event in reversed(self.events):
            if event.version <= version:
                return
            yield event


class _Pending(msgspec.Struct, eq=False):
    storage: StorageKey
    event: Event
    undo: Stored | None
    done: asyncio.Future[None]


class ObjectStore:
    """The one store under both the HTTP server and `FakeCluster`. All methods belong to one event loop."""

    def __init__(self, journal: Journal | None = None) -> None:
        self._journal = journal
        self._objects: dict[StorageKey, dict[Key, Stored]] = {}
        self._history: dict[StorageKey, _History] = {}
        self._watchers: dict[StorageKey, dict[Watcher, None]] = {}
        self._pending: deque[_Pending] = deque()
        self._open: dict[tuple[StorageKey, Key], deque[_Pending]] = {}  # the pending writes of each object
        self.version = FIRST_VERSION
        if journal is not None:
            for row in journal.load():
                objects = self._objects.setdefault((row.group, row.plural), {})
                assert row.data is not None
                objects[Key(row.namespace, row.name)] = Stored(row.version, row.data)
            last = journal.last_version()
            self.version = last + RESTART_GAP if last else FIRST_VERSION
        self._floor = self.version
        self.published = self.version
        """The version up to which writes are durable and watchers have been told."""
        self.on_write: list[Callable[[StorageKey, Event], None]] = []

    # -- reading ----------------------------------------------------------------------------------------

    def get(self, storage: StorageKey, key: Key) -> Stored | None:
        """One object, with writes that are not committed yet."""
        return self._objects.get(storage, {}).get(key)

    def committed(self, storage: StorageKey, key: Key) -> Stored | None:
        """One object as a crash would leave it."""
        pending = self._open.get((storage, key))
        return pending[0].undo if pending else self.get(storage, key)

    async def settled(self, storage: StorageKey, key: Key) -> Stored | None:
        """One object once no write of it waits for its commit: what is said of it then holds after a crash."""
        while pending := self._open.get((storage, key)):
            await asyncio.wait([pending[-1].done])
        return self.get(storage, key)

    def list(self, storage: StorageKey, namespace: str | None = None) -> Listing:
        """All objects of a resource, in order of namespace and name, with writes that are not committed yet."""
        objects = self._objects.get(storage, {})
        chosen = (
            objects if namespace is None else {key: at for key, at in objects.items() if key.namespace == namespace}
        )
        return sorted(chosen.items())

    def list_at(self, storage: StorageKey, version: int, namespace: str | None = None) -> Listing:
        """The objects as they were at a version. Raises `TooOld`."""
        if version < self.oldest(storage):
            raise TooOld
        undone: dict[Key, Stored | None] = {}
        for pending in reversed(self._pending):
            if pending.storage == storage and pending.event.version > version:
                undone[pending.event.key] = _before(pending.event)
        if storage in self._history:
            for event in self._history[storage].since(version):
                undone[event.key] = _before(event)
        if not undone:
            return self.list(storage, namespace)
        then = {**self._objects.get(storage, {}), **undone}
        return sorted((key, at) for key, at in then.items() if at is not None and namespace in (None, key.namespace))

    def count(self, storage: StorageKey) -> int:
        """How many objects a resource has."""
        return len(self._objects.get(storage, {}))

    def storages(self) -> Iterator[StorageKey]:
        """Where there are objects."""
        return (storage for storage, objects in list(self._objects.items()) if objects)

    # -- writing ----------------------------------------------------------------------------------------

    async def put(self, storage: StorageKey, key: Key, make: Callable[[int], bytes], expected: int | None) -> Stored:
        """Write an object if its version is `expected` (None: it must not exist); `make` gets the new version.

        Returns after the commit. Raises `StaleVersion` and `StorageFull`.
        """
        objects = self._objects.setdefault(storage, {})
        old = objects.get(key)
        if (old.version if old else None) != expected:
            raise StaleVersion
        self.version += 1
        new = Stored(self.version, make(self.version))
        objects[key] = new
        await self._commit(storage, Event(new.version, key, old.data if old else None, new.data), old)
        return new

    async def remove(self, storage: StorageKey, key: Key, make: Callable[[int], bytes], expected: int) -> Stored:
        """Delete an object if its version is `expected`; `make` gives its last state at the version of the deletion."""
        objects = self._objects.get(storage, {})
        old = objects.get(key)
        if old is None or old.version != expected:
            raise StaleVersion
        self.version += 1
        last = Stored(self.version, make(self.version))
        del objects[key]
        await self._commit(storage, Event(last.version, key, old.data, None, last.data), old)
        return last

    async def _commit(self, storage: StorageKey, event: Event, undo: Stored | None) -> None:
        if self._journal is None:
            self._publish(storage, event)
            return
        pending = _Pending(storage, event, undo, asyncio.get_running_loop().create_future())
        self._pending.append(pending)
        self._open.setdefault((storage, event.key), deque()).append(pending)
        row = Row(*storage, event.key.namespace, event.key.name, event.version, event.after)
        self._journal.write(row, lambda error: self._acknowledged(pending, error))
        await asyncio.shield(pending.done)  # a caller that goes away does not take the write back

    def _acknowledged(self, pending: _Pending, error: BaseException | None) -> None:
        if pending.done.done():
            return  # taken back with an earlier one
        if error is None:
            self._pending.remove(pending)
            self._close(pending)
            self._publish(pending.storage, pending.event)
            pending.done.set_result(None)
            return
        failed = StorageFull(str(error))
        while self._pending:
            last = self._pending.pop()
            self._close(last)
            objects = self._objects[last.storage]
            if last.undo is None:
                objects.pop(last.event.key, None)
            else:
                objects[last.event.key] = last.undo
            last.done.set_exception(failed)
            last.done.exception()  # its caller may have gone away
            if last is pending:
                break

    def _close(self, pending: _Pending) -> None:
        of_object = self._open[pending.storage, pending.event.key]
        of_object.remove(pending)
        if not of_object:
            del self._open[pending.storage, pending.event.key]

    def _publish(self, storage: StorageKey, event: Event) -> None:
        self.published = event.version
        history = self._history.get(storage)
        if history is None:
            history = self._history[storage] = _History(self._floor)
        history.append(event)
        for watcher in list(self._watchers.get(storage, ())):
            watcher.push(event)
        for listener in self.on_write:
            listener(storage, event)

    # -- watching ---------------------------------------------------------------------------------------

    def watch(self, storage: StorageKey, since: int) -> Watcher:
        """Events after version `since`. Raises `TooOld`."""
        if since < self.oldest(storage):
            raise TooOld
        watcher = Watcher(storage, self, since)
        if storage in self._history:
            for event in reversed(list(self._history[storage].since(since))):
                watcher.push(event)
        self._watchers.setdefault(storage, {})[watcher] = None
        return watcher

    def unwatch(self, watcher: Watcher) -> None:
        """Forget a watcher."""
        self._watchers.get(watcher.storage, {}).pop(watcher, None)

    def forget_history(self) -> None:
        """Compact: versions up to now are too old for watches and continue tokens."""
        self._history.clear()
        self._floor = self.published

    def oldest(self, storage: StorageKey) -> int:
        """The oldest version that watches and lists of a resource may go back to."""
        history = self._history.get(storage)
        return history.floor if history is not None else self._floor

    def close(self) -> None:
        """Write what waits, and close."""
        if self._journal is not None:
            self._journal.close()


def _before(event: Event) -> Stored | None:
    return Stored(0, event.before) if event.before is not None else None
