"""The route table: one frozen value from which Envoy's configuration, `explain` and status are derived. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import NamedTuple

import msgspec

from sandlane.routing.overrides import NO_OVERRIDES, Overrides
from sandlane.routing.overrides import Backend as Backend
from sandlane.routing.overrides import Override as Override
from sandlane.routing.overrides import RoutingKey as RoutingKey
from sandlane.routing.overrides import ServiceBackend as ServiceBackend
from sandlane.routing.overrides import TunnelBackend as TunnelBackend


class Door(NamedTuple):
    """What clients dial: a Service port."""

    namespace: str
    service: str
    port: int

    def __str__(self) -> str:
        return f"{self.namespace}/{self.service}:{self.port}"


class FrontDoor(msgspec.Struct, frozen=True, dict=True):
    """One Service port that goes through the router. `listener` is the router's port for it."""

    door: Door
    listener: int
    protocol: str
    """http | tcp | udp | sniff"""
    baseline: ServiceBackend
    overrides: Overrides = NO_OVERRIDES
    sticky: bool = False
    """Requests of one client address stay at one endpoint (the Service's sessionAffinity)."""
    edge: bool = False
    """Requests come from outside: their routing keys are taken off and do not count."""

    @cached_property
    def digest(self) -> bytes:
        """A hash of the content."""
        fields = (self.door, self.listener, self.protocol, self.baseline, self.sticky, self.edge)
        return hashlib.sha256(msgspec.json.encode(fields) + self.overrides.digest).digest()


class Fronts(Mapping[Door, FrontDoor]):
    """The front doors of one namespace. Immutable; two with the same content are equal."""

    def __init__(self, fronts: Mapping[Door, FrontDoor] | None = None) -> None:
        self._fronts = dict(fronts or {})

    def changed(self, changes: Mapping[Door, FrontDoor | None]) -> Fronts:
        """These with some set, or taken out where the change is None."""
        made = Fronts(self._fronts)
        for door, front in changes.items():
            if front is None:
                made._fronts.pop(door, None)
            else:
                made._fronts[door] = front
        return made

    @cached_property
    def digest(self) -> str:
        """A hash of the content, the same on every replica: what the routers of the namespace answer when they serve it."""
        found = hashlib.sha256()
        for door in sorted(self._fronts):
            found.update(self._fronts[door].digest)
        return found.hexdigest()[:16]

    def __getitem__(self, door: Door) -> FrontDoor:
        return self._fronts[door]

    def __iter__(self) -> Iterator[Door]:
        return iter(self._fronts)

    def __len__(self) -> int:
        return len(self._fronts)


NO_FRONTS = Fronts()


class _Doors(Mapping[Door, FrontDoor]):
    """The doors of all namespaces, as one mapping."""

    def __init__(self, namespaces: Mapping[str, Fronts]) -> None:
        self._namespaces = namespaces

    def __getitem__(self, door: Door) -> FrontDoor:
        return self._namespaces[door.namespace][door]

    def __iter__(self) -> Iterator[Door]:
        for fronts in self._namespaces.values():
            yield from fronts

    def __len__(self) -> int:
        return sum(map(len, self._namespaces.values()))


class RouteTable(msgspec.Struct, frozen=True, dict=True):
    """All front doors, by namespace; a namespace without doors is not there."""

    namespaces: Mapping[str, Fronts] = {}

    @classmethod
    def of(cls, fronts: Iterable[FrontDoor]) -> RouteTable:
        """Made of its doors."""
        return cls().changed({front.door: front for front in fronts})

    def changed(self, changes: Mapping[Door, FrontDoor | None]) -> RouteTable:
        """This table with some doors set, or taken out where the change is None."""
        grouped: dict[str, dict[Door, FrontDoor | None]] = {}
        for door, front in changes.items():
            grouped.setdefault(door.namespace, {})[door] = front
        namespaces = dict(self.namespaces)
        for namespace, some in grouped.items():
            fronts = self.fronts(namespace).changed(some)
            if fronts:
                namespaces[namespace] = fronts
            else:
                namespaces.pop(namespace, None)
        return RouteTable(namespaces)

    @property
    def doors(self) -> Mapping[Door, FrontDoor]:
        """All front doors by what clients dial."""
        return _Doors(self.namespaces)

    def fronts(self, namespace: str) -> Fronts:
        """The doors of one namespace."""
        return self.namespaces.get(namespace, NO_FRONTS)

    @cached_property
    def digest(self) -> str:
        """A hash of the content, the same on every replica. `fronts(namespace).digest` is that of one namespace."""
        found = hashlib.sha256()
        for namespace in sorted(self.namespaces):
            found.update(f"{namespace} {self.namespaces[namespace].digest}\n".encode())
        return found.hexdigest()[:16]
