"""The Service proxy with a real Envoy: connections go to ready endpoints, and nowhere when there are none."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from sandlane.local.proxy.bootstrap import NODE
from sandlane.local.proxy.translate import EndpointSlice, Resources, Service, merge, translate
from sandlane.routing.envoy.server import XdsServer
from support.service_proxy import HOST, Proxy, envoy, free_port, until

CLUSTER_IP = "127.252.32.1"


def service(port: int, **spec: Any) -> dict[str, Any]:
    """A Service with one port."""
    return {
        "metadata": {"name": "app", "namespace": "rides"},
        "spec": {"clusterIP": CLUSTER_IP, "ports": [{"port": port, **spec.pop("more", {})}], **spec},
    }


@asynccontextmanager
async def backend(name: str) -> AsyncIterator[tuple[str, int]]:
    """A server that speaks first: it says its name and what address its client has."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(name.encode() + b"\n")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(talk, HOST, 0)
    async with server:
        yield HOST, server.sockets[0].getsockname()[1]


async def ask(port: int) -> str:
    """Connect to the Service and give what its backend says first."""
    reader, writer = await asyncio.open_connection(CLUSTER_IP, port)
    try:
        async with asyncio.timeout(10):
            return (await reader.readline()).decode().strip()
    finally:
        writer.close()
        await writer.wait_closed()


async def test_connections_are_spread_over_endpoints(proxy: Proxy) -> None:
    """Every ready endpoint gets connections; one that leaves gets none any more, and none of them fails."""
    port = free_port()
    async with backend("a") as a, backend("b") as b:
        await proxy.serve(service(port), a, b)
        assert set(Counter([await ask(port) for _ in range(10)])) == {"a", "b"}
        await proxy.serve(service(port), b)
        assert {await ask(port) for _ in range(10)} == {"b"}


async def test_nobody_there_refuses_at_once(proxy: Proxy) -> None:
    """Without endpoints a connection is refused, and works as soon as there is one, again and again."""
    port = free_port()
    async with backend("a") as a:
        for _ in range(3):
            await proxy.serve(service(port))
            with pytest.raises(
                (ConnectionRefusedError, ConnectionResetError)
            ):  # reset: it came while the listener went
                await ask(port)
            await proxy.serve(service(port), a)
            assert await ask(port) == "a"


async def test_connections_outlive_their_endpoint_in_the_list(proxy: Proxy) -> None:
    """A connection that is open stays open when its endpoint is no longer ready."""
    port = free_port()
    async with backend("a") as a:
        await proxy.serve(service(port), a)
        reader, writer = await asyncio.open_connection(CLUSTER_IP, port)
        assert await reader.readline() == b"a\n"
        await proxy.serve(service(port))
        with pytest.raises(ConnectionRefusedError):
            await ask(port)
        assert not reader.at_eof()
        writer.write_eof()
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


async def test_session_affinity(proxy: Proxy) -> None:
    """With ClientIP affinity one client always meets the same endpoint."""
    port = free_port()
    async with backend("a") as a, backend("b") as b, backend("c") as c:
        await proxy.serve(service(port, sessionAffinity="ClientIP"), a, b, c)
        assert len({await ask(port) for _ in range(12)}) == 1


class Echo(asyncio.DatagramProtocol):
    """Sends datagrams back, or keeps what it got."""

    def __init__(self, answer: bool) -> None:
        self.answer = answer
        self.got: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: Any) -> None:
        self.got.append(data)
        if self.answer:
            self.transport.sendto(data, address)


async def test_udp(proxy: Proxy) -> None:
    """Datagrams reach an endpoint and its answers come back."""
    loop, port = asyncio.get_running_loop(), free_port()
    server, _ = await loop.create_datagram_endpoint(lambda: Echo(True), (HOST, 0))
    await proxy.serve(service(port, more={"protocol": "UDP"}), server.get_extra_info("sockname"))
    client, echo = await loop.create_datagram_endpoint(lambda: Echo(False), remote_addr=(CLUSTER_IP, port))
    try:
        client.sendto(b"hello")
        await until(lambda: echo.got == [b"hello"], "the answer")
    finally:
        client.close()
        server.close()
    await asyncio.sleep(0)


async def test_services_come_in_quick_succession(proxy: Proxy) -> None:
    """Many Services that appear one after the other, at first without endpoints, are all served."""
    ports = [free_port() for _ in range(5)]
    async with backend("a") as (host, number):

        def part(port: int, ready: bool) -> Resources:
            slices = [{"metadata": {}, "endpoints": [{"addresses": [host]}], "ports": [{"port": number}]}]
            name = {"name": f"app-{port}", "namespace": "rides"}
            converted = [msgspec.convert(each, EndpointSlice) for each in slices] if ready else []
            return translate(msgspec.convert({**service(port), "metadata": name}, Service), converted, 1024)

        for count in range(len(ports)):
            proxy.xds.publish(NODE, merge([part(port, False) for port in ports[: count + 1]]))
            await asyncio.sleep(0)
        proxy.xds.publish(NODE, merge([part(port, True) for port in ports]))
        await until(lambda: bool(proxy.xds.clients(NODE)) and not proxy.xds.behind(NODE), "Envoy serves all")
        assert [await ask(port) for port in ports] == ["a"] * len(ports)


async def test_traffic_flows_without_the_agent(tmp_path: Path) -> None:
    """While the xDS server is away Envoy serves what it knows; when it is back changes arrive again."""
    port, xds_port = free_port(), free_port()
    async with backend("a") as a, backend("b") as b, envoy(tmp_path, xds_port):
        first = XdsServer()
        async with first.listen(f"{HOST}:{xds_port}"):
            await Proxy(first).serve(service(port), a)
        assert await ask(port) == "a"
        second = XdsServer()
        async with second.listen(f"{HOST}:{xds_port}"):
            await Proxy(second).serve(service(port), b)
            assert await ask(port) == "b"
