"""Ways out of a laptop: by a Service's variables, by its name through the HTTP proxy, and by SOCKS; the key goes in on the way."""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from sandlane.kube.client import Client
from sandlane.kube.clock import SystemClock
from sandlane.kube.resource import Key
from sandlane.laptop.forward import Forwarder
from sandlane.laptop.reaching import Reaching, endpoints
from sandlane.laptop.services import Door, doors, find_door, variables
from sandlane.laptop.socks import serve


def service(
    name: str, *ports: dict[str, Any], namespace: str = "rides", address: str = "10.0.0.7", **spec: Any
) -> dict[str, Any]:
    """A Service."""
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"clusterIP": address, "ports": list(ports), **spec},
    }


WEB = service("web", {"name": "http", "port": 80}, {"name": "debug", "port": 99, "protocol": "UDP"})
DATA = service("data", {"name": "redis", "port": 6379}, {"port": 5000}, namespace="stores", address="None")


def test_the_doors_of_services() -> None:
    """Every TCP port, with what it speaks; no UDP, and no Service that is only another name."""
    found = doors([WEB, DATA, service("else", {"port": 1}, type="ExternalName")])
    assert found == [
        Door("rides", "web", 80, "http", "http", "10.0.0.7"),
        Door("stores", "data", 5000, "sniff"),
        Door("stores", "data", 6379, "tcp", "redis"),
    ]
    for host in ("web", "web.rides", "WEB.rides.svc", "web.rides.svc.cluster.local.", "10.0.0.7"):
        assert find_door(found, "rides", host, 80) is not None, host
    assert find_door(found, "stores", "web", 80) is None
    assert find_door(found, "rides", "web", 81) is None


def test_variables_name_listeners_of_this_laptop() -> None:
    """As a Pod of the namespace has them; headless Services have none there either."""
    local = {Door("rides", "web", 80, "http", "http", "10.0.0.7"): 4711}
    found = variables([WEB, DATA], "rides", local)
    assert found["WEB_SERVICE_HOST"] == "127.0.0.1"
    assert found["WEB_SERVICE_PORT"] == found["WEB_SERVICE_PORT_HTTP"] == "4711"
    assert not any(name.startswith("DATA") for name in found)
    assert variables([WEB], "stores", local) == {}


def test_the_ready_pods_behind_a_port() -> None:
    """By the port's name; what is not ready, or no Pod, takes no connections."""
    piece = {
        "metadata": {"namespace": "rides"},
        "ports": [{"name": "http", "port": 8080}, {"name": "other", "port": 1}],
        "endpoints": [
            {"targetRef": {"kind": "Pod", "name": "a"}, "conditions": {"ready": True}},
            {"targetRef": {"kind": "Pod", "name": "b"}, "conditions": {"ready": False}},
            {"addresses": ["10.0.0.1"]},
        ],
    }
    assert endpoints([piece], "http") == [(Key("rides", "a"), 8080)]


