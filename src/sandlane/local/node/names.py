"""Keeps the hosts files of Pods in line with the Services: written once at a Pod's start, then in place at changes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from sandlane.kube.cache import Cache, Informer
from sandlane.kube.clock import Clock
from sandlane.kube.resource import ENDPOINT_SLICES, SERVICES, Object
from sandlane.kube.unstructured import Unstructured
from sandlane.local.node.hosts import hosts_file, service_lines

GATHER = 0.02
"""Seconds to wait for more changes before files are written again."""


class HostsFiles:
    """Writes hosts files. `run` is one task; `pods` gives (Pod, address, folder) of all that have one."""

    def __init__(self, cache: Cache, clock: Clock, pods: Callable[[], Iterable[tuple[Object, str, Path]]]) -> None:
        self._services: Informer[Unstructured] = cache.informer(SERVICES)
        self._slices: Informer[Unstructured] = cache.informer(ENDPOINT_SLICES)
        self._clock = clock
        self._pods = pods
        self._lines: dict[str, list[tuple[str, str]]] | None = None
        self._changed = asyncio.Event()
        self._services.add_handler(lambda change: self._changed.set())
        self._slices.add_handler(lambda change: self._changed.set())

    async def run(self) -> None:
        """Write files again when Services change, until cancelled."""
        while True:
            await self._changed.wait()
            await self._clock.sleep(GATHER)
            self._changed.clear()
            lines = self._read()
            if lines == self._lines:
                continue
            self._lines = lines
            for pod, address, folder in self._pods():
                self.write(pod, address, folder)

    def write(self, pod: Object, address: str, folder: Path) -> Path:
        """One Pod's file, up to date; the same file stays, because it is what is mounted."""
        lines = self._read() if self._lines is None or self._changed.is_set() else self._lines
        path = folder / "hosts"
        content = hosts_file(pod, address, lines).encode()
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if os.pread(fd, len(content) + 1, 0) != content:
                os.pwrite(fd, content, 0)
                os.ftruncate(fd, len(content))
        finally:
            os.close(fd)
        return path

    def _read(self) -> dict[str, list[tuple[str, str]]]:
        services = [record.object() for record in self._services.store]
        headless = {
            (each["metadata"]["namespace"], each["metadata"]["name"])
            for each in services
            if each["spec"].get("clusterIP") == "None"
        }
        slices = []
        for record in self._slices.store:
            name = record.metadata.labels.get("kubernetes.io/service-name", "")
            if (record.metadata.namespace, name) in headless:
                slices.append(record.object())
        return service_lines(services, slices)
