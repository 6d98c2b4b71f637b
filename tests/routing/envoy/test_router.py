"""Requests through a real router: by key and request by request, in every protocol, and otherwise untouched."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import pytest
import pytest_asyncio
from envoy.config.listener.v3 import listener_pb2

from sandlane.routing.envoy.clusters import TO_HEADER
from sandlane.routing.envoy.delta import LISTENER, Refusal
from sandlane.routing.envoy.digest import DIGEST, NOTHING, REFUSES_HEADER, Refuses, digest_listener, heard
from sandlane.routing.envoy.encode import encoded
from sandlane.routing.envoy.filter import INTERNAL_HEADERS
from sandlane.routing.envoy.routes import DEBUG_HEADER, NOT_READY, SERVED_BY
from sandlane.routing.names import READY_PORT
from sandlane.routing.tunnels import REASON_HEADER
from support import router as support
from support.router import Address, Router, endpoints, sandbox, service
from support.service_proxy import until

pytestmark = pytest.mark.asyncio(loop_scope="module")
HOST = "127.0.0.1"


class Echo:
    """An HTTP/1.1 server that keeps the bytes of requests and says its name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.heads: list[bytes] = []
        self.address: Address = (HOST, 0)

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            self.heads.append(head)
            body = self.name.encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX-Case: Kept\r\n\r\n%s" % (len(body), body))


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(talk: Talk) -> AsyncIterator[Address]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await talk(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async with await asyncio.start_server(serve, HOST, 0) as made:
        yield made.sockets[0].getsockname()


@asynccontextmanager
async def echo(name: str) -> AsyncIterator[Echo]:
    made = Echo(name)
    async with server(made.talk) as made.address:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def router(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Router]:
    """One Envoy for all tests; each test has doors of its own."""
    folder: Path = tmp_path_factory.mktemp("router")
    async with support.router(folder) as made:
        yield made


@asynccontextmanager
async def connect(at: Address) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(*at)
    try:
        async with asyncio.timeout(10):
            yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def request(at: Address, *headers: str, path: str = "/") -> tuple[list[str], bytes]:
    """One request with exactly these header lines; the answer's head lines and body."""
    async with connect(at) as (reader, writer):
        writer.write("".join(f"{line}\r\n" for line in (f"GET {path} HTTP/1.1", "Host: eta", *headers, "")).encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        length = next(int(line.split(":")[1]) for line in head if line.lower().startswith("content-length"))
        return head, await reader.readexactly(length)


async def test_a_request_goes_where_its_key_says_and_arrives_untouched(router: Router) -> None:
    """With the key the fork answers, otherwise the baseline; both get exactly the bytes that were sent."""
    async with echo("base") as base, echo("fork") as fork:
        await router.serve([*service("plain", 20001, base.address), *sandbox("a", "plain", fork.address)])
        lines = ["X-Zed: 1", "x-LOWER: 2", "Accept: */*", "X-Zed: 3", "User-Agent: me"]
        at = (router.host, 20001)
        for head, key in ((base, "b"), (fork, "a"), (base, "none")):
            sent = [*lines, f"Baggage: x=1, sandlane-routing-key={key};p"]
            answer, body = await request(at, *sent)
            assert body.decode() == head.name, answer
            assert answer[2] == "X-Case: Kept"
            assert head.heads[-1].decode().split("\r\n") == ["GET / HTTP/1.1", "Host: eta", *sent, "", ""]


def with_key(key: str) -> str:
    return f"baggage: sandlane-routing-key={key}"


async def test_internal_headers_of_a_client_count_for_nothing(router: Router) -> None:
    """A client cannot choose its destination by the headers that the router uses, nor do they reach the application."""
    async with echo("base") as base, echo("fork") as fork:
        await router.serve([*service("inner", 20002, base.address), *sandbox("a", "inner", fork.address)])
        at = (router.host, 20002)
        host, port = fork.address
        names = [*INTERNAL_HEADERS, TO_HEADER]
        values = ["0|inner:80|a", "forks/0", "https", f"{host}:{port}"]
        _, body = await request(at, *(f"{name}: {value}" for name, value in zip(names, values, strict=True)))
        assert body == b"base"
        lines = base.heads[-1].decode().split("\r\n")
        assert not [line for line in lines if line.startswith(("x-sandlane-internal", TO_HEADER))]


async def test_a_key_behind_an_empty_header_counts(router: Router) -> None:
    """Requests without a key need no filter; whether they have one is seen even where the first header has nothing."""
    async with echo("base") as base, echo("fork") as fork:
        await router.serve([*service("empty", 20018, base.address), *sandbox("a", "empty", fork.address)])
        at = (router.host, 20018)
        for lines, expected in (
            (["baggage: ", with_key("a")], b"fork"),
            (["tracestate: ", "tracestate: sandlane-routing-key=a"], b"fork"),
            (["baggage: x=1", "tracestate: sandlane-routing-key=a"], b"fork"),
            (["baggage: "], b"base"),
            (["baggage: 1"], b"base"),
            (["baggage: -|empty:80|a", "tracestate: 1"], b"base"),
        ):
            _, body = await request(at, *lines)
            assert body == expected, lines
            asked, again = await request(at, *lines, f"{DEBUG_HEADER}: 1")
            assert again == expected
            name = "baseline" if expected == b"base" else "a/empty-a"
            assert f"{SERVED_BY}: {name}" in asked, lines
            sent = (base if expected == b"base" else fork).heads[-1].decode()
            assert sent.split("\r\n")[2:-3] == lines, "the application sees what was sent"


async def test_a_forwarded_protocol_of_the_client_stays(router: Router) -> None:
    """`X-Forwarded-Proto` has the client's value where the client sent one; otherwise there is none."""
    async with echo("base") as base:
        await router.serve(service("proto", 20003, base.address))
        await request((router.host, 20003), "X-Forwarded-Proto: https", "X-Forwarded-For: 10.1.1.1")
        assert base.heads[-1].decode().split("\r\n")[2:-2] == ["X-Forwarded-For: 10.1.1.1", "X-Forwarded-Proto: https"]


async def test_one_connection_many_keys(router: Router) -> None:
    """On one kept-alive connection every request goes where its own key says."""
    async with echo("base") as base, echo("one") as one, echo("two") as two:
        objects = [*sandbox("one", "many", one.address), *sandbox("two", "many", two.address)]
        await router.serve([*service("many", 20004, base.address), *objects])
        async with connect((router.host, 20004)) as (reader, writer):
            for key in ("one", "two", "none", "two", "one", "none"):
                writer.write(f"GET / HTTP/1.1\r\nHost: x\r\n{with_key(key)}\r\n\r\n".encode())
                await reader.readuntil(b"\r\n\r\n")
                expected = "base" if key == "none" else key
                assert await reader.readexactly(len(expected)) == expected.encode()


async def test_who_asks_is_told_who_served(router: Router) -> None:
    """The answer names the workload for requests with the debug header, and has no such header otherwise."""
    async with echo("base") as base, echo("fork") as fork:
        await router.serve([*service("told", 20005, base.address), *sandbox("a", "told", fork.address)])
        at = (router.host, 20005)
        for key, name in (("a", "a/told-a"), ("none", "baseline")):
            head, _ = await request(at, with_key(key), f"{DEBUG_HEADER}: 1")
            assert f"{SERVED_BY}: {name}" in head
            head, _ = await request(at, with_key(key))
            assert not [line for line in head if SERVED_BY in line]


async def test_a_fork_scales_and_fails_without_its_baseline_answering(router: Router) -> None:
    """A fork with no, one or several endpoints: its own 503 with the reason, that one, or each of them."""
    async with echo("base") as base, echo("one") as one, echo("two") as two:
        await router.serve([*service("scale", 20006, base.address), *sandbox("a", "scale", one.address)])
        at = (router.host, 20006)
        assert (await request(at, with_key("a")))[1] == b"one"
        await router.serve(endpoints("scale-a", one.address, two.address))
        assert {(await request(at, with_key("a")))[1] for _ in range(6)} == {b"one", b"two"}
        await router.serve(endpoints("scale-a"))
        head, body = await request(at, with_key("a"))
        assert head[0].startswith("HTTP/1.1 503")
        assert f"{REASON_HEADER}: {NOT_READY}" in head
        assert b"sandbox a" in body
        await router.serve(endpoints("scale-a", two.address))
        assert (await request(at, with_key("a")))[1] == b"two"
        assert (await request(at))[1] == b"base"


async def test_a_dead_endpoint_is_passed_over(router: Router) -> None:
    """A request whose connection was refused is tried at another endpoint; nothing else is tried again."""
    with socket.socket() as dead:
        dead.bind((HOST, 0))
        async with echo("base") as base:
            await router.serve(service("dead", 20007, base.address, dead.getsockname()))
            assert {(await request((router.host, 20007)))[1] for _ in range(8)} == {b"base"}


async def test_websocket_and_long_streams(router: Router) -> None:
    """After an upgrade bytes flow both ways, by key, and a slow streamed answer arrives piece by piece."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"websocket" in head:
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
            while data := await reader.read(100):
                writer.write(b"fork:" + data)
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(3):
                writer.write(b"9\r\ndata: x\n\n\r\n")
                await writer.drain()
                await reader.readexactly(1)  # the next piece only when the last one has arrived

    async with echo("base") as base, server(talk) as fork:
        await router.serve([*service("ws", 20008, base.address), *sandbox("a", "ws", fork)])
        async with connect((router.host, 20008)) as (reader, writer):
            upgrade = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", with_key("a"), "", ""]
            writer.write("\r\n".join(["GET / HTTP/1.1", "Host: x", *upgrade]).encode())
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
            for word in (b"hello", b"again"):
                writer.write(word)
                assert await reader.readexactly(5 + len(word)) == b"fork:" + word
        async with connect((router.host, 20008)) as (reader, writer):
            lines = ["POST / HTTP/1.1", "Host: x", with_key("a"), "Content-Length: 3", "", ""]
            writer.write("\r\n".join(lines).encode())
            await reader.readuntil(b"\r\n\r\n")
            for _ in range(3):
                async with asyncio.timeout(10):
                    assert b"data: x" in await reader.readuntil(b"\n\n\r\n")
                writer.write(b".")


async def test_grpc_over_http2_without_tls(router: Router) -> None:
    """gRPC (HTTP/2 with prior knowledge) on one connection: each call by its own key, with metadata and trailers."""

    async def grpc_server(name: str) -> tuple[grpc.aio.Server, Address]:
        async def call(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
            context.set_trailing_metadata((("served", name),))
            return request + name.encode()

        async def chat(requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
            async for each in requests:
                yield each + name.encode()

        handlers = {
            "Call": grpc.unary_unary_rpc_method_handler(call),
            "Chat": grpc.stream_stream_rpc_method_handler(chat),
        }
        made = grpc.aio.server()
        made.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
        port = made.add_insecure_port(f"{HOST}:0")
        await made.start()
        return made, (HOST, port)

    base, base_at = await grpc_server("base")
    fork, fork_at = await grpc_server("fork")
    try:
        doors = service("rpc", 20009, base_at, port={"name": "grpc"})
        await router.serve([*doors, *sandbox("a", "rpc", fork_at)])
        async with grpc.aio.insecure_channel(f"{router.host}:20009") as channel:
            for key, name in (("a", b"fork"), ("none", b"base"), ("a", b"fork")):
                metadata = (("baggage", f"sandlane-routing-key={key}"),)
                call = channel.unary_unary("/test.Echo/Call")(b"x", metadata=metadata, timeout=10)
                assert await call == b"x" + name
                assert dict(await call.trailing_metadata())["served"] == name.decode()
                chat = channel.stream_stream("/test.Echo/Chat")(metadata=metadata, timeout=10)
                for word in (b"1", b"2"):
                    await chat.write(word)
                    assert await chat.read() == word + name
                await chat.done_writing()
            await router.serve(endpoints("rpc-a"))
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await channel.unary_unary("/test.Echo/Call")(
                    b"x", metadata=(("baggage", "sandlane-routing-key=a"),), timeout=10
                )
            assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
    finally:
        await base.stop(0)
        await fork.stop(0)


@pytest.mark.parametrize(("port", "number"), [({"name": "data"}, 20010), ({"name": "tcp-data"}, 20011)])
async def test_other_tcp_passes_untouched(router: Router, port: dict[str, str], number: int) -> None:
    """Bytes that are no HTTP reach the baseline as they are, in both directions, and with half-closed connections."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"I speak first\n")
        writer.write(b"got " + await reader.read())
        writer.close()

    async with server(talk) as base, echo("fork") as fork:
        doors = service(f"tcp{number}", number, base, port=port)
        await router.serve([*doors, *sandbox("a", f"tcp{number}", fork.address)])
        hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256))  # the beginning of TLS
        for first in (True, False):
            async with connect((router.host, number)) as (reader, writer):
                async with asyncio.timeout(10):
                    if first:
                        assert await reader.readline() == b"I speak first\n"
                    writer.write(hello)
                    if not first:
                        assert await reader.readline() == b"I speak first\n"
                    writer.write_eof()
                    assert await reader.read() == b"got " + hello