@asynccontextmanager
async def ways_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Reaching]:
    """Ways out whose Pods are an application in this process: HTTP, or a server that speaks first."""

    async def answer(request: web.Request) -> web.Response:
        return web.json_response(
            {"path": request.path, "host": request.host, "baggage": request.headers.get("baggage")}
        )

    application = web.Application()
    application.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "http")).start()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\n")
        writer.write(b"got " + await reader.readline())
        writer.close()

    greeter = await asyncio.start_unix_server(greet, tmp_path / "greet")

    async def join(self: Forwarder, reader: Any, writer: Any, pod: Key, port: int) -> None:
        there = await asyncio.open_unix_connection(tmp_path / ("http" if port == 80 else "greet"))

        async def one_way(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                sink.write(data)
            sink.close()

        try:
            await asyncio.gather(one_way(reader, there[1]), one_way(there[0], writer))
        finally:
            there[1].close()

    async def endpoint(self: Reaching, door: Door) -> tuple[Key, int]:
        if door.port == 81:
            raise ConnectionError("no Pod of it is ready")
        return Key(door.namespace, "pod"), door.port

    monkeypatch.setattr(Forwarder, "join", join)
    monkeypatch.setattr(Reaching, "_endpoint", endpoint)
    services = [service("web", {"name": "http", "port": 80}), DATA, service("away", {"name": "http", "port": 81})]
    client: Client = None  # type: ignore[assignment]  # endpoints and port-forward are replaced
    made = Reaching(client, SystemClock(), random.Random(1), "rides", services, tmp_path, "k1")
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(made.run())
        await made.started.wait()
        yield made
        running.cancel()
    greeter.close()
    await runner.cleanup()


async def test_requests_reach_services_and_get_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the Service's own listener and by its names through the proxy; a key or other baggage of the client's stays."""
    async with ways_out(tmp_path, monkeypatch) as reaching:
        web_door, proxy = reaching.doors[1], f"http://127.0.0.1:{reaching.proxy_port}"
        assert web_door.service == "web"
        here = f"http://127.0.0.1:{reaching.local[web_door]}"

        async def baggage(url: str, **options: Any) -> Any:
            async with session.get(url, **options) as response:
                assert response.status == 200
                return (await response.json())["baggage"]

        async with aiohttp.ClientSession() as session:
            assert await baggage(f"{here}/x") == "sandlane-routing-key=k1"
            for name in ("web", "web.rides", "web.rides.svc", "web.rides.svc.cluster.local:80"):
                assert await baggage(f"http://{name}/", proxy=proxy) == "sandlane-routing-key=k1"
            own = {"baggage": "a=b, sandlane-routing-key=mine"}
            assert await baggage(here, headers=own) == own["baggage"]
            assert await baggage(here, headers={"tracestate": "x=1,sandlane-routing-key=mine"}) is None
            assert "a=b" in await baggage(f"{here}/", headers={"baggage": "a=b"})


async def test_connect_and_socks_reach_the_same_services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CONNECT through the HTTP proxy gets the key, too; a server that speaks first is heard, whatever its port is called."""
    async with ways_out(tmp_path, monkeypatch) as reaching:
        reader, writer = await asyncio.open_connection("127.0.0.1", reaching.proxy_port)
        writer.write(b"CONNECT web.rides.svc:80 HTTP/1.1\r\nhost: web.rides.svc:80\r\n\r\n")
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        writer.write(b"GET /through HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n")
        assert b"sandlane-routing-key=k1" in await reader.read()
        writer.close()
        for port in (5000, 6379):
            reader, writer = await _socks(reaching.socks_port, "data.stores", port)
            assert await reader.readline() == b"hello\n"
            writer.write(b"world\n")
            assert await reader.readline() == b"got world\n"
            writer.close()


async def test_what_cannot_be_reached_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client gets a 503, the user the reason; a name that nobody knows is an error, too."""
    async with ways_out(tmp_path, monkeypatch) as reaching:
        said: list[str] = []
        reaching.on_failure = said.append
        proxy = f"http://127.0.0.1:{reaching.proxy_port}"
        async with aiohttp.ClientSession() as session:
            for url in ("http://away:81/", "http://no-such-name.invalid/"):
                async with session.get(url, proxy=proxy) as response:
                    assert response.status == 503
        assert said
        assert set(said) == {"away.rides:81: no Pod of it is ready"}


async def test_socks_refuses_what_it_does_not_do() -> None:
    """Other commands are answered as the RFC says; other protocols hear the end of the connection."""
    opened = []

    async def open_(host: str, port: int) -> Any:
        opened.append((host, port))
        raise ConnectionRefusedError

    server = await asyncio.start_server(lambda r, w: serve(r, w, open_), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    for request, answer in (
        (b"\x05\x01\x00" + b"\x05\x02\x00\x01\x7f\0\0\x01\0\x50", b"\x05\x07"),  # BIND
        (b"\x05\x01\x00" + b"\x05\x01\x00\x09", b"\x05\x08"),  # an address of no known kind
        (b"\x05\x01\x00" + b"\x05\x01\x00\x04" + b"\0" * 15 + b"\x01\0\x50", b"\x05\x04"),  # nobody there
        (b"GET / HTTP/1.1\r\n\r\n", b""),
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        heard = await reader.read()
        assert heard[2:4] == answer if answer else heard == b""
        writer.close()
    assert opened == [("::1", 80)]
    server.close()


async def _socks(port: int, host: str, to: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"\x05\x01\x00")
    assert await reader.readexactly(2) == b"\x05\x00"
    writer.write(b"\x05\x01\x00\x03" + bytes([len(host)]) + host.encode() + struct.pack(">H", to))
    assert (await reader.readexactly(10))[1] == 0
    return reader, writer
