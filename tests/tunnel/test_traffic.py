"""Everything that HTTP is used for goes through a router and a tunnel to the process on the laptop, as it would without them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

import aiohttp
import grpc
import pytest
import pytest_asyncio
from aiohttp import web

from sandlane.api.types import OnDisconnect
from sandlane.laptop.inbound import LocalTarget
from sandlane.routing.tunnels import ID_HEADER, PORT_HEADER
from support.tunnel import UID, Tunnel, free_port
from support.tunnel_router import front, router

pytestmark = pytest.mark.asyncio(loop_scope="module")

MANY = 1200
BODY = 64 << 20
CHUNK = bytes(range(256)) * 1024
HELD = 40 << 20
"""More than all buffers on the way hold together, most of them the kernel's."""
HTTP, GRPC, BARE = 8084, 8085, 8086


class Process:
    """The developer's HTTP server."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.moved = 0

    async def events(self, request: web.Request) -> web.StreamResponse:
        """One event at once, the other when the first one has been seen."""
        answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await answer.prepare(request)
        await answer.write(b"data: 1\n\n")
        await self.go_on.wait()
        await answer.write(b"data: 2\n\n")
        return answer

    async def socket(self, request: web.Request) -> web.WebSocketResponse:
        """Speaks first, then echoes."""
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        await ws.send_str("hello")
        async for message in ws:
            await ws.send_bytes(message.data)
        return ws

    async def give(self, request: web.Request) -> web.StreamResponse:
        """A large body; `moved` says how much of it has left."""
        answer = web.StreamResponse()
        await answer.prepare(request)
        for _ in range(BODY // len(CHUNK)):
            await answer.write(CHUNK)
            self.moved += len(CHUNK)
        return answer

    async def take(self, request: web.Request) -> web.Response:
        """Reads nothing before it is told to."""
        await self.go_on.wait()
        digest = hashlib.sha256()
        async for chunk in request.content.iter_any():
            digest.update(chunk)
        return web.Response(text=digest.hexdigest())


async def unary(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
    if request == b"bad":
        context.set_trailing_metadata((("why", "trailer"),))
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now")
    return b"got " + request


async def both_ways(requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
    async for request in requests:
        yield b"got " + request


class Together(asyncio.Protocol):
    """A server of bare HTTP that answers nobody before all are there, with their paths."""

    there: list[tuple[asyncio.WriteTransport, bytes]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        assert isinstance(transport, asyncio.WriteTransport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Called by the event loop: the head of a request comes whole."""
        self.there.append((self.transport, data.split(b" ", 2)[1]))
        if len(self.there) == MANY:
            for transport, path in self.there:
                transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(path), path))
            self.there.clear()


class Place(NamedTuple):
    """Addresses of the router (which leads to HTTP or BARE) and of the tunnel server's ingress."""

    http: str
    bare: str
    ingress: str
    process: Process


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    """Routers, a tunnel server, a laptop and what runs on it."""
    process = Process()
    application = web.Application()
    application.add_routes([web.get("/events", process.events), web.get("/ws", process.socket)])
    application.add_routes([web.get("/body", process.give), web.put("/body", process.take)])
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    http = free_port()
    await web.TCPSite(runner, "127.0.0.1", http).start()
    methods = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "BothWays": grpc.stream_stream_rpc_method_handler(both_ways),
    }
    rpc = grpc.aio.server()
    rpc.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Service", methods),))
    targets = [
        LocalTarget(HTTP, "127.0.0.1", http),
        LocalTarget(GRPC, "127.0.0.1", rpc.add_insecure_port("127.0.0.1:0")),
    ]
    await rpc.start()
    bare = await asyncio.get_running_loop().create_server(Together, "127.0.0.1", 0, backlog=MANY)
    targets.append(LocalTarget(BARE, "127.0.0.1", bare.sockets[0].getsockname()[1]))
    tunnel = Tunnel(tmp_path_factory.mktemp("traffic"))
    tunnel.allow(UID)
    doors = [front("http", OnDisconnect.FAIL, port=port) for port in (HTTP, BARE)]
    async with tunnel.server(tls_ingress=False), tunnel.laptop(UID, *targets), router(tunnel, *doors):
        at = [f"127.0.0.1:{port}" for port in (*(door.listener for door in doors), tunnel.options.ingress_port)]
        yield Place(*at, process)
    bare.close()
    await rpc.stop(None)
    await runner.cleanup()


