"""An informer: the objects of one kind, kept up to date in a `Store` by list and watch.

`Informer.run` starts one task per namespace in the TaskGroup it is given; cancelling that ends them. Handlers are plain
functions, called in the order of the changes; they must not block. A list is compared with what is known, so that no
delete is lost; what a write of ours answered (`observe`) is never overwritten by something older.
"""

from __future__ import annotations

import asyncio
import gc
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import msgspec
import structlog

from sandlane.kube.client import Client, Random
from sandlane.kube.clock import Clock, Watchdog
from sandlane.kube.errors import ApiError, BadRequest, Forbidden, Gone, Invalid, KubeError, error_from_status
from sandlane.kube.resource import Key, Object, Resource
from sandlane.kube.selectors import matches, parse_label_selector
from sandlane.kube.store import Record, Store
from sandlane.kube.watch import (
    Broke,
    Ended,
    Expired,
    Input,
    Listed,
    Pause,
    Seen,
    StartList,
    StartStream,
    StartWatch,
    Synced,
    Unsupported,
    begin,
    step,
)

log = structlog.get_logger(__name__)

R = TypeVar("R", bound=Record)

WATCH_SECONDS = 300
"""How long one watch request lasts (the server ends it; jittered by up to as much again)."""
SILENCE = 90.0
"""Seconds without any byte (bookmarks come every minute) after which a watch is replaced."""
STREAM_SILENCE = 10.0
"""The same while initial events are awaited: a server without streaming lists never says that they are all there."""
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
    annotations: dict[str, str] = {}


class _WithMeta(msgspec.Struct):
    metadata: _Meta = _Meta()


_event = msgspec.json.Decoder(_Event)
_versioned = msgspec.json.Decoder(_WithMeta)
_INITIAL_EVENTS_END = "k8s.io/initial-events-end"

Handler = Callable[[Change[Any]], None]


