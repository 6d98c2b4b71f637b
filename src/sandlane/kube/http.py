"""Requests to an API server over HTTP, by aiohttp: one session, connections kept open, credentials added to each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from yarl import URL

from sandlane.kube.config import Config
from sandlane.kube.errors import TransportError
from sandlane.kube.transport import Request, Response, Stream


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
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise TransportError(f"the connection to the API server broke: {error!r}") from error


class HttpTransport:
    """Sends requests to the server of a `Config`. Close it when done."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._session: aiohttp.ClientSession | None = None

    async def send(self, request: Request, *, timeout: float) -> Response:
        """The whole answer."""
        try:
            async with (
                asyncio.timeout(timeout),
                self._open().request(**await self._arguments(request)) as response,
            ):
                return Response(response.status, _headers(response), await response.read())
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise TransportError(f"{request.method} {self._config.server}{request.path}: {_words(error)}") from error

    @asynccontextmanager
    async def stream(self, request: Request, *, timeout: float) -> AsyncIterator[Stream]:
        """An answer to be read piece by piece."""
        try:
            async with asyncio.timeout(timeout):
                response = await self._open().request(**await self._arguments(request))
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise TransportError(f"{request.method} {self._config.server}{request.path}: {_words(error)}") from error
        try:
            yield _HttpStream(response)
        finally:
            response.close()

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0, ssl=self._config.ssl_context())
            self._session = aiohttp.ClientSession(
                connector=connector, timeout=aiohttp.ClientTimeout(None), auto_decompress=True, trust_env=False
            )
        return self._session

    async def _arguments(self, request: Request) -> dict[str, Any]:
        url = URL(self._config.server.rstrip("/") + request.target, encoded=True)
        headers = dict(request.headers) | await self._config.headers()
        arguments: dict[str, Any] = {"method": request.method, "url": url, "headers": headers}
        if request.body:
            arguments["data"] = request.body
        if self._config.proxy_url:
            arguments["proxy"] = self._config.proxy_url
        if self._config.tls_server_name:
            arguments["server_hostname"] = self._config.tls_server_name
        return arguments


def _headers(response: aiohttp.ClientResponse) -> tuple[tuple[str, str], ...]:
    return tuple((name.lower(), value) for name, value in response.headers.items())


def _words(error: BaseException) -> str:
    return str(error) or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)
