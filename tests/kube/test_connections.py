"""HTTP/1.1 as servers speak it: every framing, in pieces of any size, and connections that end at any moment."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandlane.kube import connections
from sandlane.kube.config import Config
from sandlane.kube.connections import Connections
from sandlane.kube.http import HttpTransport
from sandlane.kube.transport import Request, Response
from support.thorough import cases

Answer = Callable[[bytes, int], list[bytes] | None]
"""What the server writes for a request's bytes and number, piece by piece; an empty piece hangs up, None does so at once."""
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Server:
    """Writes what a test wants."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.requests: list[bytes] = []
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next((int(x[16:]) for x in head.split(b"\r\n") if x.startswith(b"content-length: ")), 0)
                self.requests.append(head + await reader.readexactly(length))
                for piece in self._answer(self.requests[-1], len(self.requests)) or [b""]:
                    if not piece:
                        return
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def server(answer: Answer, prefix: str = "") -> AsyncIterator[tuple[Server, Connections]]:
    """A server and connections to it."""
    serving = Server(answer)
    listening = await asyncio.start_server(serving.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    pool = Connections(f"http://127.0.0.1:{port}{prefix}", None)
    try:
        async with asyncio.timeout(20):
            yield serving, pool
    finally:
        await pool.close()
        listening.close()
        await listening.wait_closed()


def always(*pieces: bytes) -> Answer:
    """The same for each request."""
    return lambda request, number: list(pieces)


async def get(pool: Connections) -> Response:
    """A request."""
    return await pool.send("GET", "/a", [], b"", _soon())


@pytest.mark.parametrize(
    ("answer", "status", "body", "reused"),
    [
        (OK, 200, b"ok", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
        (b"HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n", 200, b"", True),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n2;x=y\r\nbc\r\n0\r\n\r\n", 200, b"abc", True),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx-trailer: 1\r\n\r\n", 200, b"", True),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, 200, b"ok", True),
        (b"HTTP/1.1 500 Oh\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno", 500, b"no", False),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", 200, b"ok", False),
        (OK + b"more", 200, b"ok", False),
    ],
)
async def test_framings(answer: bytes, status: int, body: bytes, reused: bool) -> None:
    """Lengths, chunks, no body, interim answers; whole or byte by byte; the connection is kept where it can be."""
    for pieces in ([answer], [answer[n : n + 1] for n in range(len(answer))]):
        if not reused and len(pieces) > 1 and answer.endswith(b"more"):
            continue  # what comes later belongs to nobody: see below
        async with server(always(*pieces)) as (serving, pool):
            for _ in range(2):
                found = await get(pool)
                assert (found.status, found.body) == (status, body)
            assert serving.connections == (1 if reused else 2)


async def test_a_body_that_ends_with_the_connection() -> None:
    """Without a length, all until the end is the answer."""
    async with server(always(b"HTTP/1.1 200 OK\r\n\r\nab", b"cd", b"")) as (_, pool):
        assert (await get(pool)).body == b"abcd"


async def test_compressed_answers() -> None:
    """gzip is asked for and undone."""
    packed = gzip.compress(b"x" * 5000)
    answer = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(packed) + packed
    async with server(always(answer)) as (serving, pool):
        assert (await get(pool)).body == b"x" * 5000
        assert b"accept-encoding: gzip" in serving.requests[0]
    async with server(always(answer.replace(packed, b"y" * len(packed)))) as (_, pool):
        with pytest.raises(OSError, match="gzip"):
            await get(pool)


@settings(max_examples=cases(30))
@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=6),
    st.lists(st.integers(1, 30), min_size=1, max_size=20),
)
def test_chunks_in_pieces_of_any_size(chunks: list[bytes], sizes: list[int]) -> None:
    """However the network cuts it, the body is the chunks."""
    data = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    data += b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"

    async def run() -> Response:
        connection = connections._Connection()
        waiter = connection._waiter = asyncio.get_running_loop().create_future()
        rest, turn = data, 0
        while rest:
            size = sizes[turn % len(sizes)]
            connection.data_received(rest[:size])
            rest, turn = rest[size:], turn + 1
        return await waiter

    assert asyncio.run(run()).body == b"".join(chunks)


@pytest.mark.parametrize(
    "pieces",
    [
        [b"SSH-2.0-OpenSSH_9\r\n\r\n"],
        [b"HTTP/1.1 abc\r\n\r\n"],
        [b"HTTP/1.1 101 Switching Protocols\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n"],
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-5\r\n"],
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc"],
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab", b""],
        [b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nab", b""],
        [b"HTTP/1.1 200 OK\r\nx: ", *[b"y" * 65536] * 5],
        [b""],
    ],
)
async def test_answers_that_are_none(pieces: list[bytes]) -> None:
    """Garbage, endless heads and answers that break off are errors, never half an answer, and end the connection."""
    async with server(lambda request, number: pieces if number == 1 else [OK]) as (serving, pool):
        with pytest.raises(OSError, match=r"HTTP|closed|reset"):
            await get(pool)
        assert (await get(pool)).body == b"ok"
        assert serving.connections == 2


@pytest.mark.parametrize(("method", "again"), [("GET", True), ("PUT", True), ("DELETE", True), ("PATCH", False)])
async def test_a_connection_that_the_server_closed_just_then(method: str, again: bool) -> None:
    """What may be sent twice is sent again on a new connection; the rest is an error, for it may have had its effect."""
    async with server(lambda request, number: None if number == 2 else [OK]) as (serving, pool):
        await get(pool)
        if again:
            assert (await pool.send(method, "/a", [], b"", _soon())).status == 200
            assert (len(serving.requests), serving.connections) == (3, 2)
        else:
            with pytest.raises(ConnectionError):
                await pool.send(method, "/a", [], b"", _soon())


async def test_bytes_that_nobody_asked_for_end_the_connection() -> None:
    """A late surplus must not become the next request's answer."""
    late = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"
    async with server(lambda request, number: [OK, late] if number == 1 else [OK]) as (serving, pool):
        assert (await get(pool)).body == b"ok"
        await asyncio.to_thread(lambda: None)
        while pool._idle:  # until the surplus has arrived
            await asyncio.sleep(0)
        assert (await get(pool)).body == b"ok"
        assert serving.connections == 2


