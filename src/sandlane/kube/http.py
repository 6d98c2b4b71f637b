"""Requests to an API server over HTTP: connections kept open, credentials added to each request.

Whole answers come over `Connections`; streams, WebSockets, redirects and everything through a proxy go by aiohttp.

A 401 answer makes credentials that can be renewed (token file, plugin) be renewed, once per request. When the client
certificate changes, new connections are made with the new one.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from sandlane.kube.config import Config
from sandlane.kube.connections import Connections
from sandlane.kube.errors import ConfigError, TransportError, error_from_response
from sandlane.kube.transport import Request, Response, Stream, WebSocket

REDIRECTS = (301, 302, 303, 307, 308)
_BROKEN = (aiohttp.ClientError, OSError, TimeoutError, ConfigError)


class _HttpStream:
    """An answer of aiohttp as a `Stream`."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers = _headers(response)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives."""
        try:
            async for chunk in self._response.content.iter_any():
                yield chunk
        except _BROKEN as error:
            raise TransportError(f"the connection to the API server broke: {error!r}") from error


class _HttpWebSocket:
    """A WebSocket of aiohttp as a `WebSocket`."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self.protocol = socket.protocol or ""

    async def receive(self) -> bytes | None:
        """The next message, or None at the end."""
        message = await self._socket.receive()
        match message.type:
            case aiohttp.WSMsgType.BINARY:
                return bytes(message.data)
            case aiohttp.WSMsgType.TEXT:
                return str(message.data).encode()
            case aiohttp.WSMsgType.ERROR:
                raise TransportError(f"the WebSocket broke: {message.data!r}")
        return None

    async def send(self, message: bytes) -> None:
        """Send a binary message."""
        try:
            await self._socket.send_bytes(message)
        except _BROKEN as error:
            raise TransportError(f"the WebSocket broke: {error!r}") from error


class HttpTransport:
    """Sends requests to the server of a `Config`. Close it when done."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._session: aiohttp.ClientSession | None = None
        self._identity = b""
        self._old: list[aiohttp.ClientSession | Connections] = []
        self._direct: Connections | None = None
        self._proxy = config.proxy_url or _proxy_of(config.server)

    async def send(self, request: Request, *, timeout: float) -> Response:
        """The whole answer."""
        deadline = asyncio.get_running_loop().time() + timeout
        try:
            if not self._proxy:
                answer = await self._directly(request, deadline)
                if answer.status not in REDIRECTS or request.method != "GET":
                    return answer
            async with asyncio.timeout_at(deadline), await self._answer(request) as response:
                return Response(response.status, _headers(response), await response.read())
        except _BROKEN as error:
            raise self._failure(request, error) from error

    @asynccontextmanager
    async def stream(self, request: Request, *, timeout: float) -> AsyncIterator[Stream]:
        """An answer to be read piece by piece."""
        try:
            async with asyncio.timeout(timeout):
                response = await self._answer(request)
        except _BROKEN as error:
            raise self._failure(request, error) from error
        try:
            yield _HttpStream(response)
        finally:
            response.close()

    @asynccontextmanager
    async def websocket(
        self, request: Request, *, protocols: tuple[str, ...], timeout: float
    ) -> AsyncIterator[WebSocket]:
        """A WebSocket. Raises `ApiError` when the server refuses to make one."""
        try:
            async with asyncio.timeout(timeout):
                arguments = await self._arguments(request)
                url = arguments.pop("url")
                socket = await self._open().ws_connect(url, protocols=protocols, heartbeat=30.0, **arguments)
        except aiohttp.WSServerHandshakeError as error:
            raise error_from_response(Response(error.status, (), error.message.encode())) from error
        except _BROKEN as error:
            raise self._failure(request, error) from error
        try:
            yield _HttpWebSocket(socket)
        finally:
            await socket.close()

    async def close(self) -> None:
        """Close all connections."""
        everything = [*self._old, self._session, self._direct]
        self._old, self._session, self._direct = [], None, None
        for each in everything:
            if each is not None:
                await each.close()

    async def _directly(self, request: Request, deadline: float) -> Response:
        """The whole answer, without aiohttp; once more with fresh credentials when they were refused."""
        response = await self._exchange(request, deadline)
        if response.status == 401 and self._config.expire():
            response = await self._exchange(request, deadline)
        return response

    async def _exchange(self, request: Request, deadline: float) -> Response:
        # Credentials come before the connections: a plugin may give a client certificate.
        if self._config.plugin is None:
            headers = await self._config.headers()
        else:
            async with asyncio.timeout_at(deadline):
                headers = await self._config.headers()
        self._open()
        assert self._direct is not None
        return await self._direct.send(
            request.method, request.target, [*request.headers.items(), *headers], request.body, deadline
        )

    async def _answer(self, request: Request) -> aiohttp.ClientResponse:
        """The answer's head; once more with fresh credentials when they were refused."""
        response = await self._open_for(request)
        if response.status == 401 and self._config.expire():
            response.close()
            response = await self._open_for(request)
        return response

    async def _open_for(self, request: Request) -> aiohttp.ClientResponse:
        arguments = await self._arguments(request)  # before the session: a plugin may give a client certificate
        return await self._open().request(**arguments)

    def _open(self) -> aiohttp.ClientSession:
        config = self._config
        # Files are looked at when a session is made; a plugin's certificate is in memory and cheap to compare.
        identity = b"" if config.certificate_file else config.tls_identity()
        if self._session is not None and identity == self._identity:
            return self._session
        if self._session is not None:
            self._old.append(self._session)  # requests under way end on their own connections
        if self._direct is not None:
            self._direct.retire()
            self._old.append(self._direct)
        context = config.ssl_context()
        tls = context if isinstance(context, ssl.SSLContext) else None
        self._direct = Connections(config.server, tls, config.tls_server_name)
        connector = aiohttp.TCPConnector(limit=0, ssl=context)
        self._identity = identity
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(None),
            cookie_jar=aiohttp.DummyCookieJar(),  # an API server sets none
            trust_env=False,
        )
        return self._session

    async def _arguments(self, request: Request) -> dict[str, Any]:
        url = URL(self._config.server.rstrip("/") + request.target, encoded=True)
        headers = CIMultiDict(request.headers)
        headers.extend(await self._config.headers())
        arguments: dict[str, Any] = {"method": request.method, "url": url, "headers": headers}
        if request.body:
            arguments["data"] = request.body
        if self._proxy:
            arguments["proxy"] = self._proxy
        if self._config.tls_server_name:
            arguments["server_hostname"] = self._config.tls_server_name
        return arguments

    def _failure(self, request: Request, error: BaseException) -> TransportError:
        words = str(error) or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)
        return TransportError(f"{request.method} {self._config.server}{request.path}: {words}")


def _proxy_of(server: str) -> str:
    """The proxy that the environment names for a server (`HTTPS_PROXY`, `NO_PROXY`), as for any other program."""
    parts = urlsplit(server)
    if not parts.hostname or proxy_bypass(parts.hostname) or parts.hostname in ("localhost", "127.0.0.1", "::1"):
        return ""
    return getproxies().get(parts.scheme, "")


def _headers(response: aiohttp.ClientResponse) -> tuple[tuple[str, str], ...]:
    return tuple((name.lower(), value) for name, value in response.headers.items())
