"""What an informer knows: records in a `Store`, merged from lists, events and writes of our own, whatever their order.

Nothing older ever replaces something newer, a delete is remembered for as long as late news of the object may come, and
a whole list tells what is gone. No I/O.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec
import structlog

from sandlane.kube.resource import Key, Resource
from sandlane.kube.store import Record, Store

log = structlog.get_logger(__name__)

R = TypeVar("R", bound=Record)

TOMBSTONES = 4096
"""Deleted objects that are remembered."""


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


Handler = Callable[[Change[Any]], None]


class Known(Generic[R]):
    """The records of one kind. `newest` is the highest resourceVersion met."""

    def __init__(self, resource: Resource) -> None:
        self.store: Store[R] = Store()
        self.newest = 0
        self._resource = resource
        self._handlers: list[Handler] = []
        self._tombstones: OrderedDict[Key, str] = OrderedDict()

    def add_handler(self, handler: Handler) -> None:
        """Call `handler` for every change from now on, and at once for what is there already."""
        for record in list(self.store):
            handler(Change(None, record, initial=True))
        self._handlers.append(handler)

    def complete(self, namespace: str | None, present: set[Key], version: str, *, force: bool = False) -> None:
        """A whole list at `version` has been put in: what it does not hold is gone."""
        for record in list(self.store.namespace(namespace) if namespace else self.store):
            key, held = record.metadata.key, record.metadata.resource_version
            # A write of ours may be newer than the list; only what the list could have seen is gone.
            if key not in present and (force or number(held) <= number(version)):
                self.remove(key, version, force=force)
        self.newest = number(version) if force else max(self.newest, number(version))

    def back_in_time(self, known_before: int, version: str) -> bool:
        """Whether a consistent list is older than what was known before it began: the server was restored."""
        if not 0 < number(version) < known_before:
            return False
        log.warning("server_went_back", resource=self._resource.plural, known=known_before, listed=version)
        self._tombstones.clear()
        return True

    def put(self, record: R, *, initial: bool = False, force: bool = False) -> None:
        """Take a record in, unless something newer is known of it. `force`: whatever is known."""
        key, version = record.metadata.key, record.metadata.resource_version
        held = self.store.get(key)
        if held is not None and held.metadata.resource_version == version:
            return
        if not force and (
            (held is not None and not _newer(version, held.metadata.resource_version))
            or (key in self._tombstones and not _newer(version, self._tombstones[key]))
        ):
            return
        self.newest = max(self.newest, number(version))
        old = self.store.set(record)
        self._notify(Change(old, record, initial=initial))

    def remove(self, key: Key, version: str, *, force: bool = False) -> None:
        """An object was deleted at a version, unless a newer one of its name is known."""
        held = self.store.get(key)
        if held is not None and not force and _newer(held.metadata.resource_version, version):
            return
        self.newest = max(self.newest, number(version))
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


def number(version: str) -> int:
    """A resourceVersion as a number (KEP-5504: they are comparable integers per resource); 0 for what is none."""
    return int(version) if version.isdigit() else 0


def _newer(version: str, than: str) -> bool:
    if version.isdigit() and than.isdigit():
        return int(version) > int(than)
    return version != than
