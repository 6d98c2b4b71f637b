"""Open-loop load of four kinds of clients, which judges every answer: its status, and which workload gave it.

Each request has its time; none waits for another. `Expected` says which answers are right at the time when a request begins.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import grpc.aio
from h2.config import H2Configuration
from h2.connection import ConnectionInputs, ConnectionState, H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)

DEADLINE = 15.0
Address = tuple[str, int]


class Lost(Exception):
    """A request got no answer, or an error that an application did not give."""


@dataclass
class Expected:
    """Who may answer: by service and key, one name, or two while a change is under way."""

    names: dict[tuple[str, str], frozenset[str]] = field(default_factory=dict)

    def of(self, service: str, key: str) -> frozenset[str]:
        """The names; the baseline where nothing is said."""
        return self.names.get((service, key), frozenset({"baseline"}))

    def may_become(self, service: str, key: str, name: str) -> None:
        """A change begins: the old or the new one."""
        self.names[service, key] = self.of(service, key) | {name}

    def is_now(self, service: str, key: str, name: str) -> None:
        """The change is programmed: nothing else any more."""
        self.names[service, key] = frozenset({name})


# -- clients ----------------------------------------------------------------------------------------------


class KeepAlive:
    """HTTP/1.1 over connections that are used again."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, key: str) -> str:
        """Who answered. Raises `Lost`."""
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof() and not writer.is_closing():
                break
            writer.close()
        else:
            reader, writer = await _connect(self._address)
        body, close = await _http1(reader, writer, key, "")
        if close:
            writer.close()
        else:
            self._idle.append((reader, writer))
        return body

    async def close(self) -> None:
        """Close what is open."""
        for _, writer in self._idle:
            writer.close()


class OneShot:
    """HTTP/1.1, a connection for each request."""

    def __init__(self, address: Address) -> None:
        self._address = address

    async def ask(self, key: str) -> str:
        """Who answered. Raises `Lost`."""
        reader, writer = await _connect(self._address)
        try:
            body, _ = await _http1(reader, writer, key, "connection: close\r\n")
            return body
        finally:
            writer.close()

    async def close(self) -> None:
        """Nothing is open."""