async def test_a_port_without_a_name_speaks_http_by_key(router: Router) -> None:
    """Where the Service does not say what a port speaks, requests that look like HTTP are routed by key."""
    async with echo("base") as base, echo("fork") as fork:
        doors = service("sniffed", 20012, base.address, port={"name": "web"})
        await router.serve([*doors, *sandbox("a", "sniffed", fork.address)])
        at = (router.host, 20012)
        assert [(await request(at, with_key(key)))[1] for key in ("a", "b")] == [b"fork", b"base"]


async def test_udp_goes_to_the_baseline(router: Router) -> None:
    """Datagrams get there, and answers come back."""

    class Reply(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            self.transport.sendto(b"re: " + data, addr)  # type: ignore[attr-defined]

    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Reply, (HOST, 0))
    try:
        address = transport.get_extra_info("sockname")
        await router.serve(service("dns", 20013, address, port={"protocol": "UDP"}))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setblocking(False)
            client.connect((router.host, 20013))
            for word in (b"one", b"two"):
                await loop.sock_sendall(client, word)
                async with asyncio.timeout(10):
                    assert await loop.sock_recv(client, 100) == b"re: " + word
    finally:
        transport.close()


async def test_session_affinity_holds_through_the_router(router: Router) -> None:
    """With sessionAffinity all requests of one client reach one endpoint; without, all endpoints."""
    async with echo("x") as x, echo("y") as y:
        addresses = (x.address, y.address)
        for number, sticky in ((20014, {"sessionAffinity": "ClientIP"}), (20015, {})):
            await router.serve(service(f"sticky{number}", number, *addresses, **sticky))
            found = {(await request((router.host, number)))[1] for _ in range(8)}
            assert len(found) == (1 if sticky else 2)


