"""Routers that are going: they go on for a moment, until nobody sends new connections, then close their doors and drain.

A Pod that is being deleted leaves its Service's endpoints while clients and proxies still hear of it; until they have, it takes
what comes. Then its listeners go: Envoy tells every client on the way out (`connection: close`, GOAWAY). The Pod's preStop hook
waits for all of it. `Departures.run` owns the timer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sandlane.kube.clock import Clock
from sandlane.world.records import Pod


class Departures:
    """Says of a router that is being deleted whether its doors are closed; calls `tell` with its namespace when they are."""

    def __init__(self, clock: Clock, settle: float, tell: Callable[[str], None]) -> None:
        self._clock = clock
        self._settle = settle
        self._tell = tell
        self._due: dict[str, tuple[float, str]] = {}  # Pod uid -> when, namespace
        self._changed = asyncio.Event()

    def closed(self, pod: Pod) -> bool:
        """Whether it is to have no listeners any more. The time runs from the first question after it was deleted."""
        if not pod.metadata.deleting:
            return False
        now = self._clock.monotonic()
        if pod.metadata.uid not in self._due:
            self._due[pod.metadata.uid] = (now + self._settle, pod.metadata.namespace)
            self._changed.set()
        return self._due[pod.metadata.uid][0] <= now

    def forget(self, gone: set[str]) -> None:
        """These Pods (by uid) are gone."""
        for uid in gone:
            self._due.pop(uid, None)

    async def run(self) -> None:
        """Tell when it is time, until cancelled."""
        told: set[str] = set()
        while True:
            told &= self._due.keys()
            waiting = sorted((due, uid, namespace) for uid, (due, namespace) in self._due.items() if uid not in told)
            if not waiting:
                self._changed.clear()
                await self._changed.wait()
                continue
            due, uid, namespace = waiting[0]  # all wait equally long: the next one to come is due later
            await self._clock.sleep(due - self._clock.monotonic())
            told.add(uid)
            self._tell(namespace)
