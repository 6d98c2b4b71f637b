"""What goes on to a Pod's node: logs, exec, port-forward."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import aiohttp
import pytest
from aiohttp import web

from sandlane.local.apiserver.kubelet import KubeletProxy

from .conftest import Served

PODS = "/api/v1/namespaces/default/pods"


@dataclass
class Node:
    """A stand-in node: says hello in logs, echoes WebSocket messages, remembers what it was asked."""

    port: int = 0
    asked: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append(request.path_qs)
        self.tokens.add(request.headers.get("Authorization", ""))
        if request.path.startswith("/containerLogs/"):
            if request.query.get("previous"):
                return web.Response(status=400, text='previous terminated container "app" in pod "web" not found\n')
            return web.Response(text="hello\n")
        if request.path.startswith("/attach/"):
            return web.Response(status=404)
        socket = web.WebSocketResponse(protocols=("v5.channel.k8s.io", "SPDY/3.1+portforward.k8s.io"))
        await socket.prepare(request)
        async for message in socket:
            await socket.send_bytes(b"echo " + message.data)
        return socket


@pytest.fixture
async def node(served: Served) -> AsyncIterator[Node]:
    """A node that runs the Pod `web`, known to the server."""
    node = Node()
    async with AsyncExitStack() as stack:
        runner = web.ServerRunner(web.Server(node.handle))
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        node.port = runner.addresses[0][1]
        kubelet = KubeletProxy(served.server.store, "node-token", served.stack)
        served.server.logs, served.front.upgrade = kubelet.logs, kubelet.upgrade
        await served.ask("POST", "/api/v1/nodes", {"metadata": {"name": "laptop"}})
        status = {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": node.port}},
        }
        served.headers["Content-Type"] = "application/merge-patch+json"
        await served.ask("PATCH", "/api/v1/nodes/laptop/status", {"status": status})
        del served.headers["Content-Type"]
        spec = {"nodeName": "laptop", "containers": [{"name": "app", "image": "i"}]}
        assert (await served.ask("POST", PODS, {"metadata": {"name": "web"}, "spec": spec}))[0] == 201
        yield node


async def test_logs_come_from_the_node(served: Served, node: Node) -> None:
    """The log of a Pod's only container is what its node answers, asked with the cluster's token."""
    assert await served.ask("GET", f"{PODS}/web/log?tailLines=5") == (200, "hello\n")
    assert node.asked == ["/containerLogs/default/web/app?tailLines=5"]
    assert node.tokens == {"Bearer node-token"}


async def test_refusals_of_the_node_are_answers(served: Served, node: Node) -> None:
    """What the node refuses reaches the client as a Status with the node's words."""
    code, status = await served.ask("GET", f"{PODS}/web/log?previous=true")
    assert (code, status["reason"]) == (400, "BadRequest")
    assert status["message"] == 'previous terminated container "app" in pod "web" not found'


@pytest.mark.parametrize(
    ("path", "code", "message"),
    [
        ("web/log?container=nope", 400, "container nope is not valid for pod web"),
        ("none/log", 404, 'pods "none" not found'),
    ],
)
async def test_what_cannot_be_asked(served: Served, node: Node, path: str, code: int, message: str) -> None:
    """An unknown container or Pod is refused before the node is asked."""
    answer = await served.ask("GET", f"{PODS}/{path}")
    assert (answer[0], answer[1]["message"]) == (code, message)
    assert node.asked == []


async def test_a_pod_without_node_has_no_log(served: Served, node: Node) -> None:
    """A Pod that no node runs yet says so."""
    spec = {"containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]}
    await served.ask("POST", PODS, {"metadata": {"name": "idle"}, "spec": spec})
    code, status = await served.ask("GET", f"{PODS}/idle/log?container=a")
    assert (code, status["message"]) == (400, "pod idle does not have a host assigned")


@pytest.mark.parametrize(
    ("path", "protocol", "asked"),
    [
        ("exec?command=ls&command=-l&stdin=true&stdout=true", "v5.channel.k8s.io", "exec/default/web/app?command=ls&command=-l&input=1&output=1"),
        ("portforward?ports=8080", "SPDY/3.1+portforward.k8s.io", "portForward/default/web?port=8080"),
    ],
)  # fmt: skip
async def test_websockets_are_joined(served: Served, node: Node, path: str, protocol: str, asked: str) -> None:
    """Messages pass both ways with the subprotocol that the node chose, until one side ends."""
    url = f"{served.url}{PODS}/web/{path}"
    async with served.session.ws_connect(url, protocols=(protocol,), headers=served.headers) as socket:
        assert socket.protocol == protocol
        await socket.send_bytes(b"\x00hi")
        assert await socket.receive_bytes() == b"echo \x00hi"
    assert node.asked == [f"/{asked}"]


async def test_a_refused_websocket_is_an_answer(served: Served, node: Node) -> None:
    """Where the node does not do what is asked, the client gets an HTTP error and not a broken connection."""
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await served.session.ws_connect(f"{served.url}{PODS}/web/attach", headers=served.headers)
    assert caught.value.status == 404


async def test_without_websocket_exec_is_refused(served: Served, node: Node) -> None:
    """exec needs an upgrade of the connection."""
    code, status = await served.ask("POST", f"{PODS}/web/exec?command=ls")
    assert (code, status["reason"]) == (400, "BadRequest")
