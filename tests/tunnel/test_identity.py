"""A tunnel is its certificate's: what a laptop writes into the handshake, old certificates and other clients change nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest

from sandlane.laptop.dialler import Refused
from sandlane.routing.tunnels import DISCONNECTED, ID_HEADER, PORT_HEADER, REASON_HEADER
from sandlane.tunnel.bootstrap import HANDSHAKE_PATH, PING, STATS
from sandlane.tunnel.identity import TAKEN_OVER, Claim
from sandlane.tunnel.routes import Holder
from sandlane.tunnel.watch import Reading, read_gauges
from support.tunnel import OTHER_UID, SESSION, UID, Tunnel, eventually

NEXT = "fedcba9876543210"


@pytest.fixture
async def tunnel(tmp_path: Path) -> AsyncIterator[Tunnel]:
    """A tunnel server that two LocalWorkloads may use."""
    made = Tunnel(tmp_path)
    made.allow(UID, OTHER_UID)
    async with made.server():
        yield made


async def ask(tunnel: Tunnel, uid: str, port: str = PING, path: str = "/") -> tuple[int, str, str]:
    """Status, reason and body of a request from a router."""
    url = f"https://127.0.0.1:{tunnel.options.ingress_port}{path}"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tunnel.router())) as session:
        async with session.get(url, headers={ID_HEADER: uid, PORT_HEADER: port}) as response:
            return response.status, response.headers.get(REASON_HEADER, ""), await response.text()


async def gauges(tunnel: Tunnel) -> Reading:
    """What the manager sees."""
    return read_gauges((await ask(tunnel, STATS, path="/stats"))[2])


async def handshake(tunnel: Tunnel, uid: str, **headers: str) -> tuple[bytes, asyncio.StreamWriter]:
    """The first line of the answer to a handshake of our own."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", tunnel.options.front_port, ssl=tunnel.pki.client(uid), server_hostname="tunnel"
    )
    lines = [f"GET {HANDSHAKE_PATH} HTTP/1.1", "host: tunnel", "connection: upgrade", "upgrade: reverse-tunnel"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    return await reader.readline(), writer


async def test_an_impostor_gets_nothing(tunnel: Tunnel) -> None:
    """A laptop that claims to be another one in each header that Envoy reads holds its own tunnel and no other."""
    mine, other = Claim(SESSION, UID), Claim(SESSION, OTHER_UID)
    claims = {
        "x_envoy_reverse_tunnel_node_id": other.identity,
        "x_envoy_reverse_tunnel_cluster_id": other.identity,
        "x_envoy_reverse_tunnel_tenant_id": OTHER_UID,
        "x_sandlane_tunnel_workload": other.workload,
    }
    line, writer = await handshake(tunnel, UID, **claims)
    assert b" 101 " in line
    async with asyncio.timeout(5):
        while mine not in (found := await gauges(tunnel)):
            await asyncio.sleep(0.01)
    assert set(found) == {mine}
    assert (found[mine].count, found[mine].remote_address) == (1, "127.0.0.1")
    assert (await ask(tunnel, OTHER_UID))[:2] == (503, DISCONNECTED)
    writer.close()


async def test_the_gauges_say_who_is_gone(tunnel: Tunnel) -> None:
    """A laptop's tunnels are counted while they are there, used or not."""
    claim = Claim(SESSION, UID)
    async with tunnel.laptop(UID):
        assert (await ask(tunnel, UID))[0] == 200
        assert (await gauges(tunnel))[claim].count == 1
    async with asyncio.timeout(5):
        while claim in await gauges(tunnel):
            await asyncio.sleep(0.01)


async def test_who_is_taken_over_from_is_told(tunnel: Tunnel) -> None:
    """From the moment another client holds it, the first one gets no request and no tunnel, and learns why."""
    async with tunnel.laptop(UID):
        assert (await ask(tunnel, UID))[0] == 200
        tunnel.publish({UID: Holder(NEXT, "jane")})
        async with asyncio.timeout(5):
            while (await ask(tunnel, UID))[:2] != (503, DISCONNECTED):
                await asyncio.sleep(0.01)
        with pytest.raises(Refused) as refused:
            async with asyncio.timeout(10):
                await tunnel.dialler(UID, tunnel.folder / "none.sock").run()
        assert (refused.value.status, refused.value.reason) == (403, TAKEN_OVER)
        assert "jane" in refused.value.detail
        line, writer = await handshake(tunnel, OTHER_UID)
        assert b" 403 " in line
        writer.close()


async def test_a_renewed_certificate_leaves_no_gap(tunnel: Tunnel) -> None:
    """Tunnels with the next certificate of the same client stand beside the old ones, and take over when these go."""
    renewed = tunnel.pki.client(UID, timedelta(hours=2))
    path = tunnel.folder / f"{UID[:8]}.sock"
    async with asyncio.TaskGroup() as tasks, tunnel.laptop(UID):
        other = tunnel.dialler(UID, path, context=renewed)
        running = tasks.create_task(other.run())
        async with asyncio.timeout(10):
            while (found := (await gauges(tunnel)).get(Claim(SESSION, UID))) is None or found.count < 2:
                assert (await ask(tunnel, UID))[0] == 200
        running.cancel()


async def test_an_expired_certificate_opens_nothing(tunnel: Tunnel) -> None:
    """The server ends the connection; the dialler says so and goes on trying."""
    expired = tunnel.pki.client(UID, timedelta(seconds=-1))
    dialler = tunnel.dialler(UID, tunnel.folder / "none.sock", context=expired)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(dialler.run())
        await eventually(lambda: bool(dialler.state.error), "the dialler reports it")
        assert not dialler.state.connected
        task.cancel()
    assert not await gauges(tunnel)
