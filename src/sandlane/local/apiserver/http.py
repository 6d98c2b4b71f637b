"""The API server over HTTPS: requests of aiohttp become values for `ApiServer.handle`, its answers go back out.

`serve` owns nothing after it returns: the caller's stack closes the listener. Whoever shows credentials that are not valid gets 401
everywhere but on the health paths and `/version`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace

import structlog
from aiohttp import web

from sandlane.kube.transport import Request, Response
from sandlane.local.apiserver.answers import StreamResponse, failure
from sandlane.local.apiserver.auth.user import ANONYMOUS, User
from sandlane.local.apiserver.request_info import RequestInfo, read_request
from sandlane.local.apiserver.server import ApiServer
from sandlane.local.apiserver.status import StatusError, too_large
from sandlane.local.apiserver.wire.bodies import MAX_BODY_BYTES

log = structlog.get_logger(__name__)

OPEN_PATHS = frozenset({"healthz", "livez", "readyz", "version"})
"""First segments of paths that need no credentials."""
READ_SECONDS = 60.0
WRITE_SECONDS = 60.0

Authenticate = Callable[[web.BaseRequest], Awaitable[User | None]]
Upgrade = Callable[[web.BaseRequest, Request, RequestInfo], Awaitable[web.StreamResponse]]
UPGRADED = ("exec", "attach", "portforward")


class HttpFront:
    """Serves one `ApiServer`. `upgrade` answers what needs a connection of its own: exec, attach, port-forward."""

    def __init__(self, server: ApiServer, authenticate: Authenticate) -> None:
        self._server = server
        self._authenticate = authenticate
        self.upgrade: Upgrade | None = None

    async def serve(self, stack: AsyncExitStack, host: str, port: int, tls: ssl.SSLContext | None) -> int:
        """Listen until the stack ends; the port. Raises `OSError` when the address is taken."""
        runner = web.ServerRunner(
            web.Server(self._handle, keepalive_timeout=120.0, handler_cancellation=True), shutdown_timeout=1.0
        )
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, host, port, ssl_context=tls, backlog=1024)
        await site.start()
        return int(runner.addresses[0][1])

    async def _handle(self, http: web.BaseRequest) -> web.StreamResponse:
        user = await self._authenticate(http)
        if user is None:
            if http.rel_url.path.strip("/").partition("/")[0] not in OPEN_PATHS or ".." in http.rel_url.path:
                return _whole(_failed(StatusError(401, "Unauthorized", "Unauthorized")))
            user = ANONYMOUS
        try:
            body = await self._body(http)
        except StatusError as error:
            return _whole(_failed(error))
        headers: dict[str, str] = {}
        for name, value in http.headers.items():
            key = name.lower()
            headers[key] = f"{headers[key]},{value}" if key in headers else value
        request = Request(http.method, http.rel_url.path, tuple(http.rel_url.query.items()), headers, body)
        info = read_request(request)
        if self.upgrade is not None and info.subresource in UPGRADED and info.resource == "pods":
            try:
                for verb in dict.fromkeys(
                    (info.verb, "create")
                ):  # to run something is to create, also by GET (WebSocket)
                    await self._server.authorize(self._server.act_as(user, request), replace(info, verb=verb))
                await self._server.admit_connection(info, request, self._server.act_as(user, request))
                return await self.upgrade(http, request, info)
            except StatusError as error:
                return _whole(_failed(error))
        answered = await self._server.handle(request, user)
        if isinstance(answered, Response):
            return _whole(answered)
        return await self._stream(http, answered)

    async def _body(self, http: web.BaseRequest) -> bytes:
        """The body, up to the limit and within the time. Raises `StatusError` 413 and 408."""
        if not http.body_exists:
            return b""
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(READ_SECONDS):
                async for chunk in http.content.iter_any():
                    size += len(chunk)
                    if size > MAX_BODY_BYTES:
                        raise too_large(f"Request entity too large: limit is {MAX_BODY_BYTES}")
                    parts.append(chunk)
        except TimeoutError:
            raise StatusError(408, "Timeout", f"the body did not arrive within {READ_SECONDS:.0f} s") from None
        return b"".join(parts)

    async def _stream(self, http: web.BaseRequest, answer: StreamResponse) -> web.StreamResponse:
        """Send lines as they come; a client that does not read for long is cut off."""
        response = web.StreamResponse(status=answer.status, headers=dict(answer.headers))
        response.enable_chunked_encoding()
        lines = answer.lines
        try:
            await response.prepare(http)
            async for line in lines:
                async with asyncio.timeout(WRITE_SECONDS):
                    await response.write(line)
            await response.write_eof()
        except (ConnectionError, TimeoutError) as error:
            log.info("stream_cut", path=http.path, error=repr(error))
            if http.transport is not None:
                http.transport.abort()
        finally:
            close = getattr(lines, "aclose", None)
            if close is not None:
                await close()
        return response


def _whole(response: Response) -> web.Response:
    made = web.Response(status=response.status, body=response.body)
    for name, value in response.headers:
        made.headers.add(name, value)
    return made


def _failed(error: StatusError) -> Response:
    return failure(error)
