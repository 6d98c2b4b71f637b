"""What a router does with a laptop: whole TCP connections, and requests that wait for it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from sandlane.api.types import OnDisconnect
from sandlane.laptop.inbound import LocalTarget
from sandlane.routing.tunnels import DISCONNECTED, REASON_HEADER
from support.tunnel import UID, Tunnel
from support.tunnel_router import front, router


@pytest.fixture
async def tunnel(tmp_path: Path) -> AsyncIterator[Tunnel]:
    """A tunnel server that one LocalWorkload may use, and routers without a certificate."""
    made = Tunnel(tmp_path)
    made.allow(UID)
    async with made.server(tls_ingress=False):
        yield made


async def test_a_whole_connection(tunnel: Tunnel) -> None:
    """Plain TCP goes through, also when the server speaks first, and its end arrives."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\n")
        writer.write(b"got " + await reader.readline())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        door = front("tcp", OnDisconnect.FAIL)
        async with tunnel.laptop(UID, LocalTarget(8084, "127.0.0.1", port)), router(tunnel, door) as entry:
            reader, writer = await asyncio.open_connection("127.0.0.1", entry)
            assert await reader.readline() == b"hello\n"
            writer.write(b"bytes\n")
            assert await reader.read() == b"got bytes\n"
            writer.close()


async def get(port: int) -> tuple[int, str]:
    """Status and reason of a request."""
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/") as answer:
        return answer.status, answer.headers.get(REASON_HEADER, "")


async def test_held_until_the_laptop_is_there(tunnel: Tunnel) -> None:
    """With Hold a request waits for the laptop, with its body, and is answered by it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        door = front("http", OnDisconnect.HOLD, connected=False)
        async with router(tunnel, door) as entry, asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(get(entry))
            async with tunnel.laptop(UID, LocalTarget(8084, "127.0.0.1", port)):
                assert await waiting == (200, "")


async def test_held_for_its_time_and_no_longer(tunnel: Tunnel) -> None:
    """With Hold a request fails with the reason after about `holdSeconds`."""
    loop = asyncio.get_running_loop()
    async with router(tunnel, front("http", OnDisconnect.HOLD, connected=False, hold=1)) as entry:
        start = loop.time()
        assert await get(entry) == (503, DISCONNECTED)
        assert loop.time() - start > 0.4


async def test_a_laptop_that_is_known_to_be_gone(tunnel: Tunnel) -> None:
    """With Fail the answer is there at once, and says why."""
    async with router(tunnel, front("http", OnDisconnect.FAIL, connected=False)) as entry:
        assert await get(entry) == (503, DISCONNECTED)


async def serving(seen: list[bytes], *, answers: bool = True) -> asyncio.Server:
    """A server that notes each request, its body included, and answers it, or closes the connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head.lower())
        seen.append(head + (await reader.readexactly(int(length[1])) if length else b""))
        if answers:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
            await writer.drain()
        writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0)


def port_of(server: asyncio.Server) -> int:
    return int(server.sockets[0].getsockname()[1])


async def test_the_baseline_answers_what_no_laptop_has_seen(tunnel: Tunnel) -> None:
    """With Baseline a request to a laptop that has just gone is tried at the tunnel servers, then the baseline has it whole and as the
    client sent it; nothing of ours is in it."""
    seen: list[bytes] = []
    async with (
        await serving(seen) as server,
        router(tunnel, front("http", OnDisconnect.BASELINE), baseline=port_of(server)) as entry,
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", entry)
        request = b"POST /a HTTP/1.1\r\nhost: h\r\nX-Case: Kept\r\nContent-Length: 5\r\n\r\nhello"
        writer.write(request)
        assert (await reader.readline()).split()[1] == b"200"
        writer.close()
    assert seen == [request]


async def test_what_a_laptop_may_have_seen_is_nobody_elses(tunnel: Tunnel) -> None:
    """With Baseline, too, a request is asked once: the process on the laptop took it and broke off."""
    theirs: list[bytes] = []
    mine: list[bytes] = []
    async with await serving(theirs) as baseline, await serving(mine, answers=False) as server:
        target = LocalTarget(8084, "127.0.0.1", port_of(server))
        door = front("http", OnDisconnect.BASELINE)
        async with tunnel.laptop(UID, target), router(tunnel, door, baseline=port_of(baseline)) as entry:
            assert (await get(entry))[0] == 503
    assert (len(mine), theirs) == (1, [])


async def test_no_tunnel_server_at_all(tmp_path: Path) -> None:
    """The router's own answer says why, too."""
    async with router(Tunnel(tmp_path), front("http", OnDisconnect.FAIL)) as entry:
        assert await get(entry) == (503, DISCONNECTED)
