"""A request to the tunnel server's ingress is answered by the process on the laptop that the identity names."""

from __future__ import annotations

import asyncio
import io
import signal
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from sandlane.laptop.dialler import Refused
from sandlane.laptop.inbound import LocalTarget
from sandlane.routing.tunnels import DISCONNECTED, ID_HEADER, PORT_HEADER, REASON_HEADER
from sandlane.tunnel.bootstrap import PING
from support.tunnel import OTHER_UID, UID, Tunnel, eventually, free_port


@pytest.fixture
def tunnel(tmp_path: Path) -> Tunnel:
    made = Tunnel(tmp_path)
    made.allow(UID)
    return made


@pytest.fixture
async def app():
    """An application on the laptop that answers with what it received."""

    async def echo(request: web.Request) -> web.Response:
        body = await request.read()
        return web.json_response(
            {"path": request.path_qs, "method": request.method, "size": len(body), "headers": dict(request.headers)}
        )

    async def socket(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        async for message in ws:
            await ws.send_str(f"echo {message.data}")
        return ws

    application = web.Application(client_max_size=1 << 30)
    application.router.add_get("/ws", socket)
    application.router.add_route("*", "/{path:.*}", echo)
    runner = web.AppRunner(application)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield port
    await runner.cleanup()


def url(tunnel: Tunnel, path: str = "/") -> str:
    return f"https://127.0.0.1:{tunnel.options.ingress_port}{path}"


def to(uid: str, port: int | str) -> dict[str, str]:
    return {ID_HEADER: uid, PORT_HEADER: str(port)}


async def test_requests_reach_the_laptop(tunnel: Tunnel, app: int) -> None:
    """GET, POST with a large body and WebSocket go through, without the tunnel's own headers."""
    async with tunnel.server(), tunnel.laptop(UID, LocalTarget(8083, "127.0.0.1", app)):
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tunnel.router())) as session:
            async with session.get(url(tunnel, "/a?b=c"), headers=to(UID, 8083)) as response:
                seen = await response.json()
                assert (response.status, seen["path"]) == (200, "/a?b=c")
                assert not [name for name in seen["headers"] if name.lower().startswith(("x-sandlane", "x-envoy"))]
            async with session.post(url(tunnel), data=io.BytesIO(b"x" * (8 << 20)), headers=to(UID, 8083)) as response:
                assert (await response.json())["size"] == 8 << 20
            async with session.ws_connect(url(tunnel, "/ws"), headers=to(UID, 8083)) as ws:
                await ws.send_str("hello")
                assert (await ws.receive_str()) == "echo hello"
            async with session.get(url(tunnel), headers=to(UID, PING)) as response:
                assert (response.status, await response.text()) == (200, "pong\n")
            async with session.get(url(tunnel), headers=to(UID, 9999)) as response:
                assert response.status == 404


async def test_identity_is_the_certificates(tunnel: Tunnel, app: int) -> None:
    """Each of two laptops gets its own requests, whatever the handshake says; one that is not allowed gets none."""
    tunnel.allow(UID, OTHER_UID)
    async with tunnel.server(), tunnel.laptop(UID, LocalTarget(1, "127.0.0.1", app)), tunnel.laptop(OTHER_UID):
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tunnel.router())) as session:
            for _ in range(20):
                async with session.get(url(tunnel), headers=to(UID, 1)) as response:
                    assert response.status == 200
                async with session.get(url(tunnel), headers=to(OTHER_UID, 1)) as response:
                    assert (response.status, await response.text()) == (404, "no such port is mapped on this laptop\n")
            tunnel.allow(UID)

            async def status() -> int:
                async with session.get(url(tunnel), headers=to(OTHER_UID, PING)) as response:
                    return response.status

            async with asyncio.timeout(5):
                while await status() != 404:
                    await asyncio.sleep(0.05)


async def test_a_certificate_that_is_not_allowed_is_refused(tunnel: Tunnel) -> None:
    """The dialler ends with the server's refusal instead of trying for ever."""
    async with tunnel.server():
        dialler = tunnel.dialler(OTHER_UID, tunnel.folder / "none.sock")
        with pytest.raises(Refused) as refused:
            async with asyncio.timeout(10):
                await dialler.run()
        assert refused.value.status == 403


async def test_a_killed_server_is_dialled_again(tunnel: Tunnel, app: int) -> None:
    """After the tunnel server dies and comes back, the tunnel works again without anyone doing anything."""
    async with tunnel.server() as server, tunnel.laptop(UID, LocalTarget(1, "127.0.0.1", app)) as dialler:
        server.send_signal(signal.SIGKILL)
        await eventually(lambda: not dialler.state.connected, "the dialler notices")
        async with tunnel.server():
            await eventually(lambda: dialler.state.connected, "the tunnel is back")
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tunnel.router())) as session:
                async with session.get(url(tunnel), headers=to(UID, 1)) as response:
                    assert response.status == 200


async def test_without_a_laptop_the_answer_says_so(tunnel: Tunnel, app: int) -> None:
    """An allowed identity that holds no tunnel, or held one a moment ago, gets a 503 that names the reason."""
    async with tunnel.server():
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tunnel.router())) as session:

            async def reason() -> tuple[int, str | None]:
                async with session.get(url(tunnel), headers=to(UID, 1)) as response:
                    return response.status, response.headers.get(REASON_HEADER)

            assert await reason() == (503, DISCONNECTED)
            async with tunnel.laptop(UID, LocalTarget(1, "127.0.0.1", app)):
                assert await reason() == (200, None)
            assert await reason() == (503, DISCONNECTED)


async def test_a_process_that_does_not_listen_is_not_a_lost_laptop(tunnel: Tunnel) -> None:
    """When only the developer's process is down, the 503 does not claim that the laptop is gone."""
    async with tunnel.server(), tunnel.laptop(UID, LocalTarget(1, "127.0.0.1", free_port())):
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tunnel.router())) as session:
            async with session.get(url(tunnel), headers=to(UID, 1)) as response:
                assert (response.status, response.headers.get(REASON_HEADER)) == (503, "local-not-listening")
