"""Informers: the objects of a kind, kept up to date in a `Store` by list and watch, shared by all who read them.

`Cache.run` owns one task per informer and namespace, in its TaskGroup; cancelling it ends them. Handlers are plain
functions, called in the order of the changes; they must not block. A re-list is compared with what is known, so that no
delete is lost.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

import msgspec
import structlog

from sandlane.kube.client import Client, Random
from sandlane.kube.clock import Clock
from sandlane.kube.errors import ApiError, Gone, KubeError, TransportError, error_from_status
from sandlane.kube.resource import Key, Object, Resource
from sandlane.kube.store import Record, Store
from sandlane.kube.unstructured import Unstructured
from sandlane.kube.watch import Broke, Ended, Expired, Input, Listed, Pause, Seen, StartList, StartWatch, begin, step

log = structlog.get_logger(__name__)

R = TypeVar("R", bound=Record)

WATCH_SECONDS = 300
"""How long one watch request lasts (the server ends it; jittered by up to as much again)."""
SILENCE = 90.0
"""Seconds without any byte (bookmarks come every minute) after which a watch is replaced."""
FIRST_PAUSE = 0.2
LAST_PAUSE = 30.0
TOMBSTONES = 4096


class Change(msgspec.Struct, Generic[R], frozen=True):
    """A change of an object: `old` is None for a new one, `new` for a deleted one. `initial`: in the first list."""

    old: R | None
    new: R | None
    initial: bool = False

    @property
    def key(self) -> Key:
        """The object's key."""
        record = self.new if self.new is not None else self.old
        assert record is not None
        return record.metadata.key


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Meta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""


class _WithMeta(msgspec.Struct):
    metadata: _Meta = _Meta()


_event = msgspec.json.Decoder(_Event)
_versioned = msgspec.json.Decoder(_WithMeta)
Handler = Callable[[Change[Any]], None]


class Informer(Generic[R]):
    """The objects of one kind. `store` is readable at any time; `synced` is set once the first list is in it."""

    def __init__(
        self,
        cache: Cache,
        resource: Resource,
        record_type: type[R],
        namespaces: tuple[str, ...],
        selectors: tuple[str, str],
    ) -> None:
        self.resource = resource
        self.record_type = record_type
        self.store: Store[R] = Store()
        self.synced = asyncio.Event()
        self.last_heard = cache.clock.monotonic()
        self._cache = cache
        self._namespaces: tuple[str | None, ...] = namespaces or (None,)
        self._waiting_for = set(self._namespaces)
        self._labels, self._fields = selectors
        self._handlers: list[Handler] = []
        self._tombstones: OrderedDict[Key, int] = OrderedDict()
        from_bytes = getattr(record_type, "from_bytes", None)
        self.decode: Callable[[bytes], R] = from_bytes or msgspec.json.Decoder(record_type).decode

    def add_handler(self, handler: Handler) -> None:
        """Call `handler` for every change from now on, and at once for what is there already."""
        for record in list(self.store):
            handler(Change(None, record, initial=True))
        self._handlers.append(handler)

    def observe(self, obj: Object) -> None:
        """Take in what a write of ours answered, so that nobody reads the past before the watch has caught up."""
        self._put(self.decode(msgspec.json.encode(obj)))

    def observe_deleted(self, key: Key) -> None:
        """Take in that a delete of ours succeeded for an object without finalizers."""
        old = self.store.get(key)
        if old is not None and not old.metadata.finalizers:
            self._remove(key, old.metadata.resource_version)

    async def run(self, tasks: asyncio.TaskGroup) -> None:
        """Start watching; the tasks belong to the given group."""
        for namespace in self._namespaces:
            tasks.create_task(self._follow(namespace), name=f"watch {self.resource.plural} {namespace or '*'}")

    async def _follow(self, namespace: str | None) -> None:
        """List and watch for ever, as the state machine says."""
        state, todo = begin()
        while True:
            outputs: tuple[Input, ...] = ()
            for action in todo:
                match action:
                    case Pause(failures):
                        pause = min(FIRST_PAUSE * 2 ** (failures - 1), LAST_PAUSE)
                        await self._cache.clock.sleep(pause * (0.5 + self._cache.rng.random()))
                    case StartList():
                        outputs = (await self._list(namespace),)
                    case StartWatch(version):
                        outputs = await self._watch(namespace, version)
            for event in outputs:
                state, todo = step(state, event)

    async def _list(self, namespace: str | None) -> Input:
        try:
            listed = await self._cache.client.list_raw(
                self.resource, namespace, label_selector=self._labels, field_selector=self._fields
            )
        except (KubeError, msgspec.DecodeError) as error:
            log.warning("list_failed", resource=self.resource.plural, namespace=namespace, error=str(error))
            return Expired() if isinstance(error, Gone) else Broke()
        initial = namespace in self._waiting_for
        records = [self.decode(item) for item in listed.items]
        gone = {r.metadata.key for r in self.store if namespace is None or r.metadata.namespace == namespace}
        for record in records:
            gone.discard(record.metadata.key)
            self._put(record, initial=initial)
        for key in gone:
            known = self.store.get(key)
            # A write of ours may be newer than the list; only what the list could have seen is gone.
            if known is not None and _number(known.metadata.resource_version) <= _number(listed.resource_version):
                self._remove(key, listed.resource_version)
        self.last_heard = self._cache.clock.monotonic()
        self._waiting_for.discard(namespace)
        if not self._waiting_for:
            self.synced.set()
        return Listed(listed.resource_version)

    async def _watch(self, namespace: str | None, version: str) -> tuple[Input, ...]:
        """One watch request. Gives the last version seen, if any, and how it ended."""
        seen: tuple[Input, ...] = ()
        seconds = int(WATCH_SECONDS * (1 + self._cache.rng.random()))
        try:
            async with (
                self._cache.client.watch(
                    self.resource,
                    namespace,
                    resource_version=version,
                    timeout_seconds=seconds,
                    label_selector=self._labels,
                    field_selector=self._fields,
                ) as lines,
                asyncio.timeout(SILENCE) as silence,
            ):
                loop = asyncio.get_running_loop()
                async for line in lines:
                    silence.reschedule(loop.time() + SILENCE)
                    self.last_heard = self._cache.clock.monotonic()
                    event = _event.decode(line)
                    if event.type == "ERROR":
                        status = msgspec.json.decode(event.object)
                        raise error_from_status(status.get("code", 500), status)
                    seen = (Seen(self._take(event)),)
        except Gone:
            return (*seen, Expired())
        except (TransportError, ApiError, TimeoutError, msgspec.DecodeError) as error:
            log.info("watch_broke", resource=self.resource.plural, namespace=namespace, error=str(error) or "silent")
            return (*seen, Broke())
        return (*seen, Ended())

    def _take(self, event: _Event) -> str:
        """Apply one event; the version it is at."""
        if event.type == "BOOKMARK":
            return _versioned.decode(event.object).metadata.resource_version
        record = self.decode(bytes(event.object))
        if event.type == "DELETED":
            self._remove(record.metadata.key, record.metadata.resource_version)
        else:
            self._put(record)
        return record.metadata.resource_version

    def _put(self, record: R, *, initial: bool = False) -> None:
        key, version = record.metadata.key, _number(record.metadata.resource_version)
        known = self.store.get(key)
        if known is not None and _number(known.metadata.resource_version) >= version:
            return
        if version <= self._tombstones.get(key, -1):
            return
        old = self.store.set(record)
        self._notify(Change(old, record, initial=initial))

    def _remove(self, key: Key, version: str) -> None:
        known = self.store.get(key)
        if known is not None and _number(known.metadata.resource_version) > _number(version):
            return  # a newer object of the same name
        self._tombstones[key] = _number(version)
        self._tombstones.move_to_end(key)
        if len(self._tombstones) > TOMBSTONES:
            self._tombstones.popitem(last=False)
        old = self.store.remove(key)
        if old is not None:
            self._notify(Change(old, None))

    def _notify(self, change: Change[R]) -> None:
        for handler in self._handlers:
            handler(change)


