"""Keeps the Service proxy's configuration up to date: cached Services and EndpointSlices in, Envoy resources out.

`ServiceProxy.run` is one task; changes that arrive together are published together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import structlog

from sandlane.kube.cache import Cache, Change, Informer
from sandlane.kube.resource import ENDPOINT_SLICES, SERVICES, Key
from sandlane.kube.unstructured import Unstructured
from sandlane.local.proxy.translate import SERVICE_NAME, EndpointSlice, Resources, Service, merge, translate

log = structlog.get_logger(__name__)

_BY_SERVICE = "service"
_service = msgspec.json.Decoder(Service)
_slice = msgspec.json.Decoder(EndpointSlice)


class ServiceProxy:
    """Translates what changed and publishes the whole."""

    def __init__(self, cache: Cache, publish: Callable[[Resources], None], first_port: int) -> None:
        self._publish = publish
        self._first_port = first_port
        self._parts: dict[Key, Resources] = {}
        self._changed: set[Key] = set()
        self._wake = asyncio.Event()
        self._services: Informer[Unstructured] = cache.informer(SERVICES)
        self._slices: Informer[Unstructured] = cache.informer(ENDPOINT_SLICES)
        self._slices.store.add_index(_BY_SERVICE, _service_name)
        self._services.add_handler(self._service_changed)
        self._slices.add_handler(self._slice_changed)

    def _service_changed(self, change: Change[Unstructured]) -> None:
        self._mark(change.key)

    def _slice_changed(self, change: Change[Unstructured]) -> None:
        for record in (change.old, change.new):
            if record is not None:
                for text in _service_name(record):
                    self._mark(Key(*text.split("/", 1)))

    def _mark(self, key: Key) -> None:
        self._changed.add(key)
        self._wake.set()

    async def run(self) -> None:
        """Publish until cancelled. Nothing is published before everything is known."""
        await self._services.synced.wait()
        await self._slices.synced.wait()
        while True:
            self._wake.clear()
            changed, self._changed = self._changed, set()
            self._translate(changed)
            self._publish(merge(self._parts.values()))
            await self._wake.wait()

    def _translate(self, keys: set[Key]) -> None:
        for key in keys:
            record = self._services.store.get(key)
            if record is None:
                self._parts.pop(key, None)
                continue
            try:
                service = _service.decode(record.raw)
                slices = [_slice.decode(s.raw) for s in self._slices.store.by_index(_BY_SERVICE, str(key))]
            except msgspec.DecodeError as error:  # one odd object must not stop the others
                log.error("service_not_translated", service=str(key), error=str(error))
                continue
            self._parts[key] = translate(service, slices, self._first_port)


def _service_name(record: Unstructured) -> list[str]:
    name = record.metadata.labels.get(SERVICE_NAME)
    return [f"{record.metadata.namespace}/{name}"] if name else []
