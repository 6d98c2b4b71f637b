"""The route table: one frozen value from which Envoy's configuration, `explain` and status are derived. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from sandlane.api.types import OnDisconnect
from sandlane.kube.resource import Key

RoutingKey = str


class Door(NamedTuple):
    """What clients dial: a Service port."""

    namespace: str
    service: str
    port: int

    def __str__(self) -> str:
        return f"{self.namespace}/{self.service}:{self.port}"


class ServiceBackend(msgspec.Struct, frozen=True, tag="service"):
    """A Service's port; its ready endpoints take the requests."""

    namespace: str
    service: str
    port: int

    @property
    def name(self) -> str:
        """Its name as a cluster of Envoy."""
        return f"{self.namespace}/{self.service}/{self.port}"


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


class FrontDoor(msgspec.Struct, frozen=True):
    """One Service port that goes through the router. `listener` is the router's port for it."""

    door: Door
    listener: int
    protocol: str
    """http | tcp | udp | sniff"""
    baseline: ServiceBackend
    overrides: Mapping[RoutingKey, Override] = {}


class RouteTable(msgspec.Struct, frozen=True):
    """All front doors, in order."""

    doors: Mapping[Door, FrontDoor] = {}

    @property
    def digest(self) -> str:
        """A hash of the content, the same on every replica."""
        return hashlib.sha256(msgspec.json.encode(self._plain(), order="deterministic")).hexdigest()[:16]

    def _plain(self) -> list[object]:
        return [msgspec.to_builtins(self.doors[door]) for door in sorted(self.doors)]

    def of_namespace(self, namespace: str) -> list[FrontDoor]:
        """The doors of one namespace, in order."""
        return [self.doors[door] for door in sorted(self.doors) if door.namespace == namespace]

    def of_sandbox(self, key: Key) -> dict[Door, Override]:
        """The routes to one sandbox under its own key."""
        via = f"Sandbox {key}"
        return {
            door: override
            for door, front in self.doors.items()
            for override in front.overrides.values()
            if override.via == via
        }