async def _connect(address: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        return await asyncio.open_connection(*address)
    except OSError as error:
        raise Lost(f"connect: {error}") from error


async def _http1(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str, more: str) -> tuple[str, bool]:
    """The body, and whether the connection ends with it."""
    baggage = f"baggage: a=b, sandlane-routing-key={key}\r\n" if key else ""
    writer.write(f"GET / HTTP/1.1\r\nhost: x\r\n{baggage}{more}\r\n".encode())
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length:")[1].split("\r\n")[0])
        body = (await reader.readexactly(length)).decode()
    except (OSError, asyncio.IncompleteReadError, IndexError) as error:
        writer.close()
        raise Lost(f"{type(error).__name__}: {error}") from error
    if " 200 " not in head.split("\r\n")[0]:
        writer.close()
        raise Lost(f"{head.splitlines()[0]}: {body}")
    return body, "connection: close" in head


class Http2(asyncio.Protocol):
    """HTTP/2 with prior knowledge, all requests over one connection, a new one when the server says goodbye."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._current: _H2Client | None = None
        self._opening = asyncio.Lock()

    async def ask(self, key: str) -> str:
        """Who answered. Raises `Lost`."""
        for _ in range(5):
            async with self._opening:
                if self._current is None or not self._current.usable:
                    try:
                        _, self._current = await asyncio.get_running_loop().create_connection(_H2Client, *self._address)
                    except OSError as error:
                        raise Lost(f"connect: {error}") from error
            try:
                return await self._current.ask(key)
            except _NotProcessed:
                continue
        raise Lost("five connections in a row said goodbye")

    async def close(self) -> None:
        """Close what is open."""
        if self._current is not None:
            self._current.transport.close()


class _NotProcessed(Exception):
    """The server has said that it has not looked at the request."""


class _H2Client(asyncio.Protocol):
    def __init__(self) -> None:
        self.h2 = H2Connection(H2Configuration(client_side=True))
        # The library takes a goodbye for the end; streams that the server has begun still get their answers.
        going_on = {(ConnectionState.CLIENT_OPEN, ConnectionInputs.RECV_GOAWAY): (None, ConnectionState.CLIENT_OPEN)}
        self.h2.state_machine._transitions = {**self.h2.state_machine._transitions, **going_on}
        self.usable = True
        self._waiting: dict[int, asyncio.Future[str]] = {}
        self._status: dict[int, bytes] = {}
        self._bodies: dict[int, bytes] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.h2.initiate_connection()
        transport.write(self.h2.data_to_send())

    async def ask(self, key: str) -> str:
        stream = self.h2.get_next_available_stream_id()
        headers = [(":method", "GET"), (":scheme", "http"), (":authority", "x"), (":path", "/")]
        if key:
            headers.append(("baggage", f"sandlane-routing-key={key}"))
        self._waiting[stream] = asyncio.get_running_loop().create_future()
        self.h2.send_headers(stream, headers, end_stream=True)
        self.transport.write(self.h2.data_to_send())
        return await self._waiting[stream]

    def data_received(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            if isinstance(event, ResponseReceived):
                self._status[event.stream_id] = dict(event.headers)[b":status"]
            elif isinstance(event, DataReceived):
                self._bodies[event.stream_id] = self._bodies.get(event.stream_id, b"") + event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                self._end(event.stream_id)
            elif isinstance(event, StreamReset):
                refused = event.error_code == 7
                self._fail(event.stream_id, _NotProcessed() if refused else Lost(f"stream reset: {event.error_code}"))
            elif isinstance(event, ConnectionTerminated):
                self.usable = False
                last = event.last_stream_id if event.last_stream_id is not None else 0
                for stream in [each for each in self._waiting if each > last]:
                    self._fail(stream, _NotProcessed())
        self.transport.write(self.h2.data_to_send())
        if not self.usable and not self._waiting:
            self.transport.close()

    def _end(self, stream: int) -> None:
        status, body = self._status.pop(stream, b""), self._bodies.pop(stream, b"").decode()
        if (future := self._waiting.pop(stream, None)) and not future.done():
            if status == b"200":
                future.set_result(body)
            else:
                future.set_exception(Lost(f"{status.decode()}: {body}"))

    def _fail(self, stream: int, error: Exception) -> None:
        if (future := self._waiting.pop(stream, None)) and not future.done():
            future.set_exception(error)

    def connection_lost(self, error: Exception | None) -> None:
        self.usable = False
        for stream in list(self._waiting):
            self._fail(stream, Lost(f"connection closed with a request open: {error}"))


class Grpc:
    """gRPC as its library does it, without retries."""

    def __init__(self, address: Address) -> None:
        options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
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


KINDS: dict[str, Callable[[Address], KeepAlive | OneShot | Http2 | Grpc]] = {
    "HTTP/1.1 kept alive": KeepAlive,
    "HTTP/1.1 one-shot": OneShot,
    "HTTP/2": Http2,
    "gRPC": Grpc,
}


# -- the load ---------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What came of the requests."""

    sent: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


async def load(
    addresses: dict[str, Address],
    keys: list[str],
    expected: Expected,
    rate: float,
    until: Callable[[], bool],
    outcome: Outcome,
) -> None:
    """Ask at a steady rate until told, or until the first wrong answer."""
    clients = {(kind, service): make(at) for kind, make in KINDS.items() for service, at in addresses.items()}
    order = [(kind, service, key) for key in keys for service in addresses for kind in KINDS]
    started, sent = time.monotonic(), 0
    try:
        async with asyncio.TaskGroup() as tasks:
            while not until() and not outcome.wrong:
                due = started + sent / rate
                if (wait := due - time.monotonic()) > 0:
                    await asyncio.sleep(wait)
                kind, service, key = order[sent % len(order)]
                client = clients[kind, service]
                tasks.create_task(_one(kind, service, key, client.ask, due, expected, outcome))
                sent += 1
    finally:
        for client in clients.values():
            await client.close()


async def _one(
    kind: str,
    service: str,
    key: str,
    ask: Callable[[str], Awaitable[str]],
    due: float,
    expected: Expected,
    outcome: Outcome,
) -> None:
    before, began = expected.of(service, key), time.time()
    try:
        async with asyncio.timeout(DEADLINE):
            name = await ask(key)
    except (Lost, TimeoutError) as error:
        clock = time.strftime("%H:%M:%S", time.gmtime(began)) + f"{began % 1:.3f}"[1:]
        outcome.wrong.append(
            f"{clock} {kind} to {service} with key {key or '-'}: {type(error).__name__} {error} after "
            f"{time.monotonic() - due:.3f} s"
        )
        return
    outcome.sent[kind] += 1
    outcome.seconds.append(time.monotonic() - due)
    server, _, workload = name.partition("/")
    right = before | expected.of(service, key)
    if workload != service or server not in right:
        clock = time.strftime("%H:%M:%S", time.gmtime(began)) + f"{began % 1:.3f}"[1:]
        outcome.wrong.append(
            f"{clock} {kind} to {service} with key {key or '-'}: answered by {name}, not by {sorted(right)}"
        )
