"""The local Envoy passes requests on as the developer's process speaks, and writes them down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from aiohttp import web

from sandlane.kube.clock import SystemClock
from sandlane.laptop.inbound import Inbound, LocalTarget, inbound_bootstrap
from sandlane.laptop.pieces import cluster, http_manager, listener, pipe, tcp, upstream
from sandlane.laptop.process import Envoy
from sandlane.laptop.requests import RequestLog
from sandlane.routing.tunnels import PORT_HEADER
from support.tunnel import free_port


@asynccontextmanager
async def envoy(folder: Path, log: RequestLog, *targets: LocalTarget) -> AsyncIterator[str]:
    """The laptop's Envoy, behind one that speaks HTTP/2 to it as tunnel servers do; the URL of that one."""
    inbound = inbound_bootstrap([Inbound("rides/a", str(folder / "in"), targets)], str(folder / "admin"))
    port = free_port()
    route = {"match": {"prefix": "/"}, "route": {"cluster": "laptop", "timeout": "0s"}}
    manager = http_manager("front", [{"name": "all", "domains": ["*"], "routes": [route]}])
    h2 = upstream(explicit_http_config={"http2_protocol_options": {}})
    front = {
        "admin": {"address": pipe(str(folder / "front"))},
        "static_resources": {
            "listeners": [listener("front", tcp("127.0.0.1", port), {"filters": [manager]})],
            "clusters": [cluster("laptop", pipe(str(folder / "in")), typed_extension_protocol_options=h2)],
        },
    }
    both = [Envoy(inbound, SystemClock(), lambda chunk: log.feed(chunk) and None), Envoy(front, SystemClock())]
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(each.run()) for each in both]
        for each in both:
            await each.ready()
        yield f"http://127.0.0.1:{port}"
        for task in running:
            task.cancel()


async def test_what_the_process_speaks(tmp_path: Path) -> None:
    """HTTP/1.1 by default, with events as they come; HTTP/2 from the first byte where the port is for that; all in the log."""

    async def events(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        await response.write(b"data: 2\n\n")
        return response

    application = web.Application()
    application.router.add_get("/events", events)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    heard = asyncio.Event()

    async def preface(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readexactly(24) == b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n":
            heard.set()
        writer.close()

    server = await asyncio.start_server(preface, "127.0.0.1", 0)
    log = RequestLog()
    targets = (
        LocalTarget(80, "127.0.0.1", runner.addresses[0][1]),
        LocalTarget(81, "127.0.0.1", server.sockets[0].getsockname()[1], http2=True),
    )
    async with envoy(tmp_path, log, *targets) as url, aiohttp.ClientSession() as session:

        async def get(port: int, path: str = "/") -> str:
            async with session.get(f"{url}{path}", headers={PORT_HEADER: str(port)}) as response:
                return await response.text()

        assert await get(80, "/events") == "data: 1\n\ndata: 2\n\n"
        await get(81)
        await asyncio.wait_for(heard.wait(), 10)
        assert "no such port is mapped" in await get(82)
        async with asyncio.timeout(10):
            while log.count < 3:
                await asyncio.sleep(0.01)
    first = log.last[0]
    assert (first.workload, first.port, first.path, first.status) == ("rides/a", "80", "/events", 200)
    server.close()
    await runner.cleanup()
