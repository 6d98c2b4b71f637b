"""HTTP: TLS both ways, credentials that are renewed, proxies, WebSockets, and errors that say what happened."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from sandlane.kube.client import Client
from sandlane.kube.clock import SystemClock
from sandlane.kube.config import Config, from_kubeconfig
from sandlane.kube.errors import Forbidden, TransportError, Unauthorized
from sandlane.kube.exec_plugin import ExecPlugin
from sandlane.kube.http import HttpTransport
from sandlane.kube.pods import port_forward
from sandlane.kube.resource import PODS, Key
from sandlane.kube.transport import Request
from sandlane.runtime.certificates import load_pair, make_serving, server_context
from sandlane.runtime.signing import CLIENT, KeyPair, make_ca, make_pair, subject_of

NOW = datetime.now(UTC)
CA = make_ca("test", NOW)
SERVER = make_serving(CA, ["127.0.0.1", "api.example"], NOW)


def make_client(name: str) -> KeyPair:
    """A client's certificate."""
    return make_pair(CA, subject_of(name), [], [CLIENT], NOW, timedelta(days=1))


class Backend:
    """A small server that notes what it was asked."""

    def __init__(self) -> None:
        self.seen: list[web.Request] = []
        self.connections: set[Any] = set()
        self.accepted = {"Bearer good"}
        self.base = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Echo, hang, stream or refuse."""
        self.seen.append(request)
        self.connections.add(request.transport)
        if request.path == "/hang":
            await asyncio.sleep(60)
        if request.path.endswith("/portforward"):
            return await self.forward(request)
        if self.accepted and request.headers.get("authorization") not in self.accepted:
            return web.json_response({"kind": "Status", "code": 401, "reason": "Unauthorized"}, status=401)
        if request.path == "/cut":
            response = web.StreamResponse()
            response.headers["content-length"] = "1000"
            await response.prepare(request)
            await response.write(b"part")
            assert request.transport is not None
            request.transport.close()
            return response
        return web.json_response({"path": request.path_qs, "body": (await request.read()).decode()})

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """Port-forward: echo what arrives on the data channel in capitals."""
        if request.query["ports"] == "403":
            return web.json_response({"code": 403, "reason": "Forbidden"}, status=403)
        socket = web.WebSocketResponse(protocols=["v4.channel.k8s.io"])
        await socket.prepare(request)
        port = int(request.query["ports"]).to_bytes(2, "little")
        await socket.send_bytes(b"\0" + port)
        await socket.send_bytes(b"\1" + port)
        if request.query["ports"] == "1":
            await socket.send_bytes(b"\1connection refused")
            await socket.close()
            return socket
        async for message in socket:
            if message.data[1:] == b"bye":
                await socket.close()
                break
            await socket.send_bytes(b"\0" + message.data[1:].upper())
        return socket


async def serve(backend: Backend, tls: ssl.SSLContext | None) -> web.AppRunner:
    """The backend on a free port."""
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", backend.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    backend.base = f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    return runner


@pytest.fixture
async def plain() -> AsyncIterator[Backend]:
    backend = Backend()
    runner = await serve(backend, None)
    yield backend
    await runner.cleanup()


@pytest.fixture
async def secure() -> AsyncIterator[Backend]:
    backend = Backend()
    tls = server_context()
    load_pair(tls, SERVER)
    tls.verify_mode = ssl.CERT_OPTIONAL
    tls.load_verify_locations(cadata=CA.certificate.decode())
    runner = await serve(backend, tls)
    yield backend
    await runner.cleanup()


async def get(config: Config, *paths: str) -> list[int]:
    """The statuses of some requests over one transport."""
    transport = HttpTransport(config)
    try:
        return [(await transport.send(Request("GET", path), timeout=10)).status for path in paths]
    finally:
        await transport.close()


async def test_connections_are_reused(plain: Backend) -> None:
    """One connection for requests one after the other."""
    assert await get(Config(server=plain.base, token="good"), "/a", "/b", "/c") == [200] * 3
    assert len(plain.connections) == 1


async def test_tls_is_verified(secure: Backend) -> None:
    """By the given CA, for the server's name or the one that the configuration gives."""
    assert await get(Config(server=secure.base, ca=CA.certificate, token="good"), "/a") == [200]
    named = Config(server=secure.base, ca=CA.certificate, token="good", tls_server_name="api.example")
    assert await get(named, "/a") == [200]
    assert await get(Config(server=secure.base, insecure=True, token="good"), "/a") == [200]
    for bad in (
        Config(server=secure.base, ca=make_ca("other", NOW).certificate),
        Config(server=secure.base, ca=CA.certificate, tls_server_name="other.example"),
        Config(server=secure.base, ca=b"nonsense"),
    ):
        with pytest.raises(TransportError):
            await get(bad, "/a")


