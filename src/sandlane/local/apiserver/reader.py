"""Reading: get, list with paging and selectors, watch with resumption, bookmarks and initial events."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

import msgspec

from sandlane.kube.clock import Clock
from sandlane.kube.resource import Key, Object
from sandlane.kube.selectors import Selector, SelectorError, matches, parse_label_selector
from sandlane.local.apiserver import field_selectors, stored_form
from sandlane.local.apiserver.event_lines import EventLines, encode_line
from sandlane.local.apiserver.kinds.field_errors import Faults
from sandlane.local.apiserver.representation import Representation
from sandlane.local.apiserver.request_info import RequestInfo, is_true
from sandlane.local.apiserver.resource_type import ResourceType
from sandlane.local.apiserver.status import StatusError, bad_request, expired, invalid, not_found
from sandlane.local.apiserver.store.objects import Listing, ObjectStore, TooOld, Watcher

BOOKMARK_SECONDS = 60.0
WATCH_SECONDS = 1800.0
INCONSISTENT = -1
"""The version in a continue token that goes on with what there is then."""
Query = dict[str, str]


@dataclass(frozen=True)
class Filter:
    """Which objects of a resource are asked for."""

    type_: ResourceType
    namespace: str | None
    labels: Selector
    fields: field_selectors.Requirements
    name: str = ""

    def admits(self, key: Key, obj: Object) -> bool:
        """Whether an object is among them."""
        if self.name and key.name != self.name:
            return False
        if self.labels and not matches(self.labels, obj["metadata"].get("labels") or {}):
            return False
        return not self.fields or field_selectors.matches(self.type_, self.fields, obj)


def make_filter(type_: ResourceType, info: RequestInfo, query: Query) -> Filter:
    """The filter of a request. Raises `StatusError` 400."""
    try:
        labels = parse_label_selector(query.get("labelSelector", ""))
    except SelectorError as error:
        raise bad_request(str(error)) from error
    fields = field_selectors.parse(type_, query.get("fieldSelector", ""))
    return Filter(type_, info.namespace or None, labels, fields, info.name)


class Reader:
    """Answers reads from the store."""

    def __init__(self, store: ObjectStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._lines = EventLines()

    async def get(self, type_: ResourceType, namespace: str, name: str, version: str = "") -> Object:
        """One object, not older than `version`. Raises `StatusError` 404, and 400 or 504 for the version."""
        if version and version != "0":
            self._reached(version)
        stored = self._store.committed(type_.storage_key, Key(namespace, name))
        if stored is None:
            raise not_found(type_.resource.group, type_.resource.plural, name)
        return (await stored_form.show(type_, stored.data))[0]

    async def list(self, type_: ResourceType, wanted: Filter, query: Query) -> tuple[list[Object], Object]:
        """A page of objects, and the list's metadata. Raises `StatusError` 400 and 410."""
        _number(query, "timeoutSeconds")  # a list takes no time here, but what is no number is refused
        limit = (
            _number(query, "limit") if query.get("resourceVersion") != "0" else 0
        )  # kube-apiserver's cache knows no pages
        token = query.get("continue", "")
        self._check_options(query)
        if token:
            after, version = self._continue(type_, token, query)
        else:
            after, version = None, self._check_version(query, limit)
        try:
            present = self._store.list_at(type_.storage_key, version, wanted.namespace)
        except TooOld:
            raise expired("The resourceVersion for the provided list is too old.") from None
        items: list[Object] = []
        metadata: Object = {"resourceVersion": str(version)}
        selects = bool(wanted.labels or wanted.fields)
        left = 0
        view: stored_form.View = stored_form.decode
        if type_.conversion is not None:  # one call for what is on the page, or for what the selectors are to look at
            present = [each for each in present if _is_wanted(each[0], after, wanted)]
            view = await stored_form.view(type_, present[:limit] if limit and not selects else present)
        for key, stored in present:
            if not _is_wanted(key, after, wanted):
                continue
            full = bool(limit) and len(items) == limit
            if full and not selects:
                left += 1
                continue
            obj = view(type_, stored.data)
            if not wanted.admits(key, obj):
                continue
            if full:
                left = 1
                break
            items.append(obj)
            last = key
        if left:
            metadata["continue"] = _token(version, last)
            if not selects:
                metadata["remainingItemCount"] = left
        return items, metadata

    @staticmethod
    def _check_options(query: Query) -> None:
        """Which options of a list go together. Raises `StatusError` 422."""
        version, match = query.get("resourceVersion", ""), query.get("resourceVersionMatch", "")
        faults = Faults()
        if match and not version:
            faults.forbidden(
                "resourceVersionMatch", "resourceVersionMatch is forbidden unless resourceVersion is provided"
            )
        elif match and match not in ("Exact", "NotOlderThan"):
            faults.not_supported("resourceVersionMatch", match, ("Exact", "NotOlderThan", ""))
        elif match == "Exact" and version == "0":
            faults.forbidden(
                "resourceVersionMatch", 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
            )
        if match and query.get("continue"):
            faults.forbidden("resourceVersionMatch", "resourceVersionMatch is forbidden when continue is provided")
        if "sendInitialEvents" in query:
            faults.forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list")
        if faults.errors:
            raise invalid("meta.k8s.io", "ListOptions", "", faults.errors)

    def _check_version(self, query: Query, limit: int) -> int:
        """The version that a list without token is to show. Raises `StatusError` 400, 410 and 504."""
        version, match = query.get("resourceVersion", ""), query.get("resourceVersionMatch", "")
        if not version or version == "0":
            return self._store.published
        number = self._reached(version)
        return number if match == "Exact" or (limit and not match) else self._store.published

    def _reached(self, version: str) -> int:
        """A version that there is already. Raises `StatusError` 400 and 504."""
        number = _version(version)
        if number > self._store.published:
            raise StatusError(
                504,
                "Timeout",
                f"Timeout: Too large resource version: {number}, current: {self._store.published}",
                {
                    "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
                    "retryAfterSeconds": 1,
                },
            )
        return number

    def _continue(self, type_: ResourceType, token: str, query: Query) -> tuple[Key, int]:
        """Where a token goes on, and at which version. Raises `StatusError` 400 and 410."""
        if query.get("resourceVersion") not in (None, "", "0"):
            raise bad_request("specifying resource version is not allowed when using continue")
        try:
            version, namespace, name = msgspec.json.decode(
                base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)), type=tuple[int, str, str]
            )
        except (ValueError, msgspec.MsgspecError):
            raise bad_request("invalid continue token: continue key is not valid") from None
        after = Key(namespace, name)
        if version == INCONSISTENT:
            return after, self._store.published
        if version < self._store.oldest(type_.storage_key):
            raise expired(
                "The provided continue parameter is too old to display a consistent list result. You can start a new "
                "list without the continue parameter, or use the continue token in this response to retrieve the "
                "remainder of the results. Continuing with the provided token results in an inconsistent list - "
                "objects that were created, modified, or deleted between the time the first chunk was returned and now "
                "may show up in the list.",
                _token(INCONSISTENT, after),
            )
        return after, version

    # -- watch ------------------------------------------------------------------------------------------

    def watch(self, type_: ResourceType, wanted: Filter, query: Query, shape: Representation) -> AsyncIterator[bytes]:
        """Open a watch; its lines as they come. Raises `StatusError` before the first line for bad options."""
        initial = query.get("sendInitialEvents")
        bookmarks = is_true(query.get("allowWatchBookmarks"))
        version = query.get("resourceVersion", "")
        match = query.get("resourceVersionMatch", "")
        faults = Faults()
        if initial is not None and match != "NotOlderThan":
            faults.forbidden(
                "resourceVersionMatch", "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
            )
            if match:
                faults.not_supported("resourceVersionMatch", match, ("NotOlderThan",))
        elif initial is None and match:
            faults.forbidden(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            )
        elif initial is None and query.get("continue") and not version:
            faults.forbidden("resourceVersionMatch", "resourceVersionMatch is forbidden when continue is provided")
        if faults.errors:
            raise invalid("meta.k8s.io", "ListOptions", "", faults.errors)
        since = _watch_version(version)
        seconds = _number(query, "timeoutSeconds") or WATCH_SECONDS
        start = self._store.published
        wants_initial = is_true(initial) if initial is not None else since is None
        try:
            watcher = self._store.watch(type_.storage_key, start if wants_initial or since is None else since)
        except TooOld:
            error = expired(f"too old resource version: {since} ({self._store.oldest(type_.storage_key) + 1})")
            return _one_line({"type": "ERROR", "object": error.status()})
        present = self._store.list_at(type_.storage_key, start, wanted.namespace) if wants_initial else None
        marks_end = is_true(initial) and bookmarks
        return _Lines(
            self._events(_Watch(type_, wanted, shape, watcher, present, start, marks_end, bookmarks, seconds)), watcher
        )

    async def _events(self, watch: _Watch) -> AsyncGenerator[bytes, None]:
        try:
            headers = True
            if watch.initial is not None:
                view = await stored_form.view(watch.type_, watch.initial)
                for key, stored in watch.initial:
                    obj = view(watch.type_, stored.data)
                    if watch.wanted.admits(key, obj):
                        yield encode_line("ADDED", watch.shape.one(watch.type_, obj, headers=headers))
                        headers = False
                if watch.mark_initial:
                    yield encode_line("BOOKMARK", self._bookmark(watch, watch.start, initial_end=True))
            last = watch.start
            now = self._clock.monotonic()
            ends, bookmark_due = now + watch.seconds, now + BOOKMARK_SECONDS
            while True:
                now = self._clock.monotonic()
                wait = min(ends, bookmark_due) - now
                if watch.watcher.overflowed:
                    too_slow = expired("the watch was too slow to read its events; list again")
                    yield encode_line("ERROR", too_slow.status())
                    return
                event = watch.watcher.pop()
                if event is None:
                    if wait > 0 and await watch.watcher.wait(wait):
                        continue
                    if watch.bookmarks:
                        yield encode_line("BOOKMARK", self._bookmark(watch, max(last, self._store.published)))
                    if self._clock.monotonic() >= ends:
                        return
                    bookmark_due = self._clock.monotonic() + BOOKMARK_SECONDS
                    continue
                last = event.version
                if watch.type_.conversion is not None:
                    await self._lines.convert(watch.wanted, event)
                line = self._lines.line(watch.wanted, watch.shape, event, headers=headers)
                if line is not None:
                    headers = False
                    yield line
        except StatusError as error:  # what a webhook could not convert
            yield encode_line("ERROR", error.status())
        finally:
            watch.watcher.close()

    def _bookmark(self, watch: _Watch, version: int, *, initial_end: bool = False) -> Object:
        metadata: Object = {"resourceVersion": str(version)}
        if not watch.type_.custom:
            metadata["creationTimestamp"] = None
        if initial_end:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        resource = watch.type_.resource
        obj: Object = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}
        if watch.type_.schema is not None and not watch.type_.custom:  # a Go struct is never left out
            obj |= {field: {} for field in ("spec", "status") if field in watch.type_.schema.properties}
        return watch.shape.one(watch.type_, obj) if watch.shape.kind == "PartialObjectMetadata" else obj