class Cache:
    """All informers of a process."""

    def __init__(self, client: Client, *, clock: Clock, rng: Random, namespaces: Iterable[str] = ()) -> None:
        self.client = client
        self.clock = clock
        self.rng = rng
        self._namespaces = tuple(namespaces)
        self._informers: dict[tuple[Resource, str, str], Informer[Any]] = {}
        self._tasks: asyncio.TaskGroup | None = None

    def informer(
        self,
        resource: Resource,
        record_type: type[R] = Unstructured,  # type: ignore[assignment]
        *,
        namespaces: Iterable[str] | None = None,
        label_selector: str = "",
        field_selector: str = "",
    ) -> Informer[R]:
        """The informer of a kind, made at the first call. Raises `ValueError` when it exists with another record type.

        An informer that is asked for after `run` started has to be started by `start`.
        """
        key = (resource, label_selector, field_selector)
        found = self._informers.get(key)
        if found is None:
            chosen = tuple(self._namespaces if namespaces is None else namespaces) if resource.namespaced else ()
            selectors = (label_selector, field_selector)
            found = self._informers[key] = Informer(self, resource, record_type, chosen, selectors)
        elif found.record_type is not record_type:
            raise ValueError(f"{resource.plural} are cached as {found.record_type.__name__} already")
        return found

    def informers(self) -> list[Informer[Any]]:
        """All of them."""
        return list(self._informers.values())

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            for informer in self.informers():
                await informer.run(tasks)
            await asyncio.get_running_loop().create_future()

    async def start(self, informer: Informer[Any]) -> None:
        """Start an informer that was made after `run` had begun."""
        if self._tasks is not None:
            await informer.run(self._tasks)

    async def wait_synced(self, timeout: float = 60.0) -> None:
        """Return once every informer has its first list. Raises `TimeoutError` that names those that have not."""
        try:
            async with asyncio.timeout(timeout):
                for informer in self.informers():
                    await informer.synced.wait()
        except TimeoutError:
            late = sorted(informer.resource.plural for informer in self.informers() if not informer.synced.is_set())
            raise TimeoutError(f"no list within {timeout:.0f} s of: {', '.join(late)}") from None

    def observe(self, resource: Resource, obj: Object) -> None:
        """Take in what a write of ours answered, where the kind is cached."""
        for (kind, _, _), informer in self._informers.items():
            if kind == resource:
                informer.observe(obj)

    def observe_deleted(self, resource: Resource, key: Key) -> None:
        """Take in that a delete of ours succeeded."""
        for (kind, _, _), informer in self._informers.items():
            if kind == resource:
                informer.observe_deleted(key)


def _number(version: str) -> int:
    """A resourceVersion as a number (KEP-5504: they are comparable integers per resource)."""
    try:
        return int(version)
    except ValueError:
        return 0