async def test_client_certificates(secure: Backend, tmp_path: Path) -> None:
    """Inline, and from files, which are read when a connection is made."""
    secure.accepted = set()
    mine = make_client("me")
    inline = Config(server=secure.base, ca=CA.certificate, certificate=mine.certificate, key=mine.key)
    assert await get(inline, "/a") == [200]
    broken = Config(server=secure.base, ca=CA.certificate, certificate=mine.certificate, key=b"nonsense")
    with pytest.raises(TransportError, match="do not load"):
        await get(broken, "/a")
    missing = Config(server=secure.base, certificate_file=tmp_path / "none", key_file=tmp_path / "none")
    with pytest.raises(TransportError, match="cannot read"):
        await get(missing, "/a")


async def test_a_token_file_is_read_again_when_its_token_is_refused(plain: Backend, tmp_path: Path) -> None:
    """At once on a 401, and only once per request."""
    file = tmp_path / "token"
    file.write_text("good\n")
    config = Config(server=plain.base, token_file=file)
    transport = HttpTransport(config)
    try:
        assert (await transport.send(Request("GET", "/a"), timeout=10)).status == 200
        file.write_text("better\n")
        plain.accepted = {"Bearer better"}
        assert (await transport.send(Request("GET", "/a"), timeout=10)).status == 200
        plain.accepted = {"Bearer none"}
        plain.seen.clear()
        assert (await transport.send(Request("GET", "/a"), timeout=10)).status == 401
        assert len(plain.seen) == 2
    finally:
        await transport.close()


async def test_a_plugin_that_fails_is_a_transport_error(plain: Backend) -> None:
    """Whoever retries lost connections retries this as well; nothing dies of it."""
    config = Config(server=plain.base, plugin=ExecPlugin(command="/does/not/exist", install_hint="get it there"))
    with pytest.raises(TransportError, match="get it there"):
        await get(config, "/a")


async def test_errors_say_what_happened(plain: Backend) -> None:
    """Nobody listens, no answer in time, an answer that breaks off."""
    plain.accepted = set()
    transport = HttpTransport(Config(server=plain.base))
    try:
        with pytest.raises(TransportError, match="no answer in time"):
            await transport.send(Request("GET", "/hang"), timeout=0.1)
        with pytest.raises(TransportError):
            await transport.send(Request("GET", "/cut"), timeout=10)
        with pytest.raises(TransportError):
            async with transport.stream(Request("GET", "/cut"), timeout=10) as stream:
                _ = [chunk async for chunk in stream.chunks()]
        with pytest.raises(TransportError, match="no answer in time"):
            async with transport.stream(Request("GET", "/hang"), timeout=0.1):
                pass
    finally:
        await transport.close()
    with pytest.raises(TransportError, match="/a"):
        await get(Config(server="http://127.0.0.1:1"), "/a")


async def test_a_proxy_carries_plain_requests(plain: Backend) -> None:
    """`proxy-url`: the request goes to the proxy, with the server's full address."""
    plain.accepted = set()
    config = Config(server="http://api.example:8080", proxy_url=plain.base)
    assert await get(config, "/a?b=c") == [200]
    assert str(plain.seen[0].url) == "http://api.example:8080/a?b=c"