class Informer(Generic[R]):
    """The objects of one kind. `store` is readable at any time; `synced` is set once the first list is in it."""

    def __init__(
        self,
        client: Client,
        resource: Resource,
        record_type: type[R],
        *,
        clock: Clock,
        rng: Random,
        namespaces: tuple[str, ...] = (),
        label_selector: str = "",
        field_selector: str = "",
        transform: Callable[[R], R] | None = None,
        streaming: bool = True,
    ) -> None:
        self.resource = resource
        self.record_type = record_type
        self.store: Store[R] = Store()
        self.synced = asyncio.Event()
        self.last_heard = clock.monotonic()
        self.last_attempt = clock.monotonic()
        self.counts = {"lists": 0, "watches": 0, "silent": 0, "undecodable": 0}
        self._client = client
        self._clock = clock
        self._rng = rng
        self._namespaces: tuple[str | None, ...] = namespaces or (None,)
        self._waiting_for = set(self._namespaces)
        self._labels, self._fields = label_selector, field_selector
        self._selector = parse_label_selector(label_selector)
        self._transform = transform
        self._streaming = streaming
        self._handlers: list[Handler] = []
        self._tombstones: OrderedDict[Key, str] = OrderedDict()
        self._newest = 0
        self._reached: dict[str | None, int] = {}
        self._waiters: list[tuple[str | None, int, asyncio.Future[None]]] = []
        from_bytes: Callable[[bytes], R] | None = getattr(record_type, "from_bytes", None)
        decode = msgspec.json.Decoder(record_type).decode if from_bytes is None else None
        self._read_record: Callable[[Any], R] = decode or (lambda data: from_bytes(bytes(data)))  # type: ignore[misc]

    def add_handler(self, handler: Handler) -> None:
        """Call `handler` for every change from now on, and at once for what is there already."""
        for record in list(self.store):
            handler(Change(None, record, initial=True))
        self._handlers.append(handler)

    # -- writes of our own ------------------------------------------------------------------------------

    def observe(self, obj: Object) -> None:
        """Take in what a write of ours answered, so that nobody reads the past before the watch has caught up."""
        metadata = obj["metadata"]
        if self._fields or (None not in self._namespaces and metadata.get("namespace") not in self._namespaces):
            return
        if not matches(self._selector, metadata.get("labels") or {}):
            self._remove(Key(metadata.get("namespace", ""), metadata["name"]), metadata.get("resourceVersion", ""))
        elif (record := self._decode(msgspec.json.encode(obj))) is not None:
            self._put(record)

    def observe_deleted(self, key: Key) -> None:
        """Take in that a delete of ours succeeded for an object without finalizers."""
        old = self.store.get(key)
        if old is not None and not old.metadata.finalizers:
            self._remove(key, old.metadata.resource_version)

    async def wait_for(self, resource_version: str, *, namespace: str | None = None, timeout: float = 10.0) -> None:
        """Return once everything up to a version has been seen. Raises `TimeoutError`.

        Events and bookmarks tell; on a quiet kind that can take until the next bookmark, so prefer `observe`.
        """
        if namespace not in self._namespaces:
            namespace = None
        version = _number(resource_version)
        if self._reached.get(namespace, 0) >= version:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (namespace, version, waiter)
        self._waiters.append(entry)
        try:
            await Watchdog(self._clock, timeout).guard(waiter)
        finally:
            self._waiters.remove(entry)

    # -- following --------------------------------------------------------------------------------------

    async def run(self, tasks: asyncio.TaskGroup) -> None:
        """Start watching; the tasks belong to the given group."""
        for namespace in self._namespaces:
            tasks.create_task(self._follow(namespace), name=f"watch {self.resource.plural} {namespace or '*'}")

    async def _follow(self, namespace: str | None) -> None:
        """List and watch for ever, as the state machine says."""
        state, todo = begin(streaming=self._streaming)

        def feed(event: Input) -> None:
            nonlocal state, todo
            state, todo = step(state, event)

        while True:
            for action in todo:
                self.last_attempt = self._clock.monotonic()
                match action:
                    case Pause(failures, seconds):
                        pause = min(FIRST_PAUSE * 2 ** min(failures - 1, 20), LAST_PAUSE)
                        await self._clock.sleep(max(pause * (0.5 + self._rng.random()), seconds))
                    case StartList(whole):
                        feed(await self._list(namespace, whole))
                    case StartStream():
                        feed(await self._stream(namespace, feed))
                    case StartWatch(version):
                        feed(await self._watch(namespace, version, feed))

    async def _list(self, namespace: str | None, whole: bool) -> Input:
        self.counts["lists"] += 1
        known_before, present, version = self._newest, set[Key](), ""
        records: list[R] = []
        try:
            async for page in self._client.pages(
                self.resource, namespace, self._labels, self._fields, **({"limit": 0} if whole else {})
            ):
                with _collector_paused():
                    records += [r for item in page.items if (r := self._decode(item)) is not None]
                version = page.resource_version
        except Gone as error:
            log.info("list_expired", resource=self.resource.plural, namespace=namespace, error=str(error))
            return Expired()
        except (KubeError, msgspec.DecodeError) as error:
            log.warning("list_failed", resource=self.resource.plural, namespace=namespace, error=str(error))
            return Broke(wait=_wanted(error))
        back_in_time = self._back_in_time(known_before, version)
        initial = namespace in self._waiting_for
        for record in records:
            present.add(record.metadata.key)
            self._put(record, initial=initial, force=back_in_time)
        self._complete(namespace, present, version, force=back_in_time)
        return Listed(version)

    async def _stream(self, namespace: str | None, feed: Callable[[Input], None]) -> Input:
        """A streaming list and the watch that it becomes; how it ended."""
        self.counts["lists"] += 1
        present: set[Key] = set()
        initial = namespace in self._waiting_for
        known_before = self._newest
        synced = False

        def take(event: _Event, dog: Watchdog) -> None:
            nonlocal synced
            if not synced and event.type == "BOOKMARK":
                metadata = _versioned.decode(event.object).metadata
                if metadata.annotations.get(_INITIAL_EVENTS_END) == "true":
                    if self._back_in_time(known_before, metadata.resource_version):
                        raise Gone(410, "Expired", "the server went back in time", {})
                    self._complete(namespace, present, metadata.resource_version)
                    synced, dog.seconds = True, SILENCE
                    feed(Synced(metadata.resource_version))
                return
            record, version = self._take(event, initial=initial and not synced)
            if synced:
                feed(Seen(version))
                self._reach(namespace, version)
            elif record is not None:
                present.add(record.metadata.key)

        ended = await self._read(namespace, "", take, initial_events=True)
        if not synced and (self._unsupported or isinstance(ended, Expired)):
            return Unsupported()  # a plain list settles it
        return ended

    async def _watch(self, namespace: str | None, version: str, feed: Callable[[Input], None]) -> Input:
        """A watch from a version; how it ended."""

        def take(event: _Event, dog: Watchdog) -> None:
            seen = self._take(event)[1]
            feed(Seen(seen))
            self._reach(namespace, seen)

        return await self._read(namespace, version, take)

    async def _read(
        self,
        namespace: str | None,
        version: str,
        take: Callable[[_Event, Watchdog], None],
        *,
        initial_events: bool = False,
    ) -> Input:
        """One watch request: give each event to `take`; how the request ended."""
        self.counts["watches"] += 1
        dog = Watchdog(self._clock, STREAM_SILENCE if initial_events else SILENCE)
        self._unsupported = False
        started = self._clock.monotonic()

        async def read() -> None:
            async with self._client.watch(
                self.resource,
                namespace,
                resource_version=version,
                timeout_seconds=int(WATCH_SECONDS * (1 + self._rng.random())),
                label_selector=self._labels,
                field_selector=self._fields,
                initial_events=initial_events,
            ) as lines:
                async for line in lines:
                    dog.feed()
                    self.last_heard = self._clock.monotonic()
                    event = _event.decode(line)
                    if event.type == "ERROR":
                        status = msgspec.json.decode(event.object)
                        raise error_from_status(status.get("code", 500), status)
                    take(event, dog)

        def lasted() -> float:
            return self._clock.monotonic() - started

        try:
            await dog.guard(read())
        except Gone:
            return Expired(lasted())
        except TimeoutError as error:
            self.counts["silent"] += 1
            self._unsupported = initial_events
            log.warning("watch_silent", resource=self.resource.plural, namespace=namespace, error=str(error))
            return Broke(lasted())
        except (KubeError, msgspec.DecodeError) as error:
            self._unsupported = initial_events and isinstance(error, (BadRequest, Invalid, Forbidden))
            log.info("watch_broke", resource=self.resource.plural, namespace=namespace, error=str(error))
            return Broke(lasted(), _wanted(error))
        return Ended(lasted())

    def _take(self, event: _Event, *, initial: bool = False) -> tuple[R | None, str]:
        """Apply one event; its record, and the version it is at."""
        if event.type == "BOOKMARK":
            return None, _versioned.decode(event.object).metadata.resource_version
        record = self._decode(event.object)
        if record is None:
            return None, _versioned.decode(event.object).metadata.resource_version
        if event.type == "DELETED":
            self._remove(record.metadata.key, record.metadata.resource_version)
        else:
            self._put(record, initial=initial)
        return record, record.metadata.resource_version

    def _decode(self, data: bytes | msgspec.Raw) -> R | None:
        """A record, or None (logged and counted) for an object that does not fit its type: it must not stop others."""
        try:
            record = self._read_record(data)
        except msgspec.ValidationError as error:
            self.counts["undecodable"] += 1
            log.error("object_not_understood", resource=self.resource.plural, error=str(error))
            return None
        return record if self._transform is None else self._transform(record)

    # -- the store --------------------------------------------------------------------------------------

    def _complete(self, namespace: str | None, present: set[Key], version: str, *, force: bool = False) -> None:
        """A whole list at `version` is in the store: what it does not hold is gone."""
        for record in list(self.store.namespace(namespace) if namespace else self.store):
            key, known = record.metadata.key, record.metadata.resource_version
            # A write of ours may be newer than the list; only what the list could have seen is gone.
            if key not in present and (force or _number(known) <= _number(version)):
                self._remove(key, version, force=force)
        self.last_heard = self._clock.monotonic()
        self._newest = _number(version) if force else max(self._newest, _number(version))
        self._reach(namespace, version)
        self._waiting_for.discard(namespace)
        if not self._waiting_for:
            self.synced.set()

    def _back_in_time(self, known_before: int, version: str) -> bool:
        """Whether a consistent list is older than what was known before it began: the server was restored."""
        if not 0 < _number(version) < known_before:
            return False
        log.warning("server_went_back", resource=self.resource.plural, known=known_before, listed=version)
        self._tombstones.clear()
        return True

    def _put(self, record: R, *, initial: bool = False, force: bool = False) -> None:
        key, version = record.metadata.key, record.metadata.resource_version
        known = self.store.get(key)
        if known is not None and known.metadata.resource_version == version:
            return
        if not force and (
            (known is not None and not _newer(version, known.metadata.resource_version))
            or (key in self._tombstones and not _newer(version, self._tombstones[key]))
        ):
            return
        self._newest = max(self._newest, _number(version))
        old = self.store.set(record)
        self._notify(Change(old, record, initial=initial))

    def _remove(self, key: Key, version: str, *, force: bool = False) -> None:
        known = self.store.get(key)
        if known is not None and not force and _newer(known.metadata.resource_version, version):
            return  # a newer object of the same name
        self._newest = max(self._newest, _number(version))
        self._tombstones[key] = version
        self._tombstones.move_to_end(key)
        if len(self._tombstones) > TOMBSTONES:
            self._tombstones.popitem(last=False)
        old = self.store.remove(key)
        if old is not None:
            self._notify(Change(old, None))

    def _notify(self, change: Change[R]) -> None:
        for handler in self._handlers:
            handler(change)

    def _reach(self, namespace: str | None, version: str) -> None:
        number = self._reached[namespace] = _number(version)
        for wanted, least, waiter in self._waiters:
            if wanted == namespace and number >= least and not waiter.done():
                waiter.set_result(None)


def _wanted(error: Exception) -> float:
    return (error.retry_after or 0.0) if isinstance(error, ApiError) else 0.0


def _newer(version: str, than: str) -> bool:
    """Whether a resourceVersion is newer (KEP-5504: they are comparable integers per resource)."""
    if version.isdigit() and than.isdigit():
        return int(version) > int(than)
    return version != than


def _number(version: str) -> int:
    return int(version) if version.isdigit() else 0


@contextmanager
def _collector_paused() -> Iterator[None]:
    """No cyclic garbage collection while many records are made: it is four fifths of the time otherwise."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