@dataclass(frozen=True)
class _Watch:
    type_: ResourceType
    wanted: Filter
    shape: Representation
    watcher: Watcher
    initial: Listing | None
    start: int
    mark_initial: bool
    bookmarks: bool
    seconds: float


class _Lines:
    """The lines of a watch. Closing it ends the watch even if nobody ever asked for a line."""

    def __init__(self, lines: AsyncGenerator[bytes, None], watcher: Watcher) -> None:
        self._lines = lines
        self._watcher = watcher

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        return await anext(self._lines)

    async def aclose(self) -> None:
        """End the watch."""
        self._watcher.close()
        await self._lines.aclose()


async def _one_line(event: Object) -> AsyncIterator[bytes]:
    yield msgspec.json.encode(event) + b"\n"


def _is_wanted(key: Key, after: Key | None, wanted: Filter) -> bool:
    return (after is None or key > after) and (not wanted.name or key.name == wanted.name)


def _number(query: Query, name: str) -> int:
    text = query.get(name, "")
    if not text:
        return 0
    try:
        return max(0, int(text))
    except ValueError:
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None


def _version(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = -1
    if number < 0:
        why = f'resourceVersion: Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax'
        raise bad_request(f"invalid resource version: {why}")
    return number


def _watch_version(text: str) -> int | None:
    """The version to watch from; None for any. What is no number is a 500 in kube-apiserver too."""
    if text in ("", "0"):
        return None
    if not text.isdecimal():
        why = f'resourceVersion: Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax'
        raise StatusError(500, "", why)
    return int(text)


def _token(version: int, key: Key) -> str:
    data = msgspec.json.encode((version, key.namespace, key.name))
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
