"""All informers of a process, one per kind and selector, shared by everything that reads.

`Cache.run` owns their tasks, in its TaskGroup; cancelling it ends them.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, overload

from sandlane.kube.client import Client, Random
from sandlane.kube.clock import Clock, within
from sandlane.kube.informer import SILENCE as SILENCE
from sandlane.kube.informer import Change as Change
from sandlane.kube.informer import Informer as Informer
from sandlane.kube.metadata import ObjectMeta
from sandlane.kube.resource import Key, Object, Resource
from sandlane.kube.store import Record
from sandlane.kube.unstructured import Unstructured

R = TypeVar("R", bound=Record)


class Cache:
    """Informers by kind. `tune_collector`: this process is ours, so its garbage collector may be adjusted to it."""

    def __init__(
        self,
        client: Client,
        *,
        clock: Clock,
        rng: Random,
        namespaces: Iterable[str] = (),
        streaming: bool = True,
    ) -> None:
        self.client = client
        self.clock = clock
        self.rng = rng
        self.tune_collector = False
        self._streaming = streaming
        self._namespaces = tuple(namespaces)
        self._informers: dict[tuple[Resource, str, str], Informer[Any]] = {}
        self._tasks: asyncio.TaskGroup | None = None

    @overload
    def informer(
        self,
        resource: Resource,
        *,
        namespaces: Iterable[str] | None = None,
        label_selector: str = "",
        field_selector: str = "",
        transform: Callable[[Unstructured], Unstructured] | None = None,
    ) -> Informer[Unstructured]: ...

    @overload
    def informer(
        self,
        resource: Resource,
        record_type: type[R],
        *,
        namespaces: Iterable[str] | None = None,
        label_selector: str = "",
        field_selector: str = "",
        transform: Callable[[R], R] | None = None,
    ) -> Informer[R]: ...

    def informer(
        self,
        resource: Resource,
        record_type: type[Any] = Unstructured,
        *,
        namespaces: Iterable[str] | None = None,
        label_selector: str = "",
        field_selector: str = "",
        transform: Callable[[Any], Any] | None = None,
    ) -> Informer[Any]:
        """The informer of a kind, made at the first call. Raises `ValueError` when it exists with another record type.

        `transform` changes each record before it is kept. An informer that is asked for after `run` started has to be
        started by `start`.
        """
        key = (resource, label_selector, field_selector)
        found = self._informers.get(key)
        if found is None:
            chosen = tuple(self._namespaces if namespaces is None else namespaces) if resource.namespaced else ()
            found = self._informers[key] = Informer(
                self.client,
                resource,
                record_type,
                clock=self.clock,
                rng=self.rng,
                namespaces=chosen,
                label_selector=label_selector,
                field_selector=field_selector,
                transform=transform,
                streaming=self._streaming,
            )
        elif found.record_type is not record_type:
            raise ValueError(f"{resource.plural} are cached as {found.record_type.__name__} already")
        return found

    def informers(self) -> list[Informer[Any]]:
        """All of them."""
        return list(self._informers.values())

    async def run(self) -> None:
        """Watch until cancelled."""
        tuned = self.tune_collector
        if tuned:
            gc.disable()
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                for informer in self.informers():
                    await informer.run(tasks)
                if tuned:
                    await self._freeze_when_synced()
                await asyncio.get_running_loop().create_future()
        finally:
            self._tasks = None
            if tuned:
                gc.enable()

    async def start(self, informer: Informer[Any]) -> None:
        """Start an informer that was made after `run` had begun."""
        if self._tasks is not None:
            await informer.run(self._tasks)

    async def wait_synced(self, timeout: float = 60.0) -> None:
        """Return once every informer has its first list. Raises `TimeoutError` that names those that have not."""
        try:
            for informer in self.informers():
                await within(self.clock, timeout, informer.synced.wait())
        except TimeoutError:
            late = sorted(informer.resource.plural for informer in self.informers() if not informer.synced.is_set())
            raise TimeoutError(f"no list within {timeout:.0f} s of: {', '.join(late)}") from None

    async def wait_for(self, resource: Resource, key: Key, resource_version: str, *, timeout: float = 10.0) -> None:
        """Return once the cache of a kind is at least as new as a write. Raises `TimeoutError`."""
        for (kind, _, _), informer in self._informers.items():
            if kind == resource:
                known = informer.store.get(key)
                version = known.metadata.resource_version if known is not None else ""
                if not (version.isdigit() and resource_version.isdigit() and int(version) >= int(resource_version)):
                    await informer.wait_for(resource_version, namespace=key.namespace, timeout=timeout)

    def known(self, resource: Resource, key: Key) -> ObjectMeta | None:
        """The metadata of a cached object, whatever its record's type."""
        for (kind, _, _), informer in self._informers.items():
            if kind == resource and (record := informer.store.get(key)) is not None:
                metadata: ObjectMeta = record.metadata
                return metadata
        return None

    def observe(self, resource: Resource, obj: Object) -> None:
        """Take in what a write of ours answered, where the kind is cached."""
        for (kind, _, _), informer in self._informers.items():
            if kind == resource:
                informer.observe(obj)

    def observe_deleted(self, resource: Resource, key: Key) -> None:
        """Take in that a delete of ours succeeded."""
        for (kind, _, _), informer in self._informers.items():
            if kind == resource:
                informer.observe_deleted(key)

    async def _freeze_when_synced(self, timeout: float = 120.0) -> None:
        """The initial objects live as long as the process: collections need not look at them again."""
        try:
            await self.wait_synced(timeout)
        except TimeoutError:
            pass  # whoever waits for the cache reports it; collecting goes on
        gc.collect()
        gc.freeze()
        gc.enable()
