"""An API server in trouble for a minute: everybody recovers, nothing is lost, and nobody hammers it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest

from sandlane.kube.apply import Applier
from sandlane.kube.cache import Cache
from sandlane.kube.client import Client
from sandlane.kube.errors import TransportError
from sandlane.kube.resource import CONFIG_MAPS, SECRETS, Object
from sandlane.kube.transport import Request, Response, Stream
from sandlane.runtime.controller import Controller
from sandlane.runtime.manager import Manager
from sandlane.runtime.options import ManagerOptions
from sandlane.runtime.owners import controller_reference
from sandlane.runtime.result import Request as Name
from sandlane.runtime.result import Result
from sandlane.testing.clock import ManualClock
from sandlane.testing.cluster import FakeCluster, InProcessTransport

SECONDS = 60
OBJECTS = 20
PER_SECOND = 8.0
"""Requests a second in the mean over the trouble, for two watched kinds and twenty objects; in peace it would be none."""

SLOW = 7.0

Trouble = Callable[[ManualClock, Request], Response | None]


def failure(code: int, **headers: str) -> Response:
    """An error answer."""
    body = msgspec.json.encode({"kind": "Status", "code": code, "reason": "Expired" if code == 410 else ""})
    return Response(code, tuple(headers.items()), body)


def away(clock: ManualClock, request: Request) -> Response | None:
    raise TransportError("away")


def flapping(clock: ManualClock, request: Request) -> Response | None:
    if int(clock.monotonic()) % 4 < 2:
        raise TransportError("away")
    return None


def busy(clock: ManualClock, request: Request) -> Response | None:
    return failure(429)


def busy_and_says_so(clock: ManualClock, request: Request) -> Response | None:
    return Response(429, (("retry-after", "5"),), failure(429).body)


def broken(clock: ManualClock, request: Request) -> Response | None:
    return failure(500)


def forgetful(clock: ManualClock, request: Request) -> Response | None:
    return failure(410) if request.method == "GET" else None


def a_proxy(clock: ManualClock, request: Request) -> Response | None:
    return Response(200, (("content-type", "text/html"),), b"<html>welcome</html>")


def logged_out(clock: ManualClock, request: Request) -> Response | None:
    return failure(401)


def slow(clock: ManualClock, request: Request) -> Response | None:
    """Each answer takes its time (`Line` sees to it)."""
    return None


def hanging(clock: ManualClock, request: Request) -> Response | None:
    """There is no answer for as long as it is waited for."""
    return None


def well(clock: ManualClock, request: Request) -> Response | None:
    return None


class Line:
    """A transport that can be in trouble; `cut` ends the watches that are open."""

    def __init__(self, cluster: FakeCluster, clock: ManualClock) -> None:
        self._inner = InProcessTransport(cluster.server)
        self._clock = clock
        self.trouble: Trouble = well
        self.closes_watches = False
        self.requests: list[Request] = []
        self._cut = asyncio.Event()

    def begin(self, trouble: Trouble) -> None:
        """From now on."""
        self.trouble = trouble
        self._cut.set()
        self._cut = asyncio.Event()

    async def send(self, request: Request, *, timeout: float) -> Response:
        """An answer, or trouble."""
        self.requests.append(request)
        await self._delay(timeout)
        return self.trouble(self._clock, request) or await self._inner.send(request, timeout=timeout)

    @asynccontextmanager
    async def stream(self, request: Request, *, timeout: float) -> AsyncIterator[Stream]:
        """A watch, or trouble."""
        self.requests.append(request)
        await self._delay(timeout)
        answer = self.trouble(self._clock, request)
        if answer is not None:
            yield Whole(answer)
            return
        async with self._inner.stream(request, timeout=timeout) as stream:
            yield Cuttable(stream, self._cut, ends=self.closes_watches)

    async def _delay(self, timeout: float) -> None:
        if self.trouble is slow:
            await self._clock.sleep(SLOW)
        elif self.trouble is hanging:
            await self._clock.sleep(timeout)
            raise TransportError("no answer in time")

    async def close(self) -> None:
        """Nothing to close."""


class Whole:
    """An answer as a stream."""

    def __init__(self, answer: Response) -> None:
        self.status, self.headers, self._body = answer.status, answer.headers, answer.body

    async def chunks(self) -> AsyncIterator[bytes]:
        """All at once."""
        yield self._body + b"\n"


class Cuttable:
    """A stream that breaks when trouble begins."""

    def __init__(self, inner: Stream, cut: asyncio.Event, *, ends: bool) -> None:
        self.status, self.headers = inner.status, inner.headers
        self._inner, self._cut, self._ends = inner, cut, ends

    async def chunks(self) -> AsyncIterator[bytes]:
        """Until it is cut."""
        if self._ends:
            return
        pieces = self._inner.chunks()
        while True:
            async with asyncio.TaskGroup() as tasks:
                piece = tasks.create_task(_next(pieces))
                cut = tasks.create_task(self._cut.wait())
                await asyncio.wait({piece, cut}, return_when=asyncio.FIRST_COMPLETED)
                piece.cancel()
                cut.cancel()
            if self._cut.is_set():
                raise TransportError("cut")
            if (found := piece.result()) is None:
                return
            yield found


async def _next(pieces: AsyncIterator[bytes]) -> bytes | None:
    return await anext(pieces, None)


class Copier:
    """Every ConfigMap of the namespace gets a Secret."""

    def __init__(self, manager: Manager) -> None:
        self._store = manager.cache.informer(CONFIG_MAPS).store
        self._applier = Applier(manager.client, manager.cache)
        Controller.managed_by(manager).for_(CONFIG_MAPS).owns(SECRETS).complete(self)

    async def reconcile(self, request: Name) -> Result:
        """Level-triggered."""
        record = self._store.get(request)
        if record is None or request.namespace != "d":
            return Result.done()
        data = (record.object().get("data") or {}).get("value", "")
        desired: Object = {
            "metadata": {
                "name": request.name,
                "namespace": "d",
                "labels": {"value": data},
                "ownerReferences": [controller_reference(CONFIG_MAPS, record.metadata)],
            }
        }
        await self._applier.ensure(SECRETS, desired, owner=record.metadata)
        return Result.done()


@pytest.mark.parametrize(
    "trouble",
    [away, flapping, slow, hanging, busy, busy_and_says_so, broken, forgetful, a_proxy, logged_out, "closes watches"],
)
async def test_a_minute_of_trouble(trouble: Trouble | str) -> None:
    """What changed meanwhile is done within two minutes after it, and the request rate stays bounded."""
    clock = ManualClock()
    async with FakeCluster(clock=clock) as cluster:
        await cluster.ensure_namespace("d")
        for n in range(OBJECTS):
            await cluster.client.create(CONFIG_MAPS, config_map(n, "before"))
        line = Line(cluster, clock)
        rng = random.Random(1)
        client = Client(line, clock=clock, rng=rng)
        cache = Cache(client, clock=clock, rng=rng)
        manager = Manager(client, clock=clock, rng=rng, cache=cache, options=ManagerOptions(leader_elect=False))
        Copier(manager)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(manager.run())
            await clock.run_until(lambda: manager.ready.is_set() and manager.idle)
            await clock.advance(5)
            assert await labels(cluster) == {f"c{n}": "before" for n in range(OBJECTS)}
            line.requests.clear()
            line.closes_watches = trouble == "closes watches"
            line.begin(trouble if callable(trouble) else well)
            for n in range(OBJECTS):
                patch = {"data": {"value": "after"}}
                if n < OBJECTS - 2:
                    await cluster.client.patch(CONFIG_MAPS, f"c{n}", patch, namespace="d")
            await cluster.client.delete(CONFIG_MAPS, f"c{OBJECTS - 1}", "d")
            await cluster.client.create(CONFIG_MAPS, config_map(100, "new"))
            await clock.advance(SECONDS)
            rate = len(line.requests) / SECONDS
            assert rate < PER_SECOND, f"{rate:.1f} requests a second"
            assert not manager.problems()
            line.closes_watches = False
            line.begin(well)
            await clock.advance(120)
            expected = {f"c{n}": "after" for n in range(OBJECTS - 2)} | {f"c{OBJECTS - 2}": "before", "c100": "new"}
            found = await labels(cluster)
            found.pop(f"c{OBJECTS - 1}", None)  # its Secret is for the garbage collector
            assert found == expected
            manager.stop()
            await clock.advance(1)


def config_map(n: int, value: str) -> Object:
    """One of many."""
    metadata = {"name": f"c{n}", "namespace": "d"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"value": value}}


async def labels(cluster: FakeCluster) -> dict[str, str]:
    """What the Secrets say."""
    items = (await cluster.client.list(SECRETS, "d")).items
    return {item["metadata"]["name"]: (item["metadata"].get("labels") or {}).get("value", "") for item in items}
