"""Many laptops at one tunnel server: memory of each, all back after the server was killed; and one that is reset again and again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
from aiohttp import web

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from bench.faulty import FaultyProxy
from bench.report import Table
from sandlane.laptop.dialler import Dialler, direct
from sandlane.laptop.inbound import Inbound, LocalTarget, inbound_bootstrap
from sandlane.routing.tunnels import ID_HEADER, PORT_HEADER
from sandlane.tunnel.bootstrap import PING
from support.tunnel import UID, RealClock, Tunnel, eventually, free_port, running_envoy

LAPTOPS = 200
RESETS = 30
BODY = int(os.environ.get("BODY_MIB", "1024")) << 20
CHUNK = b"x" * (1 << 20)
PAUSE = 2.0
LIMITS = (
    "Limits: 1 MiB of a tunnel server's memory per tunnel, all back within 15 s, back within 2 s after a reset (p99)."
)


def resident(pid: int) -> float:
    """A process's resident memory, in KiB."""
    return float(re.search(r"^VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)[1])  # type: ignore[index]


@contextlib.asynccontextmanager
async def laptops(tunnel: Tunnel, ports: dict[str, int]) -> AsyncIterator[list[Dialler]]:
    """A dialler for each uid, which dials a port of 127.0.0.1; all share one local Envoy."""
    path = tunnel.folder / "laptop.sock"
    config = inbound_bootstrap([Inbound("laptop", str(path), ())], str(tunnel.folder / "admin.sock"))
    async with running_envoy(config, tunnel.folder / "laptop.log"), asyncio.TaskGroup() as tasks:
        await eventually(path.exists, "the laptops' Envoy listens")
        made = []
        for number, (uid, port) in enumerate(ports.items()):
            context = tunnel.pki.client(uid)
            connect = direct("127.0.0.1", port, lambda context=context: context, "tunnel")  # type: ignore[misc]
            rng = random.Random(number)
            made.append(Dialler(connect, str(path), RealClock(), rng.random, replicas=1))
        running = [tasks.create_task(each.run()) for each in made]
        await eventually(lambda: all(full(each) for each in made), "all are connected", 60)
        yield made
        for task in running:
            task.cancel()


def full(dialler: Dialler) -> bool:
    """Whether it holds all its tunnels."""
    return dialler.state.connected


async def until_reached(tunnel: Tunnel, session: aiohttp.ClientSession, uid: str) -> None:
    """Ask as a router does until a request gets to the laptop."""
    url = f"https://127.0.0.1:{tunnel.options.ingress_port}/"
    for _ in range(4000):
        async with session.get(url, headers={ID_HEADER: uid, PORT_HEADER: PING}) as answer:
            if answer.status == 200:
                return
        await asyncio.sleep(0.005)
    raise SystemExit(f"{uid} is not reached")


async def many(folder: Path) -> tuple[float, float, float]:
    """KiB of the server per tunnel, idle and used, and seconds until all are back after it was killed."""
    tunnel = Tunnel(folder)
    uids = [str(uuid.UUID(int=number + 1)) for number in range(LAPTOPS)]
    tunnel.allow(*uids)
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(tunnel.server())
        empty = resident(server.pid)
        held = await stack.enter_async_context(laptops(tunnel, dict.fromkeys(uids, tunnel.options.front_port)))
        idle = resident(server.pid) - empty
        for _ in range(4):  # new connections: every worker is asked
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tunnel.router(), limit=20)) as session:
                await asyncio.gather(*(until_reached(tunnel, session, uid) for uid in uids))
        used = resident(server.pid) - empty
        server.kill()
        await eventually(lambda: not any(each.state.connected for each in held), "all notice")
        start = time.monotonic()
        await stack.enter_async_context(tunnel.server())
        await eventually(lambda: all(full(each) for each in held), "all are back", 60)
        return idle / LAPTOPS, used / LAPTOPS, time.monotonic() - start


