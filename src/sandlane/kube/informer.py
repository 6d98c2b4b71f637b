"""An informer: the objects of one kind, kept up to date in a `Store` by list and watch.

`Informer.run` starts one task per namespace in the TaskGroup it is given; cancelling that ends them. Handlers are plain
functions, called in the order of the changes; they must not block. A list is compared with what is known, so that no
delete is lost; what a write of ours answered (`observe`) is never overwritten by something older.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import msgspec
import structlog

from sandlane.kube.client import Client, Random
from sandlane.kube.clock import Clock, Watchdog
from sandlane.kube.errors import ApiError, BadRequest, Forbidden, Gone, Invalid, KubeError, error_from_status
from sandlane.kube.known import Change as Change
from sandlane.kube.known import Handler as Handler
from sandlane.kube.known import Known, number
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
        self.known: Known[R] = Known(resource)
        self.store: Store[R] = self.known.store
        self.synced = asyncio.Event()
        self.counts = {"lists": 0, "watches": 0, "silent": 0, "undecodable": 0}
        self._client = client
        self._clock = clock
        self._rng = rng
        self._namespaces: tuple[str | None, ...] = namespaces or (None,)
        self._heard = dict.fromkeys(self._namespaces, clock.monotonic())
        self._attempted = dict(self._heard)
        self._waiting_for = set(self._namespaces)
        self._labels, self._fields = label_selector, field_selector
        self._selector = parse_label_selector(label_selector)
        self._transform = transform
        self._streaming = streaming
        self._reached: dict[str | None, int] = {}
        self._waiters: list[tuple[str | None, int, asyncio.Future[None]]] = []
        from_bytes: Callable[[bytes], R] | None = getattr(record_type, "from_bytes", None)
        decode = msgspec.json.Decoder(record_type).decode if from_bytes is None else None
        self._read_record: Callable[[Any], R] = decode or (lambda data: from_bytes(bytes(data)))  # type: ignore[misc]

    def add_handler(self, handler: Handler) -> None:
        """Call `handler` for every change from now on, and at once for what is there already."""
        self.known.add_handler(handler)

    @property
    def last_heard(self) -> float:
        """When (by the clock's `monotonic`) the watch that has been silent for longest was heard from."""
        return min(self._heard.values())

    @property
    def last_attempt(self) -> float:
        """When the watch that has done nothing for longest was heard from or asked anew."""
        return min(max(self._heard[each], self._attempted[each]) for each in self._namespaces)

    # -- writes of our own ------------------------------------------------------------------------------

    def observe(self, obj: Object) -> None:
        """Take in what a write of ours answered, so that nobody reads the past before the watch has caught up."""
        metadata = obj["metadata"]
        if self._fields or (None not in self._namespaces and metadata.get("namespace") not in self._namespaces):
            return
        if not matches(self._selector, metadata.get("labels") or {}):
            self.known.remove(Key(metadata.get("namespace", ""), metadata["name"]), metadata.get("resourceVersion", ""))
        elif (record := self._decode(msgspec.json.encode(obj))) is not None:
            self.known.put(record)

    def observe_deleted(self, key: Key) -> None:
        """Take in that a delete of ours succeeded for an object without finalizers."""
        old = self.store.get(key)
        if old is not None and not old.metadata.finalizers:
            self.known.remove(key, old.metadata.resource_version)

    async def wait_for(self, resource_version: str, *, namespace: str | None = None, timeout: float = 10.0) -> None:
        """Return once everything up to a version has been seen. Raises `TimeoutError`.

        Events and bookmarks tell; on a quiet kind that can take until the next bookmark, so prefer `observe`.
        """
        if namespace not in self._namespaces:
            namespace = None
        version = number(resource_version)
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
                self._attempted[namespace] = self._clock.monotonic()
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
        known_before, present, version = self.known.newest, set[Key](), ""
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
        back_in_time = self.known.back_in_time(known_before, version)
        initial = namespace in self._waiting_for
        for record in records:
            present.add(record.metadata.key)
            self.known.put(record, initial=initial, force=back_in_time)
        self._complete(namespace, present, version, force=back_in_time)
        return Listed(version)

    async def _stream(self, namespace: str | None, feed: Callable[[Input], None]) -> Input:
        """A streaming list and the watch that it becomes; how it ended."""
        self.counts["lists"] += 1
        present: set[Key] = set()
        initial = namespace in self._waiting_for
        known_before = self.known.newest
        synced = False

        def take(event: _Event, dog: Watchdog) -> None:
            nonlocal synced
            if not synced and event.type == "BOOKMARK":
                metadata = _versioned.decode(event.object).metadata
                if metadata.annotations.get(_INITIAL_EVENTS_END) == "true":
                    if self.known.back_in_time(known_before, metadata.resource_version):
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
                    self._heard[namespace] = self._clock.monotonic()
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
            # an API server may have no bookmarks for a kind of which it has never seen a change
            tell = log.warning if self._heard[namespace] > started else log.info
            tell("watch_silent", resource=self.resource.plural, namespace=namespace, error=str(error))
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
            self.known.remove(record.metadata.key, record.metadata.resource_version)
        else:
            self.known.put(record, initial=initial)
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

    def _complete(self, namespace: str | None, present: set[Key], version: str, *, force: bool = False) -> None:
        """A whole list at `version` is in the store."""
        self.known.complete(namespace, present, version, force=force)
        self._heard[namespace] = self._clock.monotonic()
        self._reach(namespace, version)
        self._waiting_for.discard(namespace)
        if not self._waiting_for:
            self.synced.set()

    def _reach(self, namespace: str | None, version: str) -> None:
        reached = self._reached[namespace] = number(version)
        for wanted, least, waiter in self._waiters:
            if wanted == namespace and reached >= least and not waiter.done():
                waiter.set_result(None)


def _wanted(error: Exception) -> float:
    return (error.retry_after or 0.0) if isinstance(error, ApiError) else 0.0


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
