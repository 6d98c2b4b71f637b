"""The overrides of one front door: an immutable mapping by routing key in a fixed number of pieces.

A change copies one piece and shares the others, so that what a change costs (here, in the digest, and in what routers are sent)
hardly depends on how many sandboxes there are.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property

import msgspec

from sandlane.api.types import OnDisconnect
from sandlane.kube.resource import Key

SHARDS = 64
"""More make a change smaller, and a request dearer: each shard's routes are one more thing to fetch into the processor's cache."""
RoutingKey = str


def shard_of(key: RoutingKey) -> int:
    """The shard of a key, 0 to `SHARDS` - 1; the routers' filter computes the same."""
    number = 0
    for byte in key.encode():
        number = (number * 31 + byte) % SHARDS
    return number


class ServiceBackend(msgspec.Struct, frozen=True, tag="service"):
    """A Service's port; its ready endpoints take the requests."""

    namespace: str
    service: str
    port: int

    @property
    def name(self) -> str:
        """Its name as a cluster of Envoy."""
        return f"{self.namespace}/{self.service}/{self.port}"

    @property
    def key(self) -> Key:
        """The Service."""
        return Key(self.namespace, self.service)


class TunnelBackend(msgspec.Struct, frozen=True, tag="tunnel"):
    """A container port of the baseline, answered by a laptop; `connected` as the data plane reports it."""

    namespace: str
    local_workload: str
    identity: str
    port: int
    connected: bool = False

    @property
    def name(self) -> str:
        """Its name as a cluster of Envoy."""
        return f"{self.namespace}/local/{self.local_workload}"


Backend = ServiceBackend | TunnelBackend


class Override(msgspec.Struct, frozen=True):
    """Where one key's requests go. `via` names the Sandbox or RouteGroup whose key it is."""

    backend: Backend
    sandbox: str
    via: str
    workload: str = ""
    on_disconnect: OnDisconnect = OnDisconnect.FAIL
    hold_seconds: int = 10
    whole: bool = False
    """It also takes all connections that carry no key, because they are not HTTP."""


class Piece:
    """The overrides of one shard."""

    def __init__(self, entries: dict[RoutingKey, Override]) -> None:
        self.entries = entries
        self.whole = [(key, override) for key, override in entries.items() if override.whole]

    @cached_property
    def digest(self) -> bytes:
        """A hash of the content."""
        return hashlib.sha256(msgspec.json.encode([(key, self.entries[key]) for key in sorted(self.entries)])).digest()


_NOTHING = Piece({})
_SERIALS = itertools.count(1)


class Overrides(Mapping[RoutingKey, Override]):
    """Overrides by routing key. Two with the same content are equal."""

    def __init__(self, pieces: Mapping[int, Piece] | None = None) -> None:
        self._pieces = dict(pieces or {})
        self._serial = next(_SERIALS)
        self._made_of = 0  # the serial of those it was made of, and where it differs from them
        self._touched: Iterable[int] = ()

    @classmethod
    def of(cls, entries: Mapping[RoutingKey, Override]) -> Overrides:
        """Made of a plain mapping."""
        return NO_OVERRIDES.changed(entries)

    @cached_property
    def whole(self) -> tuple[RoutingKey, Override] | None:
        """The one that takes whole connections: the first by name, if there are several."""
        found = [each for piece in self._pieces.values() for each in piece.whole]
        return min(found, key=lambda each: (each[1].sandbox, each[1].workload, each[0]), default=None)

    @cached_property
    def only_whole(self) -> Overrides:
        """That one alone."""
        return Overrides.of(dict([self.whole])) if self.whole is not None else NO_OVERRIDES

    def changed(self, changes: Mapping[RoutingKey, Override | None]) -> Overrides:
        """These with some set, or taken out where the change is None."""
        fresh: dict[int, dict[RoutingKey, Override]] = {}
        for key, override in changes.items():
            shard = shard_of(key)
            entries = fresh.get(shard)
            if entries is None:
                entries = fresh[shard] = dict(self.piece(shard).entries)
            if override is None:
                entries.pop(key, None)
            else:
                entries[key] = override
        made = Overrides(self._pieces)
        made._made_of, made._touched = self._serial, fresh.keys()
        for shard, entries in fresh.items():
            if entries:
                made._pieces[shard] = Piece(entries)
            else:
                made._pieces.pop(shard, None)
        return made

    def piece(self, shard: int) -> Piece:
        """The overrides of one shard."""
        return self._pieces.get(shard, _NOTHING)

    def differences(self, before: Overrides) -> Iterator[tuple[RoutingKey, Override | None]]:
        """What `before` lacks, has otherwise, or (None) has too much. Pieces that both share cost (next to) nothing."""
        next_to = self._made_of == before._serial
        for shard in self._touched if next_to else self._pieces.keys() | before._pieces.keys():
            mine, other = self.piece(shard), before.piece(shard)
            if mine is other:
                continue
            for key, override in mine.entries.items():
                if other.entries.get(key) != override:
                    yield key, override
            for key in other.entries.keys() - mine.entries.keys():
                yield key, None

    @cached_property
    def digest(self) -> bytes:
        """A hash of the content; only pieces that are new are looked at."""
        return hashlib.sha256(b"".join([self._pieces[shard].digest for shard in sorted(self._pieces)])).digest()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Overrides):
            return super().__eq__(other)
        return self is other or not any(True for _ in self.differences(other))

    __hash__ = None  # type: ignore[assignment]

    def __getitem__(self, key: RoutingKey) -> Override:
        return self.piece(shard_of(key)).entries[key]

    def __iter__(self) -> Iterator[RoutingKey]:
        for piece in self._pieces.values():
            yield from piece.entries

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def __len__(self) -> int:
        return sum(len(piece.entries) for piece in self._pieces.values())

    def __repr__(self) -> str:
        return f"Overrides({dict(self)})"


NO_OVERRIDES = Overrides()
