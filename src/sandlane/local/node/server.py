"""The node's own HTTP server, which the API server asks for what only the node has: logs, exec, attach and port-forward."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timedelta

from aiohttp import web

from sandlane.kube.clock import Clock
from sandlane.local.node.console import attach
from sandlane.local.node.container import Container
from sandlane.local.node.exec import PROTOCOLS, Session, Wanted
from sandlane.local.node.logs import Wanted as LogWanted
from sandlane.local.node.logs import read_log
from sandlane.local.node.node import ProcessNode
from sandlane.local.node.pod import PodWorker
from sandlane.local.node.portchannels import PROTOCOL as CHANNELS
from sandlane.local.node.portchannels import Channels
from sandlane.local.node.portforward import PROTOCOL as PORT_FORWARD
from sandlane.local.node.portforward import Forwarding


def node_app(node: ProcessNode, token: str, clock: Clock) -> web.Application:
    """Answers only to the cluster's own token."""

    @web.middleware
    async def guarded(request: web.Request, handler: object) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not secrets.compare_digest(given, token):
            return web.Response(status=401, text="Unauthorized\n")
        return await handler(request)  # type: ignore[operator,no-any-return]

    async def logs(request: web.Request) -> web.StreamResponse:
        namespace, name = request.match_info["namespace"], request.match_info["pod"]
        container = _find(node, namespace, name, request.match_info["container"])
        if container is None:
            return web.Response(status=404, text=f"pod {namespace}/{name} does not run here\n")
        query = request.query
        run = container.state.restarts
        previous = query.get("previous") in ("true", "1")
        if previous and run == 0:
            text = f'previous terminated container "{container.state.name}" in pod "{name}" not found\n'
            return web.Response(status=400, text=text)
        path = container.logs.path(run - 1 if previous else run)
        if not path.exists():
            state = container.state
            text = f'container "{state.name}" in pod "{name}" is waiting to start: {state.reason}: {state.message}\n'
            return web.Response(status=400, text=text)
        response = web.StreamResponse(headers={"content-type": "text/plain; charset=utf-8"})
        await response.prepare(request)
        wanted = _log_wanted(query, clock, follow=not previous)
        chunks: AsyncIterator[bytes] = read_log(path, clock, wanted, lambda: container.running)
        async for chunk in chunks:
            await response.write(chunk)
        await response.write_eof()
        return response

    async def execute(request: web.Request) -> web.StreamResponse:
        namespace, name = request.match_info["namespace"], request.match_info["pod"]
        container = _find(node, namespace, name, request.match_info["container"])
        if container is None:
            return web.Response(status=404, text=f"pod {namespace}/{name} does not run here\n")
        process = container.process
        if process is None or not container.running:
            return web.Response(status=400, text=f"container {container.state.name} does not run\n")
        query = request.query
        wanted = Wanted(query.getall("command", []), query.get("input") == "1", query.get("tty") == "1")
        socket = web.WebSocketResponse(protocols=PROTOCOLS)
        if not socket.can_prepare(request):
            return web.Response(status=400, text="Upgrade request required: this server speaks WebSocket only\n")
        await socket.prepare(request)
        await Session(socket, wanted).run(process.pid, *container.surroundings)
        await socket.close()
        return socket

    async def attached(request: web.Request) -> web.StreamResponse:
        namespace, name = request.match_info["namespace"], request.match_info["pod"]
        container = _find(node, namespace, name, request.match_info["container"])
        if container is None:
            return web.Response(status=404, text=f"pod {namespace}/{name} does not run here\n")
        if not container.running:
            return web.Response(status=400, text=f"container {container.state.name} does not run\n")
        socket = web.WebSocketResponse(protocols=PROTOCOLS)
        if not socket.can_prepare(request):
            return web.Response(status=400, text="Upgrade request required: this server speaks WebSocket only\n")
        await socket.prepare(request)
        await attach(socket, container.console, container.logs.path(container.state.restarts), clock)
        await socket.close()
        return socket

    async def forward(request: web.Request) -> web.StreamResponse:
        namespace, name = request.match_info["namespace"], request.match_info["pod"]
        worker = _worker(node, namespace, name)
        if worker is None:
            return web.Response(status=404, text=f"pod {namespace}/{name} does not run here\n")
        ports = request.query.getall("port", [])
        if not all(port.isdigit() and 0 < int(port) < 65536 for port in ports):
            return web.Response(status=400, text=f"not a port: {', '.join(ports)}\n")
        socket = web.WebSocketResponse(protocols=(PORT_FORWARD, CHANNELS))
        if not socket.can_prepare(request):
            return web.Response(status=400, text="Upgrade request required: this server speaks WebSocket only\n")
        await socket.prepare(request)
        if socket.ws_protocol == CHANNELS:
            await Channels(socket, worker.address, name, [int(port) for port in ports]).run()
        else:
            await Forwarding(socket, worker.address, name).run()
        await socket.close()
        return socket

    app = web.Application(middlewares=[guarded])
    app.router.add_get("/portForward/{namespace}/{pod}", forward)
    app.router.add_get("/exec/{namespace}/{pod}/{container}", execute)
    app.router.add_get("/attach/{namespace}/{pod}/{container}", attached)
    app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", logs)
    return app


def _log_wanted(query: Mapping[str, str], clock: Clock, *, follow: bool) -> LogWanted:
    tail, limit = query.get("tailLines"), query.get("limitBytes")
    since = datetime.fromisoformat(query["sinceTime"]) if query.get("sinceTime") else None
    if seconds := query.get("sinceSeconds"):
        since = clock.now() - timedelta(seconds=int(seconds))
    return LogWanted(
        follow=follow and query.get("follow") in ("true", "1"),
        tail=int(tail) if tail else None,
        limit=int(limit) if limit else None,
        since=since,
        timestamps=query.get("timestamps") in ("true", "1"),
    )


def _find(node: ProcessNode, namespace: str, pod: str, container: str) -> Container | None:
    worker = _worker(node, namespace, pod)
    return worker.container(container) if worker is not None else None


def _worker(node: ProcessNode, namespace: str, pod: str) -> PodWorker | None:
    for worker in node.workers.values():
        metadata = worker.pod["metadata"]
        if (metadata["namespace"], metadata["name"]) == (namespace, pod):
            return worker
    return None