@pytest_asyncio.fixture(loop_scope="module")
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """A client without limits of its own."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(60)) as made:
        yield made


async def test_events_come_one_by_one(place: Place, session: aiohttp.ClientSession) -> None:
    """An event of a stream is there before the next one is sent."""
    place.process.go_on.clear()
    async with session.get(f"http://{place.http}/events") as answer:
        assert await answer.content.readuntil(b"\n\n") == b"data: 1\n\n"
        place.process.go_on.set()
        assert await answer.content.read() == b"data: 2\n\n"


async def test_websockets(place: Place, session: aiohttp.ClientSession) -> None:
    """Also where the process speaks first; a large message comes whole."""
    async with session.ws_connect(f"http://{place.http}/ws") as ws:
        assert await ws.receive_str() == "hello"
        await ws.send_bytes(CHUNK)
        assert await ws.receive_bytes() == CHUNK


async def test_grpc(place: Place) -> None:
    """Unary, streams both ways at the same time, and errors with their trailers."""
    meant = ((ID_HEADER, UID), (PORT_HEADER, str(GRPC)))
    async with grpc.aio.insecure_channel(place.ingress) as channel:
        call = channel.unary_unary("/test.Service/Unary")
        assert await call(b"a", metadata=meant) == b"got a"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(b"bad", metadata=meant)
        assert (refused.value.code(), refused.value.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "not now")
        assert refused.value.trailing_metadata()["why"] == "trailer"
        stream = channel.stream_stream("/test.Service/BothWays")(metadata=meant)
        for message in (b"1", b"2"):
            await stream.write(message)
            assert await stream.read() == b"got " + message
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF


async def test_very_many_at_once(place: Place) -> None:
    """None of more requests than Envoy usually lets through at once waits for another; each gets its own answer."""
    host, port = place.bare.split(":")

    async def ask(number: int) -> bytes:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /%d HTTP/1.1\r\nhost: bare\r\n\r\n" % number)
        status, *_ = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        answer = await reader.readexactly(len(b"/%d" % number)) if b" 200 " in status else status
        writer.transport.abort()
        return answer

    async with asyncio.timeout(60):
        assert await asyncio.gather(*map(ask, range(MANY))) == [b"/%d" % number for number in range(MANY)]


async def stuck(moved: Callable[[], int]) -> int:
    """How much has been moved when nothing moves any more."""
    before = -1
    while (now := moved()) != before or not now:
        before = now
        await asyncio.sleep(0.3)
    return now


async def test_a_large_answer_waits_for_its_reader(place: Place, session: aiohttp.ClientSession) -> None:
    """Somebody who does not read makes the process wait, not the memory on the way grow; then all of it comes."""
    place.process.moved, size = 0, 0
    async with session.get(f"http://{place.http}/body") as answer:
        assert await stuck(lambda: place.process.moved) < HELD
        async for chunk in answer.content.iter_any():
            size += len(chunk)
    assert size == BODY


async def test_a_large_request_waits_for_its_reader(place: Place, session: aiohttp.ClientSession) -> None:
    """A process that does not read makes the sender wait; then all of it comes."""
    place.process.go_on.clear()
    sent = 0

    async def send() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(BODY // len(CHUNK)):
            yield CHUNK
            sent += len(CHUNK)

    async with asyncio.TaskGroup() as tasks:
        putting = tasks.create_task(session.put(f"http://{place.http}/body", data=send()).__aenter__())
        assert await stuck(lambda: sent) < HELD
        place.process.go_on.set()
        async with await putting as answer:
            assert await answer.text() == hashlib.sha256(CHUNK * (BODY // len(CHUNK))).hexdigest()
