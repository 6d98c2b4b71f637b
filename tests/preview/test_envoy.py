"""A real Envoy as the preview gateway: host names to Services, the key in the baggage, the token at the door."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
from aiohttp import web
from envoy.config.listener.v3 import listener_pb2

from sandlane.local.proxy.bootstrap import NODE
from sandlane.preview.plan import previews
from sandlane.preview.translate import filter_code, listener, shared
from sandlane.routing.envoy.delta import LISTENER
from sandlane.routing.envoy.encode import encoded
from sandlane.routing.envoy.server import XdsServer
from sandlane.world.world import World
from support.routed import group, meta
from support.service_proxy import HOST, envoy, free_port, until

TOKEN = "correct-horse"
Sent = list[tuple[str, str]]


async def echo(request: web.Request) -> web.StreamResponse:
    """The request's headers, as they came; over a WebSocket each message."""
    if request.path == "/ws":
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(f"{request.headers['baggage']}: {message.data}")
        return socket
    return web.json_response([[name, value] for name, value in request.headers.items()])


def world(port: int) -> World:
    """A Service with one endpoint, and a group with an endpoint for it."""
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta("frontend", "s"),
        "spec": {"selector": {"app": "f"}, "ports": [{"name": "http", "port": 8080}]},
    }
    slice_ = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": meta("frontend-1", "e", labels={"kubernetes.io/service-name": "frontend"}),
        "addressType": "IPv4",
        "endpoints": [{"addresses": [HOST], "conditions": {"ready": True}}],
        "ports": [{"name": "http", "port": port}],
    }
    owner = group("g", team="x")
    owner["spec"]["endpoints"] = [{"name": "web", "target": "http://frontend:8080"}]
    return World.of([service, slice_, owner])


@asynccontextmanager
async def gateway(folder: Path) -> AsyncIterator[tuple[str, str]]:
    """Two gateways in one Envoy, without and with a token: their URLs."""
    async with AsyncExitStack() as stack:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", echo)
        runner = web.AppRunner(app)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        behind, plain, guarded = free_port(), free_port(), free_port()
        await web.TCPSite(runner, HOST, behind).start()
        xds = XdsServer()
        port = await stack.enter_async_context(xds.listen(f"{HOST}:0"))
        await stack.enter_async_context(envoy(folder, port))
        known = world(behind)
        made = {
            name: encoded(listener(name, (HOST, at), filter_code(token, "http")), listener_pb2.Listener())
            for name, at, token in (("plain", plain, ""), ("guarded", guarded, TOKEN))
        }
        xds.publish(NODE, {**shared(known, previews(known), "localhost:7080"), LISTENER: made})
        await until(lambda: bool(xds.clients(NODE)) and not xds.behind(NODE), "Envoy serves it")
        yield f"http://{HOST}:{plain}", f"http://{HOST}:{guarded}"


async def test_a_gateway(tmp_path: Path) -> None:
    """The host name decides; the application gets the key, and the request as it came; the token keeps others out."""
    async with (
        gateway(tmp_path) as (plain, guarded),
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session,
    ):

        async def get(url: str, path: str = "/", host: str = "web--key-g.localhost:7080", more: Sent | None = None):  # type: ignore[no-untyped-def]
            headers = [("host", host), *(more or [])]
            async with session.get(url + path, headers=headers, allow_redirects=False) as answer:
                body = await answer.json() if answer.status == 200 else await answer.text()
                return answer.status, body, answer.headers

        status, sent, _ = await get(
            plain, more=[("X-Case", "a"), ("baggage", "a=b"), ("baggage", "sandlane-routing-key=other,c=d")]
        )
        assert status == 200
        headers = {name.lower(): value for name, value in sent}
        assert headers["baggage"] == "sandlane-routing-key=key-g,a=b,sandlane-routing-key=other,c=d"
        assert headers["host"] == "web--key-g.localhost:7080"
        assert ["X-Case", "a"] in sent
        assert not [name for name in headers if name.startswith(("x-envoy", "x-forwarded-for", "x-request"))]
        assert (await get(plain, host="web--other.localhost"))[0] == 404
        assert (await get(plain, host="web--key-g.localhost"))[0] == 200

        async with session.ws_connect(f"{plain}/ws", headers={"host": "web--key-g.localhost"}) as socket:
            await socket.send_str("hello")
            assert (await socket.receive(timeout=20)).data == "sandlane-routing-key=key-g: hello"

        refused = await get(guarded)
        assert refused[0] == 401
        assert "sandlane-preview-token" in refused[1]
        assert (await get(guarded, more=[("cookie", "sandlane-preview-token=wrong")]))[0] == 401
        assert (await get(guarded, host="web--other.localhost"))[0] == 401
        status, sent, _ = await get(guarded, more=[("x-sandlane-preview-token", TOKEN)])
        assert status == 200
        assert "token" not in str(sent)
        status, sent, _ = await get(guarded, more=[("cookie", f"a=b; sandlane-preview-token={TOKEN}; c=d")])
        assert status == 200
        assert ["cookie", "a=b; c=d"] in [[name.lower(), value] for name, value in sent]
        status, _, answered = await get(guarded, f"//evil.example/x?q=1&sandlane-preview-token={TOKEN}&r=2")
        assert (status, answered["location"]) == (302, "/evil.example/x?q=1&r=2")
        assert answered["set-cookie"].startswith(f"sandlane-preview-token={TOKEN}; Path=/; HttpOnly")
        assert (await get(guarded, "/?sandlane-preview-token=wrong"))[0] == 401
