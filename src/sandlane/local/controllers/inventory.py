"""Every object of every kind that the server has, custom ones included, by discovery and one watch per kind.

Garbage collection and namespace deletion need it. `Inventory.run` owns a task per kind that nobody else watches; a
kind that is no longer served loses its task, and its objects count as gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import structlog

from sandlane.kube.cache import Cache, Change, Informer
from sandlane.kube.client import Client, Random
from sandlane.kube.clock import Clock
from sandlane.kube.errors import KubeError
from sandlane.kube.metadata import ObjectMeta
from sandlane.kube.resource import CUSTOM_RESOURCE_DEFINITIONS, EVENTS, Resource
from sandlane.kube.store import Record
from sandlane.kube.transport import Request

log = structlog.get_logger(__name__)

RETRY_SECONDS = 1.0
_NEEDED = frozenset({"list", "watch", "delete"})
_UNWATCHED = frozenset({("", "events"), (EVENTS.group, EVENTS.plural)})  # many, and nobody's dependents


class Head(msgspec.Struct, frozen=True, gc=False):
    """Just the metadata of an object."""

    metadata: ObjectMeta


class _Entry(msgspec.Struct):
    name: str
    kind: str
    namespaced: bool = False
    verbs: tuple[str, ...] = ()


class _ResourceList(msgspec.Struct):
    resources: tuple[_Entry, ...] = ()


class _Version(msgspec.Struct):
    version: str


class _Group(msgspec.Struct, rename="camel"):
    name: str
    versions: tuple[_Version, ...] = ()
    preferred_version: _Version | None = None


class _GroupList(msgspec.Struct):
    groups: tuple[_Group, ...] = ()


@dataclass(frozen=True)
class Kind:
    """A served resource and what can be done with it."""

    resource: Resource
    verbs: frozenset[str]


Listener = Callable[[Resource, Change[Record]], None]


async def discover(client: Client) -> list[Kind]:
    """What the server serves, each resource in its preferred version."""
    groups = msgspec.json.decode((await client.request(Request("GET", "/apis"))).body, type=_GroupList).groups
    places = [("", "v1", "/api/v1")]
    for group in groups:
        preferred = group.preferred_version or group.versions[0]
        others = [v for v in group.versions if v.version != preferred.version]
        places += [(group.name, v.version, f"/apis/{group.name}/{v.version}") for v in (preferred, *others)]
    found: dict[tuple[str, str], Kind] = {}
    for group_name, version, path in places:
        body = (await client.request(Request("GET", path))).body
        for entry in msgspec.json.decode(body, type=_ResourceList).resources:
            if "/" not in entry.name:
                resource = Resource(group_name, version, entry.name, entry.kind, entry.namespaced)
                found.setdefault((group_name, entry.name), Kind(resource, frozenset(entry.verbs)))
    return list(found.values())


class Inventory:
    """The kinds and their objects. Listeners hear of every change."""

    def __init__(self, client: Client, cache: Cache, clock: Clock, rng: Random) -> None:
        self._client = client
        self._cache = cache
        self._clock = clock
        self._rng = rng
        self._listeners: list[Listener] = []
        self._kinds_listeners: list[Callable[[], None]] = []
        self._wake = asyncio.Event()
        self._watching: dict[Resource, asyncio.Task[None] | None] = {}
        self._own: dict[Resource, Informer[Head]] = {}
        self.kinds: list[Kind] = []
        self.complete = asyncio.Event()
        """Set once everything was discovered and listed for the first time."""

    def add_listener(self, listener: Listener) -> None:
        """Call `listener` for every object that is there, and for every change. Before `run`."""
        self._listeners.append(listener)

    def add_kinds_listener(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever other kinds are known, and their objects too. Before `run`."""
        self._kinds_listeners.append(listener)

    def find(self, api_version: str, kind: str) -> Resource | None:
        """The resource that an owner reference means; any version of the group will do."""
        group = api_version.rpartition("/")[0]
        for known in self.kinds:
            if known.resource.kind == kind and known.resource.group == group:
                return known.resource
        return None

    def resources(self) -> list[Resource]:
        """All that are watched."""
        return sorted(self._watching)

    def look_again(self, change: Change[Record] | None = None) -> None:
        """Discover anew: a custom kind came or went."""
        self._wake.set()

    def prepare(self) -> None:
        """Ask the shared cache for what tells of custom kinds. Before the cache runs."""
        self._cache.informer(CUSTOM_RESOURCE_DEFINITIONS).add_handler(self.look_again)

    async def run(self) -> None:
        """Discover and watch until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._wake.clear()
                try:
                    kinds = await discover(self._client)
                except KubeError as error:
                    log.warning("discovery_failed", error=str(error))
                    await self._clock.sleep(RETRY_SECONDS)
                    continue
                self._follow(tasks, kinds)
                listed = tasks.create_task(self._listed(list(self._own.values())), name="inventory is listed")
                await self._wake.wait()
                listed.cancel()

    async def _listed(self, informers: list[Informer[Head]]) -> None:
        """Say so when everything is listed. It must not hold up `run`: what goes before it is listed never is."""
        for informer in informers:
            await informer.synced.wait()
        self.complete.set()
        for listener in self._kinds_listeners:
            listener()

    def _follow(self, tasks: asyncio.TaskGroup, kinds: list[Kind]) -> None:
        self.kinds = kinds
        wanted = {
            kind.resource
            for kind in kinds
            if kind.verbs >= _NEEDED and (kind.resource.group, kind.resource.plural) not in _UNWATCHED
        }
        shared = {informer.resource: informer for informer in self._cache.informers()}
        for resource in sorted(wanted - self._watching.keys()):
            if resource in shared:
                shared[resource].add_handler(self._handler(resource))
                self._watching[resource] = None
                continue
            own = Cache(self._client, clock=self._clock, rng=self._rng)
            self._own[resource] = own.informer(resource, Head)
            self._own[resource].add_handler(self._handler(resource))
            self._watching[resource] = tasks.create_task(own.run(), name=f"inventory of {resource.plural}")
        for resource in [r for r in self._watching if r not in wanted]:
            task = self._watching[resource]
            if task is None:
                continue  # somebody else's watch
            task.cancel()
            del self._watching[resource]
            for record in list(self._own.pop(resource).store):
                self._tell(resource, Change(record, None))

    def _handler(self, resource: Resource) -> Callable[[Change[Record]], None]:
        return lambda change: self._tell(resource, change)

    def _tell(self, resource: Resource, change: Change[Record]) -> None:
        for listener in self._listeners:
            listener(resource, change)
