"""A transport that does to one process what networks, API servers and power cuts do, by a schedule that can be repeated."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import Enum

import msgspec

from sandlane.kube.clock import Clock
from sandlane.kube.errors import TransportError
from sandlane.kube.transport import Request, Response, Stream, Transport


class Failure(Enum):
    """How one call fails. `LOST_ANSWER`: it took effect, and nobody heard of it. `TIMEOUT`: no answer, for as long as
    the caller waits; it did not take effect.
    """

    CONFLICT = "409"
    TOO_MANY = "429"
    SERVER_ERROR = "500"
    LOST_REQUEST = "request lost"
    LOST_ANSWER = "answer lost"
    TIMEOUT = "no answer in time"


class Watching(Enum):
    """What happens to watches."""

    WELL = "watches are well"
    CUT = "each watch breaks after each event"
    EXPIRE = "each event is dropped and the watch expires, so that events merge in a list"
    LATE = "each event comes five seconds late"


class Schedule(msgspec.Struct, frozen=True):
    """What goes wrong. Calls (watches as well) and writes count from 1; 0 is never."""

    crash_after_write: int = 0
    fail_call: int = 0
    failure: Failure = Failure.SERVER_ERROR
    watching: Watching = Watching.WELL
    stale_restart: bool = False

    def __str__(self) -> str:
        told = []
        if self.crash_after_write:
            told.append(f"crash after write {self.crash_after_write}, restart with empty memory")
        if self.stale_restart:
            told.append("restart on a view from before the first write")
        if self.fail_call:
            told.append(f"call {self.fail_call} fails: {self.failure.value}")
        if self.watching is not Watching.WELL:
            told.append(self.watching.value)
        return "; ".join(told) or "nothing goes wrong"


WRITES = ("POST", "PUT", "PATCH", "DELETE")
UNCOUNTED = ("/events", "/leases")
"""Collections whose writes are no part of the world: what happened, and who leads."""
HELD = 5.0
"""Seconds for which the watches of a stale view, or late events, are held back."""


class FaultyTransport:
    """Wraps a process's transport. `crash` is called at the scheduled moment; the process then never hears again."""

    def __init__(
        self,
        inner: Transport,
        clock: Clock,
        schedule: Schedule,
        *,
        crash: Callable[[], None] = lambda: None,
        stale: dict[str, Response] | None = None,
    ) -> None:
        self._inner = inner
        self._clock = clock
        self._schedule = schedule
        self._crash = crash
        self._stale = dict(stale or {})
        self._was_stale = set(self._stale)
        self._dead = asyncio.Event()
        self.calls = 0
        self.writes: list[Request] = []
        self.lists: dict[str, Response] = {}
        self.log: list[str] = []

    async def send(self, request: Request, *, timeout: float) -> Response:
        """The whole answer, or a failure."""
        await self._live()
        line, failure = self._begin(request)
        writing = request.method in WRITES
        if failure is not None and not (failure is Failure.CONFLICT and not writing):
            return await self._fail(request, line, failure, timeout)
        if (old := self._stale.pop(request.target, None)) is not None and not writing:
            self.log.append(f"{line}  ! a stale answer")
            return old
        response = await self._inner.send(request, timeout=timeout)
        self.log.append(f"{line}  {response.status}")
        if request.method == "GET" and "limit" in dict(request.query):
            self.lists.setdefault(request.target, response)
        if writing and response.status < 400 and not request.path.split("?")[0].endswith(UNCOUNTED):
            self.writes.append(request)
            if len(self.writes) == self._schedule.crash_after_write:
                self.log.append("      ! crash")
                self._crash()
                self._dead.set()
                await self._live()
        return response

    @asynccontextmanager
    async def stream(self, request: Request, *, timeout: float) -> AsyncIterator[Stream]:
        """A stream that may break."""
        await self._live()
        line, failure = self._begin(request)
        if failure is not None and failure is not Failure.CONFLICT:
            yield _Whole(await self._fail(request, line, failure, timeout))
            return
        self.log.append(line)
        if any(target.startswith(f"{request.path}?") for target in self._was_stale):
            await self._clock.sleep(HELD)
        async with self._inner.stream(request, timeout=timeout) as stream:
            yield _FaultyStream(stream, self._schedule.watching, self._clock, self.log)

    async def close(self) -> None:
        """Close the inner transport."""
        await self._inner.close()

    def _begin(self, request: Request) -> tuple[str, Failure | None]:
        """Count a call: its line in the log, and how it is to fail, if it is."""
        self.calls += 1
        failing = self.calls == self._schedule.fail_call
        return f"{self.calls:4}. {request.method} {request.target}", self._schedule.failure if failing else None

    async def _fail(self, request: Request, line: str, failure: Failure, timeout: float) -> Response:
        """The answer of a call that fails. Raises `TransportError` when there is none."""
        self.log.append(f"{line}  ! {failure.value}")
        if failure is Failure.TIMEOUT:
            await self._clock.sleep(timeout)
        elif failure is Failure.LOST_ANSWER and request.method in WRITES:
            await self._inner.send(request, timeout=timeout)
        return _failed(failure)

    async def _live(self) -> None:
        if self._dead.is_set():
            await asyncio.get_running_loop().create_future()  # for ever: the process is gone


class _Whole:
    """An answer as a stream."""

    def __init__(self, response: Response) -> None:
        self.status, self.headers, self._body = response.status, response.headers, response.body

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self._body


class _FaultyStream:
    def __init__(self, inner: Stream, watching: Watching, clock: Clock, log: list[str]) -> None:
        self.status = inner.status
        self.headers = inner.headers
        self._inner = inner
        self._watching = watching
        self._clock = clock
        self._log = log

    async def chunks(self) -> AsyncIterator[bytes]:
        async for chunk in self._inner.chunks():
            if self._watching is Watching.WELL or b'"BOOKMARK"' in chunk[:64]:
                yield chunk
                continue
            self._log.append(f"      ! {self._watching.value}")
            if self._watching is Watching.LATE:
                await self._clock.sleep(HELD)
                yield chunk
                continue
            if self._watching is Watching.CUT:
                yield chunk
                raise TransportError("cut")
            yield b'{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired"}}\n'
            return


def _failed(failure: Failure) -> Response:
    if failure in (Failure.LOST_REQUEST, Failure.LOST_ANSWER, Failure.TIMEOUT):
        raise TransportError(failure.value)
    code = int(failure.value)
    reason = {409: "Conflict", 429: "TooManyRequests", 500: "InternalError"}[code]
    status = {"kind": "Status", "apiVersion": "v1", "code": code, "reason": reason, "message": "injected"}
    after = (("retry-after", "1"),) if failure is Failure.TOO_MANY else ()
    return Response(code, (("content-type", "application/json"), *after), msgspec.json.encode(status))
