"""Open-loop load of four kinds of clients, which judges every answer: its status, and which workload gave it.

Each request has its time; none waits for another. `Expected` says which answers are right between a request's begin and its end.
The clients are as light as can be: what they use of the machine, the cluster beside them has not.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import grpc.aio
from hpack import Decoder

DEADLINE = 15.0
LATEST = 10.0
"""Seconds that the load may be behind its own times: beyond that the machine is too busy for the rate."""
Address = tuple[str, int]


class Lost(Exception):
    """A request got no answer, or an error that an application did not give."""


class TooBusy(Exception):
    """The load could not be kept up; nothing is known about the requests that were not sent."""


@dataclass
class Expected:
    """Who may answer: by service and key, one name, or several while changes are under way."""

    history: dict[tuple[str, str], list[frozenset[str]]] = field(default_factory=dict)

    def moment(self, service: str, key: str) -> int:
        """Now, for `since`."""
        return len(self._of(service, key)) - 1

    def since(self, service: str, key: str, moment: int = -1) -> frozenset[str]:
        """Who might answer at some time since a moment; by default now."""
        return frozenset[str]().union(*self._of(service, key)[moment:])

    def may_become(self, service: str, key: str, name: str) -> None:
        """A change begins: the old or the new one."""
        self._of(service, key).append(self.since(service, key) | {name})

    def is_now(self, service: str, key: str, name: str) -> None:
        """The change is programmed: nothing else any more."""
        self._of(service, key).append(frozenset({name}))

    def _of(self, service: str, key: str) -> list[frozenset[str]]:
        return self.history.setdefault((service, key), [frozenset({"baseline"})])


# -- clients ----------------------------------------------------------------------------------------------


C = TypeVar("C", bound="_Connection")


class Http1:
    """HTTP/1.1: over connections that are used again, or with a connection for each request."""

    def __init__(self, address: Address, *, keep: bool) -> None:
        self._address = address
        self._keep = keep
        self._idle: deque[_Http1Connection] = deque()

    async def ask(self, key: str) -> str:
        """Who answered. Raises `Lost`."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                break
        else:
            connection = await _connected(_Http1Connection, self._address)
        body = await connection.ask(key, "" if self._keep else "connection: close\r\n")
        if self._keep and connection.usable:
            self._idle.append(connection)
        else:
            connection.transport.close()
        return body

    async def close(self) -> None:
        """Close what is open."""
        for connection in self._idle:
            connection.transport.close()


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self.usable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport


async def _connected(kind: type[C], address: Address) -> C:
    try:
        return (await asyncio.get_running_loop().create_connection(kind, *address))[1]
    except OSError as error:
        raise Lost(f"connect: {error}") from error


class _Http1Connection(_Connection):
    def __init__(self) -> None:
        super().__init__()
        self._got = b""
        self._answer: asyncio.Future[str] | None = None

    async def ask(self, key: str, more: str) -> str:
        baggage = f"baggage: a=b, sandlane-routing-key={key}\r\n" if key else ""
        self._got, self._answer = b"", asyncio.get_running_loop().create_future()
        self.transport.write(f"GET / HTTP/1.1\r\nhost: x\r\n{baggage}{more}\r\n".encode())
        return await self._answer

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, blank, body = self._got.partition(b"\r\n\r\n")
        if not blank or self._answer is None or self._answer.done():
            return
        lines = head.decode().lower().split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines[1:])
        if len(body) < int(fields["content-length"]):
            return
        self.usable = self.usable and fields.get("connection") != "close"
        if " 200 " in lines[0]:
            self._answer.set_result(body.decode())
        else:
            self._fail(f"{lines[0]}: {body.decode()}")

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(f"the connection was closed before the answer was whole: {error}")

    def _fail(self, why: str) -> None:
        self.usable = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(Lost(why))