async def test_keys_from_outside_are_taken_off_at_the_edge(router: Router) -> None:
    """At an edge door a key neither counts nor is passed on; everything else in the same headers is."""
    async with echo("base") as base, echo("fork") as fork:
        await router.serve([*service("edge", 20016, base.address, edge=True), *sandbox("a", "edge", fork.address)])
        at = (router.host, 20016)
        sent = ["Baggage: user=7 , sandlane-routing-key=a;p=1,x=y", "tracestate: sandlane-routing-key=a", "X-A: 1"]
        assert (await request(at, *sent))[1] == b"base"
        assert base.heads[-1].decode().split("\r\n")[2:-2] == ["X-A: 1", "Baggage: user=7 ,x=y"]
        await request(at, "Baggage: user=7", "tracestate: a=1")
        assert base.heads[-1].decode().split("\r\n")[2:-2] == ["Baggage: user=7", "tracestate: a=1"]


async def test_failures_are_logged_with_door_and_destination(router: Router) -> None:
    """A request that fails in the router leaves a line that says where, for whom and why."""
    with socket.socket() as dead:
        dead.bind((HOST, 0))
        await router.serve([*service("logged", 20017), *sandbox("a", "logged", dead.getsockname())])
        await request((router.host, 20017), with_key("a"))
        await until(lambda: "door=n/logged:80 served-by=a/logged-a" in router.log.read_text(), "the line is written")


async def test_a_router_says_what_it_refuses(router: Router) -> None:
    """Its answer at the port where it is asked has what it was given to say, whatever characters the reason has."""
    refuses = Refuses("t1", (Refusal(LISTENER, "n/x:80", "1", '100% wrong: "%REQ(a)%"\n\u00fc'),) * 20)
    own = {DIGEST: encoded(digest_listener(router.host, refuses), listener_pb2.Listener())}
    router.publish({LISTENER: router.translation.listeners(support.NAMESPACE, router.host) | own})
    said: list[Refuses] = []

    async def heard_of() -> bool:
        with contextlib.suppress(ConnectionRefusedError):  # not yet listening
            head, _ = await request((router.host, READY_PORT))
            said.extend(heard(line.partition(": ")[2]) for line in head if line.startswith(REFUSES_HEADER))
        return bool(said)

    async with asyncio.timeout(10):
        while not await heard_of():
            await asyncio.sleep(0.02)
    assert said[-1].but_for == refuses.but_for
    assert set(said[-1].refusals) == set(refuses.refusals)
    assert heard("what some other server says") == heard("") == NOTHING