async def test_a_cancelled_request_takes_its_connection_with_it() -> None:
    """The next request does not get its answer."""
    async with server(lambda request, number: [b"HTTP/1.1 200 OK\r\n"] if number == 1 else [OK]) as (serving, pool):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await get(pool)
        assert (await get(pool)).body == b"ok"
        assert serving.connections == 2


async def test_requests_at_the_same_time_have_their_own_connections() -> None:
    """And unused ones are closed after a while."""
    async with server(always(OK)) as (serving, pool):
        assert {found.body for found in await asyncio.gather(*(get(pool) for _ in range(20)))} == {b"ok"}
        assert serving.connections == len(pool._all) > 1
        for connection in pool._idle:
            connection.idle_since -= connections.IDLE_SECONDS + 1
        await get(pool)
        assert serving.connections == 21
        while len(pool._all) > 1:
            await asyncio.sleep(0)


async def test_what_is_sent() -> None:
    """Path below the server's own, host, headers, length; no line break gets through."""
    async with server(always(OK), "/clusters/one/") as (serving, pool):
        await pool.send("POST", "/api?x=%20", [("a", "b"), ("a", "c")], b"body", _soon())
        head, _, body = serving.requests[0].partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        assert lines[0] == b"POST /clusters/one/api?x=%20 HTTP/1.1"
        assert lines[1].startswith(b"host: 127.0.0.1:")
        assert lines[3:] == [b"a: b", b"a: c", b"content-length: 4"]
        assert body == b"body"
        for target, value in (("/a\r\nx: y", ""), ("/a", "b\nc"), ("/a", "b\rc")):
            with pytest.raises(ConnectionError, match="line break"):
                await pool.send("GET", target, [("h", value)], b"", _soon())
        with pytest.raises(ConnectionError, match="space"):
            await pool.send("GET", "/a HTTP/1.1", [], b"", _soon())


async def test_redirects_of_reads_are_followed() -> None:
    """An API server's front may send a reader elsewhere."""

    def answer(request: bytes, number: int) -> list[bytes]:
        if request.startswith(b"GET /there"):
            return [OK]
        return [b"HTTP/1.1 307 There\r\nlocation: /there\r\ncontent-length: 0\r\n\r\n"]

    async with server(answer) as (_, pool):
        transport = HttpTransport(Config(server=f"http://{pool._name}"))
        assert (await transport.send(Request("GET", "/a"), timeout=10)).body == b"ok"
        assert (await transport.send(Request("PUT", "/a"), timeout=10)).status == 307
        await transport.close()


async def test_an_answer_that_never_comes() -> None:
    """The deadline ends the wait, also after a part of the answer, and takes the connection with it."""
    async with server(always(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab")) as (_, pool):
        with pytest.raises(TimeoutError):
            await pool.send("GET", "/a", [], b"", asyncio.get_running_loop().time() + 0.05)
        assert not pool._idle


def _soon() -> float:
    """A deadline that a test does not reach."""
    return asyncio.get_running_loop().time() + 30