class Http2:
    """HTTP/2 with prior knowledge, all requests over one connection, a new one when the server says goodbye."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._current: _Http2Connection | None = None
        self._opening = asyncio.Lock()

    async def ask(self, key: str) -> str:
        """Who answered. Raises `Lost`."""
        for _ in range(5):
            async with self._opening:
                if self._current is None or not self._current.usable:
                    self._current = await _connected(_Http2Connection, self._address)
                connection = self._current
            try:
                return await connection.ask(key)
            except _NotProcessed:
                continue
        raise Lost("five connections in a row said goodbye")

    async def close(self) -> None:
        """Close what is open."""
        if self._current is not None:
            self._current.transport.close()


class _NotProcessed(Exception):
    """The server has said that it has not looked at the request."""


def _text(text: str) -> bytes:
    """A text as HPACK has it, not compressed."""
    return bytes([len(text)]) + text.encode()


class _Http2Connection(_Connection):
    """RFC 9113, as far as short requests without a body and short answers need it."""

    DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7
    GET = b"\x82\x86\x84\x01" + _text("x")  # GET http / of the host x

    def __init__(self) -> None:
        super().__init__()
        self._next = 1
        self._got = b""
        self._decoder = Decoder()
        self._waiting: dict[int, asyncio.Future[str]] = {}
        self._status: dict[int, str] = {}
        self._bodies: dict[int, bytes] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        window = _frame(8, 0, 0, (2**31 - 2**16).to_bytes(4, "big"))  # as much as comes
        self.transport.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(self.SETTINGS, 0, 0, b"") + window)

    async def ask(self, key: str) -> str:
        stream, self._next = self._next, self._next + 2
        answer = self._waiting[stream] = asyncio.get_running_loop().create_future()
        baggage = b"\0" + _text("baggage") + _text(f"sandlane-routing-key={key}") if key else b""
        self.transport.write(_frame(self.HEADERS, 0x5, stream, self.GET + baggage))
        return await answer

    def data_received(self, data: bytes) -> None:
        self._got += data
        while len(self._got) >= 9:
            end = 9 + int.from_bytes(self._got[:3], "big")
            if len(self._got) < end:
                return
            kind, flags = self._got[3], self._got[4]
            stream, payload = int.from_bytes(self._got[5:9], "big"), self._got[9:end]
            self._got = self._got[end:]
            self._frame(kind, flags, stream, payload)

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == self.HEADERS:
            assert flags & 0x2C == 0x4, "padding, priorities and continuations do not come"
            for name, value in self._decoder.decode(payload):
                if name == ":status":
                    self._status[stream] = value
        elif kind == self.DATA:
            self._bodies[stream] = self._bodies.get(stream, b"") + payload
        elif kind == self.RESET:
            code = int.from_bytes(payload, "big")
            self._fail(stream, _NotProcessed() if code == 7 else Lost(f"stream reset: {code}"))
        elif kind in (self.SETTINGS, self.PING) and not flags & 0x1:
            self.transport.write(_frame(kind, 0x1, 0, payload if kind == self.PING else b""))
        elif kind == self.GOAWAY:
            self.usable = False
            last = int.from_bytes(payload[:4], "big")
            for each in [each for each in self._waiting if each > last]:
                self._fail(each, _NotProcessed())
        if kind in (self.HEADERS, self.DATA) and flags & 0x1:
            self._end(stream)
        if not self.usable and not self._waiting:
            self.transport.close()

    def _end(self, stream: int) -> None:
        status, body = self._status.pop(stream, ""), self._bodies.pop(stream, b"").decode()
        answer = self._waiting.pop(stream, None)
        if answer is None or answer.done():
            return
        if status == "200":
            answer.set_result(body)
        else:
            answer.set_exception(Lost(f"{status}: {body}"))

    def _fail(self, stream: int, error: Exception) -> None:
        answer = self._waiting.pop(stream, None)
        if answer is not None and not answer.done():
            answer.set_exception(error)

    def connection_lost(self, error: Exception | None) -> None:
        self.usable = False
        for stream in list(self._waiting):
            self._fail(stream, Lost(f"connection closed with a request open: {error}"))


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


class Grpc:
    """gRPC as its library does it: no retry policy, so that it tries again only what it has not sent before a goodbye came."""

    def __init__(self, address: Address) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.aio.insecure_channel(f"{address[0]}:{address[1]}", options=options)
        self._call = self._channel.unary_unary("/x.X/Who", request_serializer=bytes, response_deserializer=bytes)

    async def ask(self, key: str) -> str:
        """Who answered. Raises `Lost`."""
        metadata = (("baggage", f"sandlane-routing-key={key}"),) if key else ()
        try:
            answer: bytes = await self._call(b"", metadata=metadata, timeout=DEADLINE)
        except grpc.aio.AioRpcError as error:
            raise Lost(f"{error.code()}: {error.details()}") from error
        return answer.decode()

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()


Client = Http1 | Http2 | Grpc
KINDS: dict[str, Callable[[Address], Client]] = {
    "HTTP/1.1 kept alive": partial(Http1, keep=True),
    "HTTP/1.1 one-shot": partial(Http1, keep=False),
    "HTTP/2": Http2,
    "gRPC": Grpc,
}


# -- the load ---------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What came of the requests. `late`: seconds by which the load itself was behind its times at most."""

    sent: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    late: float = 0.0


async def load(
    addresses: dict[str, Address],
    keys: list[str],
    expected: Expected,
    rate: float,
    until: Callable[[], bool],
    outcome: Outcome,
) -> None:
    """Ask at a steady rate until told, or until the first wrong answer. Raises `TooBusy`."""
    clients = {(kind, service): make(at) for kind, make in KINDS.items() for service, at in addresses.items()}
    order = [(kind, service, key) for key in keys for service in addresses for kind in KINDS]
    started, sent = time.monotonic(), 0
    try:
        async with asyncio.TaskGroup() as tasks:
            while not until() and not outcome.wrong and outcome.late < LATEST:
                due = started + sent / rate
                wait = due - time.monotonic()
                outcome.late = max(outcome.late, -wait)
                # Also when it is late it asks one after the other: who answers must have a turn, too.
                await asyncio.sleep(max(0.0, wait))
                kind, service, key = order[sent % len(order)]
                tasks.create_task(_one(kind, service, key, clients[kind, service].ask, due, expected, outcome))
                sent += 1
    finally:
        for client in clients.values():
            await client.close()
    if outcome.late >= LATEST and not outcome.wrong:
        raise TooBusy(f"the load is {LATEST:.0f} s behind: this machine is too busy for {rate:.0f} requests/s")


async def _one(
    kind: str,
    service: str,
    key: str,
    ask: Callable[[str], Awaitable[str]],
    due: float,
    expected: Expected,
    outcome: Outcome,
) -> None:
    moment, began = expected.moment(service, key), time.time()

    def wrong(what: str) -> None:
        clock = time.strftime("%H:%M:%S", time.gmtime(began)) + f"{began % 1:.3f}"[1:]
        outcome.wrong.append(f"{clock} {kind} to {service} with key {key or '-'}: {what}")

    try:
        async with asyncio.timeout(DEADLINE):
            name = await ask(key)
    except (Lost, TimeoutError) as error:
        wrong(f"{type(error).__name__} {error} after {time.monotonic() - due:.3f} s")
        return
    outcome.sent[kind] += 1
    outcome.seconds.append(time.monotonic() - due)
    server, _, workload = name.partition("/")
    right = expected.since(service, key, moment)
    if workload != service or server not in right:
        wrong(f"answered by {name}, not by {sorted(right)}")
