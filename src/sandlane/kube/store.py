"""A container of records by key, with indexes. No I/O: informers fill it, plans and tests read it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Generic, Protocol, TypeVar

from sandlane.kube.metadata import ObjectMeta
from sandlane.kube.resource import Key


class Record(Protocol):
    """Anything that has metadata."""

    @property
    def metadata(self) -> ObjectMeta:
        """The object's metadata."""


R = TypeVar("R", bound=Record)
Indexer = Callable[[R], Iterable[str]]


class Store(Generic[R]):
    """Records of one kind. Reading gives what is known now; records are frozen and may be kept."""

    def __init__(self, records: Iterable[R] = ()) -> None:
        self._records: dict[Key, R] = {}
        self._by_namespace: dict[str, dict[Key, R]] = {}
        self._indexers: dict[str, Indexer[R]] = {}
        self._indexes: dict[str, dict[str, dict[Key, R]]] = {}
        for record in records:
            self.set(record)

    def get(self, key: Key) -> R | None:
        """The record with this key, or None."""
        return self._records.get(key)

    def add_index(self, name: str, indexer: Indexer[R]) -> None:
        """Find records by the values that `indexer` gives for each; existing records are indexed at once."""
        self._indexers[name] = indexer
        self._indexes[name] = {}
        for record in self._records.values():
            self._index(name, record)

    def by_index(self, name: str, value: str) -> list[R]:
        """Records that the index `name` has under `value`, in order of their keys. Raises `KeyError` without such an
        index."""
        found = self._indexes[name].get(value, {})
        return [found[key] for key in sorted(found)] if len(found) > 1 else list(found.values())

    def namespace(self, namespace: str) -> Iterable[R]:
        """The records of one namespace, in no order."""
        return self._by_namespace.get(namespace, {}).values()

    def keys(self) -> Iterable[Key]:
        """All keys."""
        return self._records.keys()

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[R]:
        return iter(self._records.values())

    def set(self, record: R) -> R | None:
        """Put a record in; gives the one it replaces."""
        key = record.metadata.key
        old = self.remove(key)
        self._records[key] = record
        self._by_namespace.setdefault(key.namespace, {})[key] = record
        for name in self._indexers:
            self._index(name, record)
        return old

    def remove(self, key: Key) -> R | None:
        """Take a record out and give it."""
        old = self._records.pop(key, None)
        if old is None:
            return None
        self._by_namespace[key.namespace].pop(key, None)
        if not self._by_namespace[key.namespace]:
            del self._by_namespace[key.namespace]
        for name, indexer in self._indexers.items():
            for value in indexer(old):
                held = self._indexes[name].get(value)
                if held is not None:
                    held.pop(key, None)
                    if not held:
                        del self._indexes[name][value]
        return old

    def _index(self, name: str, record: R) -> None:
        for value in self._indexers[name](record):
            self._indexes[name].setdefault(value, {})[record.metadata.key] = record

    def list(self, namespace: str | None = None) -> list[R]:
        """All records, or those of one namespace, in order of their keys."""
        chosen = self._records if namespace is None else self._by_namespace.get(namespace, {})
        return [chosen[key] for key in sorted(chosen)]
