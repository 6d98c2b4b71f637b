"""The HTTP side: who is let in, how much is read, what happens to clients that do not behave."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import pytest

from sandlane.kube.transport import Request
from sandlane.local.apiserver import http
from sandlane.local.apiserver.wire.bodies import MAX_BODY_BYTES

from .conftest import Served

CONFIGS = "/api/v1/namespaces/default/configmaps"
PODS = ("", "configmaps")


def config(name: str, size: int = 0) -> dict[str, object]:
    """A ConfigMap with some bytes in it."""
    return {"metadata": {"name": name}, "data": {"blob": "x" * size}}


async def raw(served: Served, text: bytes) -> bytes:
    """What the server answers to bytes; empty when it only closes."""
    host, _, port = served.url.rpartition("//")[2].partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(text)
        await writer.drain()
        async with asyncio.timeout(5):
            return await reader.read(4096)
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz?verbose", "/version"])
async def test_health_needs_no_credentials(served: Served, path: str) -> None:
    """The health paths and the version are for everybody."""
    served.headers.clear()
    assert (await served.ask("GET", path))[0] == 200


@pytest.mark.parametrize("path", ["/api", "/apis", "/openapi/v2", CONFIGS, "/versions", "/healthz/../api", "/"])
async def test_all_else_does(served: Served, path: str) -> None:
    """Nothing else is answered without the token, or with another one."""
    for token in ("", "Bearer wrong", "Basic c2VjcmV0"):
        served.headers = {"Authorization": token}
        code, status = await served.ask("GET", path)
        assert (code, status["reason"]) == (401, "Unauthorized")


async def test_huge_bodies_are_refused(served: Served) -> None:
    """A body over the limit is 413 whether its length was announced or not, and the server goes on."""

    async def chunks() -> object:
        for _ in range(MAX_BODY_BYTES // 65536 + 2):
            yield b" " * 65536

    for data in (io.BytesIO(b" " * (MAX_BODY_BYTES + 1)), chunks()):
        async with served.session.post(served.url + CONFIGS, data=data, headers=served.headers) as answer:
            assert answer.status == 413
    assert (await served.ask("POST", CONFIGS, config("a")))[0] == 201


@pytest.mark.parametrize(
    "text",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /api HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /api HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_refused(served: Served, text: bytes) -> None:
    """Malformed requests get 400 or are cut off; others are served."""
    answer = await raw(served, text)
    assert answer == b"" or answer.split()[1].startswith(b"4")
    assert (await served.ask("GET", CONFIGS))[0] == 200


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'"x"', b"{}" * 2, b"\xff\xfe", b'{"metadata": 5}', b"[" * 20_000]
)
async def test_bodies_that_are_no_objects(served: Served, body: bytes) -> None:
    """They are the client's fault, and said to be."""
    headers = served.headers | {"Content-Type": "application/json"}
    async with served.session.post(served.url + CONFIGS, data=body, headers=headers) as answer:
        assert 400 <= answer.status < 500
        assert (await answer.json())["kind"] == "Status"


async def test_a_client_that_does_not_read_is_cut(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch that is never read ends after a while and leaves nothing behind; others hear everything."""
    monkeypatch.setattr(http, "WRITE_SECONDS", 0.3)
    store = served.server.store
    host, _, port = served.url.rpartition("//")[2].partition(":")
    _reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
    token = served.headers["Authorization"]
    writer.write(
        f"GET {CONFIGS}?watch=1&resourceVersion={store.version} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n\r\n".encode()
    )
    await writer.drain()
    heard = []
    query = {"watch": "true", "resourceVersion": str(store.version)}
    async with served.session.get(
        served.url + CONFIGS, params=query, headers=served.headers, read_bufsize=2**20
    ) as good:
        for index in range(40):
            assert (await served.ask("POST", CONFIGS, config(f"c{index}", 500_000)))[0] == 201
            heard.append(json.loads(await good.content.readline())["object"]["metadata"]["name"])
        async with asyncio.timeout(10):
            while len(store._watchers.get(PODS, ())) > 1:
                await asyncio.sleep(0.02)
    assert heard == [f"c{index}" for index in range(40)]
    writer.close()
    async with asyncio.timeout(10):
        while store._watchers.get(PODS):
            await asyncio.sleep(0.02)


async def test_a_client_that_goes_away_is_forgotten(served: Served) -> None:
    """Closing the connection of a watch ends it on the server, although nothing happens there."""
    store = served.server.store
    query = {"watch": "true", "resourceVersion": str(store.version)}
    async with served.session.get(served.url + CONFIGS, params=query, headers=served.headers):
        assert len(store._watchers[PODS]) == 1
    async with asyncio.timeout(10):
        while store._watchers[PODS]:
            await asyncio.sleep(0.02)


async def test_connections_are_kept(served: Served) -> None:
    """Requests after one another use one connection."""
    host, _, port = served.url.rpartition("//")[2].partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    for _ in range(3):
        writer.write(f"GET {CONFIGS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        length = next(line for line in head.lower().splitlines() if line.startswith(b"content-length"))
        await reader.readexactly(int(length.split()[1]))
    writer.close()
    await writer.wait_closed()


async def test_a_version_that_is_not_there_yet(served: Served) -> None:
    """Who asks for an object of the future is told to come back; a version that is no number is refused."""
    assert (await served.ask("POST", CONFIGS, config("c", 1)))[0] == 201
    for version, code in (("", 200), ("0", 200), ("1", 200), (str(10**9), 504), ("x", 400)):
        assert (await served.ask("GET", f"{CONFIGS}/c?resourceVersion={version}"))[0] == code


async def test_thousands_of_watches(served: Served) -> None:
    """Each of two thousand watches hears of a change, those that end are forgotten, and those that nobody reads cost nobody."""
    store = served.server.store
    query = (("watch", "true"), ("resourceVersion", str(store.version)))
    streams: list[Any] = [await served.server.handle(Request("GET", CONFIGS, query)) for _ in range(2000)]
    waiting = [asyncio.ensure_future(anext(stream.lines)) for stream in streams[:1000]]
    await asyncio.sleep(0)
    assert (await served.ask("POST", CONFIGS, config("c", 1)))[0] == 201
    lines = await asyncio.wait_for(asyncio.gather(*waiting), 30)
    assert {json.loads(line)["object"]["metadata"]["name"] for line in lines} == {"c"}
    assert (await served.ask("GET", f"{CONFIGS}/c"))[0] == 200
    for stream in streams:
        await stream.lines.aclose()
    assert not store._watchers[PODS]
