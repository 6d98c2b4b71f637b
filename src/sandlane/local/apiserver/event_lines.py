"""Events of the store as lines of watches. What watches have in common is decoded and encoded once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from sandlane.kube.resource import Object
from sandlane.local.apiserver import stored_form
from sandlane.local.apiserver.representation import Representation
from sandlane.local.apiserver.resource_type import ResourceType
from sandlane.local.apiserver.store.objects import Event

if TYPE_CHECKING:
    from sandlane.local.apiserver.reader import Filter

KEPT = 256
"""Events that are kept in decoded form, for watches that are at different places."""
MAX_KEPT_BYTES = 64 * 1024


class _Shared:
    """One event as one served version shows it. Treat its objects as frozen."""

    def __init__(self, event: Event, type_: ResourceType) -> None:
        self._event = event
        self.type_ = type_
        self._converting = asyncio.Lock()
        self._objects: dict[str, Object] = {}
        self._lines: dict[str, bytes] = {}

    async def convert(self) -> None:
        """Ask a webhook for both states, once for all watches. Raises `StatusError`."""
        async with self._converting:
            sides = [side for side in ("before", "after", "last") if getattr(self._event, side) is not None]
            if not self._objects:
                shown = await stored_form.show(self.type_, *(getattr(self._event, side) for side in sides))
                self._objects.update(zip(sides, shown, strict=True))

    def object(self, side: str) -> Object:
        """The object `before`, `after` or `last`."""
        found = self._objects.get(side)
        if found is None:
            found = self._objects[side] = stored_form.decode(self.type_, getattr(self._event, side))
        return found

    def line(self, kind: str, side: str) -> bytes:
        """The line that shows a side whole."""
        found = self._lines.get(kind)
        if found is None:
            if self.type_.from_storage is None:
                found = b'{"type":"' + kind.encode() + b'","object":' + getattr(self._event, side) + b"}\n"
            else:
                found = encode_line(kind, self.object(side))
            self._lines[kind] = found
        return found


class EventLines:
    """Makes the lines of one server's watches."""

    def __init__(self) -> None:
        self._recent: dict[tuple[int, str], _Shared] = {}

    async def convert(self, wanted: Filter, event: Event) -> None:
        """To be awaited before `line` where a webhook converts versions. Raises `StatusError`."""
        shared = self._shared(event, wanted.type_)
        await shared.convert()
        self._recent[event.version, wanted.type_.resource.api_version] = shared

    def line(self, wanted: Filter, shape: Representation, event: Event, *, headers: bool) -> bytes | None:
        """The line that a change is for a watch, or None. An object that enters or leaves the selection comes or goes.

        `headers`: a Table has its column definitions.
        """
        if wanted.namespace is not None and event.key.namespace != wanted.namespace:
            return None
        if wanted.name and event.key.name != wanted.name:
            return None
        shared = self._shared(event, wanted.type_)
        plain = not wanted.labels and not wanted.fields
        was = event.before is not None and (plain or wanted.admits(event.key, shared.object("before")))
        if event.after is None:
            if not was:
                return None
            kind, side = "DELETED", "last"
        else:
            is_ = plain or wanted.admits(event.key, shared.object("after"))
            if not is_ and not was:
                return None
            kind, side = ("MODIFIED" if was else "ADDED", "after") if is_ else ("DELETED", "before")
        if side == "before":  # it has left: shown as it was, at the version of the change
            obj = shared.object("before")
            obj = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(event.version)}}
            return encode_line(kind, shape.one(wanted.type_, obj, headers=headers))
        if not shape.kind:
            return shared.line(kind, side)
        return encode_line(kind, shape.one(wanted.type_, shared.object(side), headers=headers))

    def _shared(self, event: Event, type_: ResourceType) -> _Shared:
        key = event.version, type_.resource.api_version
        found = self._recent.get(key)
        if found is None or found.type_ is not type_:
            found = _Shared(event, type_)
            if event.size <= MAX_KEPT_BYTES:
                while len(self._recent) >= KEPT:
                    del self._recent[next(iter(self._recent))]
                self._recent[key] = found
        return found


def encode_line(kind: str, obj: Object) -> bytes:
    """A watch event as a line."""
    return msgspec.json.encode({"type": kind, "object": obj}) + b"\n"
