"""Which table each router serves, as the router itself answers on its port `READY_PORT`: what counts as programmed.

An ACK only says that a configuration was accepted, and a router is connected to one manager only; so every manager asks every
ready router, soon after each change and then less and less often until it answers the digest that is wanted. `Served.run` owns
all tasks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import aiohttp
import msgspec
import structlog

from sandlane.kube.clock import Clock, within
from sandlane.routing.envoy.digest import NOTHING, REFUSES_HEADER, Refuses, heard
from sandlane.routing.names import READY_PORT
from sandlane.world.records import Pod

log = structlog.get_logger(__name__)

Ask = Callable[[str], Awaitable[str]]
"""Gives the digest that the router at an address answers, and on a second line what it refuses. Raises `OSError` or `TimeoutError`."""
FIRST, LONGEST = 0.005, 1.0
"""Seconds until a router is asked, and until it is asked again at most."""
TIMEOUT = 2.0
RECHECK = 30.0
"""Seconds after which a router that was up to date is asked again."""


class Served:
    """Keeps asking routers that are behind. `routers` gives the ready ones of all namespaces, `wanted` a namespace's digest."""

    def __init__(
        self,
        clock: Clock,
        routers: Callable[[], Iterable[Pod]],
        wanted: Callable[[str], str],
        tell: Callable[[str], None],
        ask: Ask | None = None,
    ) -> None:
        self._clock = clock
        self._routers = routers
        self._wanted = wanted
        self._tell = tell
        self._ask = ask
        self._answers: dict[str, str] = {}  # Pod uid -> digest
        self._refuses: dict[str, Refuses] = {}  # Pod uid -> what it said last
        self._epochs: dict[str, int] = {}  # namespace -> how often its table has changed
        self._problems: dict[str, str] = {}  # Pod uid -> why it could not be asked
        self._following: dict[str, asyncio.Event] = {}  # Pod uid -> ask at once
        self._changed = asyncio.Event()

    def late(self, pod: Pod) -> str:
        """Why a router does not count as serving what is wanted; empty when it serves it."""
        uid, name, wanted = pod.metadata.uid, pod.metadata.name, self._wanted(pod.metadata.namespace)
        if wanted in (self._answers.get(uid), self.refuses(pod).but_for):
            return ""
        if problem := self._problems.get(uid):
            return f"router {name} cannot be asked at port {READY_PORT} what it serves: {problem}"
        return f"router {name} does not serve the last change yet"

    def refuses(self, pod: Pod) -> Refuses:
        """What a router refuses, as it has told through whichever manager it is connected to."""
        return self._refuses.get(pod.metadata.uid, NOTHING)

    def changed(self, namespace: str) -> None:
        """Another table is wanted now: what was answered before does not count."""
        self._epochs[namespace] = self._epochs.get(namespace, 0) + 1
        for pod in self._routers():
            if pod.metadata.namespace == namespace:
                self._answers.pop(pod.metadata.uid, None)
                if refuses := self._refuses.get(pod.metadata.uid):
                    self._refuses[pod.metadata.uid] = msgspec.structs.replace(refuses, but_for="")

    def look(self) -> None:
        """Something has changed: tables, routers, or what one of them has confirmed."""
        self._changed.set()
        for at_once in self._following.values():
            at_once.set()

    async def run(self) -> None:
        """Ask until cancelled."""
        if self._ask is not None:
            await self._run(self._ask)
        timeout = aiohttp.ClientTimeout(total=TIMEOUT)
        async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:

            async def ask(address: str) -> str:
                host = f"[{address}]" if ":" in address else address
                try:
                    async with session.get(f"http://{host}:{READY_PORT}/") as response:
                        digest = (await response.content.read(64)).decode("ascii", "replace")
                        return f"{digest}\n{response.headers.get(REFUSES_HEADER, '')}"
                except aiohttp.ClientError as error:
                    raise OSError(str(error)) from error

            await self._run(ask)

    async def _run(self, ask: Ask) -> None:
        async with asyncio.TaskGroup() as tasks:
            while True:
                try:
                    await within(self._clock, RECHECK, self._changed.wait())
                except TimeoutError:
                    self._answers.clear()
                self._changed.clear()
                ready = {pod.metadata.uid: pod for pod in self._routers()}
                for gone in (self._answers.keys() | self._refuses.keys()) - ready.keys():
                    self._answers.pop(gone, None)
                    self._refuses.pop(gone, None)
                for uid, pod in ready.items():
                    if uid not in self._following and self.late(pod):
                        self._following[uid] = asyncio.Event()
                        tasks.create_task(self._follow(uid, pod, ask), name=f"router {pod.metadata.name}")

    async def _follow(self, uid: str, pod: Pod, ask: Ask) -> None:
        """Ask one router until it serves what is wanted, or is not ready any more."""
        delay, namespace = FIRST, pod.metadata.namespace
        try:
            while any(each.metadata.uid == uid for each in self._routers()):
                at_once = self._following[uid]
                try:
                    await within(self._clock, delay, at_once.wait())
                    delay = FIRST
                except TimeoutError:
                    delay = min(2 * delay, LONGEST)
                at_once.clear()
                before, epoch = (self.late(pod), self.refuses(pod)), self._epochs.get(namespace)
                try:
                    answer, _, refuses = (await ask(pod.status.pod_ip)).partition("\n")
                    if epoch == self._epochs.get(namespace):
                        self._answers[uid], self._refuses[uid] = answer, heard(refuses)
                    self._problems.pop(uid, None)
                except (OSError, TimeoutError) as error:
                    self._answers.pop(uid, None)
                    self._problems[uid] = str(error) or type(error).__name__
                if (self.late(pod), self.refuses(pod)) != before:
                    self._tell(namespace)
                if not self.late(pod):
                    return
        finally:
            del self._following[uid]
            self._problems.pop(uid, None)