async def resets(folder: Path) -> list[float]:
    """Seconds from each reset of all of a laptop's connections to the next request that gets through."""
    tunnel, found = Tunnel(folder), []
    tunnel.allow(UID)
    async with tunnel.server():
        proxy = FaultyProxy("127.0.0.1", tunnel.options.front_port)
        await proxy.start()
        connector = aiohttp.TCPConnector(ssl=tunnel.router())
        async with laptops(tunnel, {UID: proxy.port}) as held, aiohttp.ClientSession(connector=connector) as session:
            for _ in range(RESETS):
                await eventually(lambda: full(held[0]), "connected")
                proxy.reset()
                start = time.monotonic()  # no request gets through but by a new tunnel, which may be there in no time
                await until_reached(tunnel, session, UID)
                found.append(time.monotonic() - start)
        await proxy.close()
    return found


async def large(folder: Path) -> tuple[float, float, float]:
    """MiB/s of one large body to the laptop and of one back whose reader pauses; MiB by which the server grew."""
    tunnel = Tunnel(folder)
    tunnel.allow(UID)
    loop = asyncio.get_running_loop()

    async def take(request: web.Request) -> web.Response:
        size = 0
        async for chunk in request.content.iter_any():
            size += len(chunk)
        return web.Response(text=str(size))

    async def give(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        for _ in range(BODY // len(CHUNK)):
            await answer.write(CHUNK)
        return answer

    application = web.Application()
    application.add_routes([web.put("/", take), web.get("/", give)])
    runner = web.AppRunner(application)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()

    async def send() -> AsyncIterator[bytes]:
        for _ in range(BODY // len(CHUNK)):
            yield CHUNK

    url, headers = f"https://127.0.0.1:{tunnel.options.ingress_port}/", {ID_HEADER: UID, PORT_HEADER: "1"}
    async with tunnel.server() as server, tunnel.laptop(UID, LocalTarget(1, "127.0.0.1", port)):
        connector, timeout = aiohttp.TCPConnector(ssl=tunnel.router()), aiohttp.ClientTimeout(None)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            before, most, start = resident(server.pid), 0.0, loop.time()
            async with session.put(url, data=send(), headers=headers) as answer:
                assert int(await answer.text()) == BODY
            there, start, size = loop.time() - start, loop.time(), 0
            async with session.get(url, headers=headers) as answer:
                async for chunk in answer.content.iter_any():
                    if not size:
                        await asyncio.sleep(PAUSE)
                        most = resident(server.pid)
                    size += len(chunk)
            assert size == BODY
            most = max(most, resident(server.pid))
            back = loop.time() - start - PAUSE
    await runner.cleanup()
    return BODY / 2**20 / there, BODY / 2**20 / back, (most - before) / 1024


def run() -> list[Table]:
    """Both."""
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        idle, used, back = asyncio.run(many(Path(one)))
        times = sorted(asyncio.run(resets(Path(other))))
    with tempfile.TemporaryDirectory() as folder:
        there, back_again, grown = asyncio.run(large(Path(folder)))
    rows = (
        (
            f"a tunnel server's memory per tunnel, {LAPTOPS} laptops",
            f"{idle:.0f} KiB idle, {used:.0f} KiB used",
        ),
        (f"all {LAPTOPS} laptops back, from the start of a killed server's successor", f"{back:.1f} s"),
        (
            f"a laptop back after a reset of all its connections, p50 / p99 of {RESETS}",
            f"{statistics.median(times):.2f} s / {times[-1]:.2f} s",
        ),
    )
    size = f"{BODY >> 20} MiB"
    rows += (
        (
            f"a body of {size} to the laptop, and one back whose reader pauses",
            f"{there:.0f} MiB/s, {back_again:.0f} MiB/s",
        ),
        ("by how much that makes the tunnel server grow", f"{grown:.0f} MiB"),
    )
    return [Table("tunnels", "Many laptops", ("what", "measured"), rows, limits=(LIMITS,))]