async def test_a_proxy_carries_tls(secure: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """By CONNECT, from `proxy-url` or `HTTPS_PROXY`: the server's certificate is checked, for `tls-server-name` too."""
    asked: list[bytes] = []

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).splitlines()[0])
        port = int(secure.base.rpartition(":")[2])  # the name in the request need not exist here
        onward = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(pump(reader, onward[1]), pump(onward[0], writer))

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    proxy = await asyncio.start_server(connect, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
    known = {"ca": CA.certificate, "token": "good"}
    config = Config(server="https://api.example:6443", proxy_url=address, **known)
    assert await get(config, "/a", "/b") == [200, 200]
    assert set(asked) == {b"CONNECT api.example:6443 HTTP/1.1"}
    monkeypatch.setenv("https_proxy", address)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    named = Config(server="https://other.example:6443", tls_server_name="api.example", **known)
    assert await get(named, "/a") == [200]
    assert asked[-1] == b"CONNECT other.example:6443 HTTP/1.1"
    with pytest.raises(TransportError, match=r"certificate|hostname|Hostname"):
        await get(Config(server="https://other.example:6443", **known), "/a")
    proxy.close()
    await proxy.wait_closed()


async def test_impersonation_and_basic_credentials(plain: Backend) -> None:
    """Each group is a header of its own."""
    plain.accepted = set()
    config = Config(
        server=plain.base, username="u", password="p", impersonate_user="ann", impersonate_groups=("a", "b")
    )
    await get(config, "/a")
    headers = plain.seen[0].headers
    assert headers["authorization"].startswith("Basic ")
    assert headers["impersonate-user"] == "ann"
    assert headers.getall("impersonate-group") == ["a", "b"]


async def test_port_forward(plain: Backend) -> None:
    """Bytes both ways, the node's error in words, and the server's refusal."""
    client = Client(HttpTransport(Config(server=plain.base)), clock=SystemClock(), rng=random.Random(1))
    pod = Key("d", "p")
    try:
        async with asyncio.timeout(20):
            async with port_forward(client, pod, 8080) as connection:
                await connection.write(b"hello")
                assert await connection.read() == b"HELLO"
                await connection.write(b"bye")
                assert await connection.read() == b""
            async with port_forward(client, pod, 1) as connection:
                with pytest.raises(TransportError, match="connection refused"):
                    await connection.read()
            with pytest.raises(Forbidden):
                async with port_forward(client, pod, 403):
                    pass
    finally:
        await client.close()


async def test_unauthorized_is_raised_by_the_client(plain: Backend) -> None:
    """A plain token is not renewed."""
    client = Client(HttpTransport(Config(server=plain.base, token="bad")), clock=SystemClock(), rng=random.Random(1))
    try:
        with pytest.raises(Unauthorized):
            await client.get(PODS, "a", "d")
    finally:
        await client.close()
    assert len(plain.seen) == 1


async def test_a_plugins_certificate_is_used(secure: Backend, tmp_path: Path) -> None:
    """Also when it changes: new connections present the new one."""
    secure.accepted = set()
    pairs = [make_client(name) for name in ("first", "second")]
    program = tmp_path / "plugin.sh"
    _write_plugin(program, pairs[0])
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text(
        f"""
current-context: c
contexts: [{{name: c, context: {{cluster: k, user: u}}}}]
clusters: [{{name: k, cluster: {{server: "{secure.base}", insecure-skip-tls-verify: true}}}}]
users: [{{name: u, user: {{exec: {{apiVersion: client.authentication.k8s.io/v1, command: ./plugin.sh}}}}}}]
"""
    )
    config = from_kubeconfig(kubeconfig)
    transport = HttpTransport(config)
    try:
        for pair in pairs:
            _write_plugin(program, pair)
            config.expire()
            await transport.send(Request("GET", "/a"), timeout=10)
            met = secure.seen[-1].transport
            assert met is not None
            assert met.get_extra_info("peercert")["subject"][0][0][1] == pair.parsed.subject.rfc4514_string()[3:]
    finally:
        await transport.close()


def _write_plugin(program: Path, pair: KeyPair) -> None:
    status = {"clientCertificateData": pair.certificate.decode(), "clientKeyData": pair.key.decode()}
    printed = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}
    file = program.with_suffix(".json")
    file.write_bytes(msgspec.json.encode(printed))
    program.write_text(f"#!/bin/sh\ncat {file}\n")
    program.chmod(0o755)
