"""The client of one API server: typed errors, retries with back-off, and one method per verb.

Retried are answers that promise a later success (429, 503, 504, and 500 with `Retry-After`) and, for requests that may
be sent twice without harm (reads, server-side apply, delete), lost connections. Everything else is raised at once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from copy import copy
from enum import StrEnum
from typing import Any, Protocol, TypeVar

import msgspec

from sandlane.kube.bucket import Bucket
from sandlane.kube.clock import Clock
from sandlane.kube.errors import (
    ApiError,
    Gone,
    KubeError,
    ServerError,
    TooManyRequests,
    TransportError,
    error_from_response,
)
from sandlane.kube.pages import ObjectList, RawList, RawPage, decode_page
from sandlane.kube.resource import Key, Object, Resource
from sandlane.kube.transport import Request, Response, Stream, Transport, WebSocket, WebSocketTransport

T = TypeVar("T")
_object = msgspec.json.Decoder(dict[str, Any]).decode
REQUEST_TIMEOUT = 30.0
ATTEMPTS = 5
FIRST_DELAY = 0.1
LAST_DELAY = 5.0
PAGE = 500


Guard = Callable[[Request], float | None]
"""Called before each send; raises to stop it (a leader that has lost its Lease must not write), and gives the seconds
within which the request must be over, or None."""


Observer = Callable[[Request, int, float], None]
"""Told of each request: its status (0: no answer) and the seconds that it took."""


class PatchType(StrEnum):
    """Content types of patches."""

    JSON = "application/json-patch+json"
    MERGE = "application/merge-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"
    APPLY = "application/apply-patch+yaml"


class Random(Protocol):
    """Randomness for jitter."""

    def random(self) -> float:
        """A number in [0, 1)."""


class Client:
    """Talks to one API server through a transport."""

    def __init__(
        self,
        transport: Transport,
        *,
        clock: Clock,
        rng: Random,
        user_agent: str = "sandlane",
        qps: float | None = None,
        burst: int = 200,
        observe: Observer = lambda request, status, seconds: None,
    ) -> None:
        self.transport = transport
        self._clock = clock
        self._rng = rng
        self._user_agent = user_agent
        self._bucket = None if qps is None else Bucket(clock, qps, burst)
        self.observe = observe
        self.guard: Guard | None = None

    def unguarded(self, *, unlimited: bool = False) -> Client:
        """The same client for requests that the guard must not stop (a health check).

        `unlimited`: they do not wait behind others for the rate limit either (the renewal of a Lease).
        """
        other = copy(self)
        other.guard = None
        if unlimited:
            other._bucket = None
        return other

    # -- verbs ------------------------------------------------------------------------------------------

    async def get(
        self, resource: Resource, name: str, namespace: str | None = None, *, subresource: str | None = None
    ) -> Object:
        """One object. Raises `NotFound`."""
        return await self._object("GET", resource.path(namespace, name, subresource))

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = PAGE,
    ) -> ObjectList:
        """All objects, page by page (as one page when the pages expire while they are read)."""
        try:
            pages = [page async for page in self.pages(resource, namespace, label_selector, field_selector, limit)]
        except Gone:
            pages = [page async for page in self.pages(resource, namespace, label_selector, field_selector, 0)]
        api_version, kind = resource.api_version, resource.kind
        return ObjectList(
            [
                {"apiVersion": api_version, "kind": kind} | msgspec.json.decode(item)
                for page in pages
                for item in page.items
            ],
            pages[-1].resource_version,
        )

    async def list_raw(
        self, resource: Resource, namespace: str | None = None, *, label_selector: str = "", field_selector: str = ""
    ) -> RawList:
        """All objects as bytes. Raises `Gone` when the pages expire while they are read."""
        items: list[bytes] = []
        version = ""
        async for page in self.pages(resource, namespace, label_selector, field_selector):
            items += [bytes(item) for item in page.items]
            version = page.resource_version
        return RawList(items, version)

    async def pages(
        self,
        resource: Resource,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = PAGE,
    ) -> AsyncIterator[RawPage]:
        """A list, page by page, items as bytes. Raises `Gone` when the pages expire while they are read."""
        query = _query(labelSelector=label_selector, fieldSelector=field_selector, limit=str(limit) if limit else "")
        token = ""
        while True:
            request = self._request("GET", resource.path(namespace), query + _query(**{"continue": token}))
            page = _decoded(decode_page, await self.request(request))
            yield RawPage(page.items or [], page.metadata.resource_version)
            token = page.metadata.continue_
            if not token:
                return

    @asynccontextmanager
    async def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str = "",
        label_selector: str = "",
        field_selector: str = "",
        timeout_seconds: int = 0,
        initial_events: bool = False,
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """A watch: its events as lines of JSON. Raises as `request` does when the watch is refused."""
        query = _query(
            watch="true",
            allowWatchBookmarks="true",
            resourceVersion=resource_version,
            labelSelector=label_selector,
            fieldSelector=field_selector,
            timeoutSeconds=str(timeout_seconds) if timeout_seconds else "",
        )
        if initial_events:
            query += _query(sendInitialEvents="true", resourceVersionMatch="NotOlderThan")
        async with self.stream(self._request("GET", resource.path(namespace), query)) as stream:
            yield _lines(stream)

    async def create(self, resource: Resource, obj: Object, *, dry_run: bool = False) -> Object:
        """Create an object in the namespace it names. Raises `AlreadyExists`."""
        path = resource.path(obj["metadata"].get("namespace"))
        return await self._object("POST", path, _dry(dry_run), body=obj, retry=bool(obj["metadata"].get("name")))

    async def replace(self, resource: Resource, obj: Object, *, subresource: str | None = None) -> Object:
        """Replace an object. Raises `Conflict` when it has changed since."""
        metadata = obj["metadata"]
        return await self._object(
            "PUT", resource.path(metadata.get("namespace"), metadata["name"], subresource), body=obj
        )

    async def patch(
        self,
        resource: Resource,
        name: str,
        body: Any,
        *,
        namespace: str | None = None,
        patch_type: PatchType = PatchType.MERGE,
        subresource: str | None = None,
        field_manager: str = "",
        dry_run: bool = False,
    ) -> Object:
        """Patch an object."""
        return await self._object(
            "PATCH",
            resource.path(namespace, name, subresource),
            _query(fieldManager=field_manager) + _dry(dry_run),
            body=body,
            content_type=str(patch_type),
            retry=False,
        )

    async def patch_status(self, resource: Resource, key: Key, body: Object) -> Object:
        """Merge into an object's status subresource."""
        return await self.patch(resource, key.name, body, namespace=key.namespace or None, subresource="status")

    async def apply(
        self,
        resource: Resource,
        obj: Object,
        *,
        field_manager: str = "sandlane",
        force: bool = True,
        subresource: str | None = None,
        dry_run: bool = False,
    ) -> Object:
        """Server-side apply. Raises `Conflict` when another manager owns a field and `force` is off."""
        metadata = obj["metadata"]
        query = _query(fieldManager=field_manager, force="true" if force else "") + _dry(dry_run)
        path = resource.path(metadata.get("namespace"), metadata["name"], subresource)
        obj = {"apiVersion": resource.api_version, "kind": resource.kind} | obj
        return await self._object("PATCH", path, query, body=obj, content_type=str(PatchType.APPLY))

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        propagation: str | None = None,
        grace_seconds: int | None = None,
    ) -> None:
        """Delete an object. Raises `NotFound`, and `Conflict` when `uid` or `resource_version` do not fit."""
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        if any(preconditions.values()):
            options["preconditions"] = {key: value for key, value in preconditions.items() if value}
        if propagation:
            options["propagationPolicy"] = propagation
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        await self._object("DELETE", resource.path(namespace, name), body=options)

    # -- requests ---------------------------------------------------------------------------------------

    async def request(
        self, request: Request, *, retry: bool | None = None, timeout: float = REQUEST_TIMEOUT
    ) -> Response:
        """Send a request and give its answer. Raises `ApiError` (by status) and `TransportError`.

        `retry` says whether it may be sent again after a lost connection; by default reads may.
        """
        again = request.method == "GET" if retry is None else retry
        return await self._retrying(again, request, timeout)

    @asynccontextmanager
    async def stream(self, request: Request, *, timeout: float = REQUEST_TIMEOUT) -> AsyncIterator[Stream]:
        """An answer to be read piece by piece. Not retried."""
        await self._take_token()
        request, limit = self._complete(request)
        started = self._clock.monotonic()
        async with self.transport.stream(request, timeout=min(timeout, limit)) as stream:
            self.observe(request, stream.status, self._clock.monotonic() - started)
            if stream.status >= 400:
                body = b"".join([chunk async for chunk in stream.chunks()])
                raise error_from_response(Response(stream.status, stream.headers, body))
            yield stream

    @asynccontextmanager
    async def websocket(
        self, request: Request, *, protocols: tuple[str, ...], timeout: float = REQUEST_TIMEOUT
    ) -> AsyncIterator[WebSocket]:
        """A WebSocket (port-forward). Raises `KubeError` when the transport or the server cannot make one."""
        if not isinstance(self.transport, WebSocketTransport):
            raise KubeError(f"{request.path}: {type(self.transport).__name__} makes no WebSockets")
        await self._take_token()
        async with self.transport.websocket(self._complete(request)[0], protocols=protocols, timeout=timeout) as socket:
            yield socket

    async def close(self) -> None:
        """Close the transport."""
        await self.transport.close()

    def _request(
        self,
        method: str,
        path: str,
        query: tuple[tuple[str, str], ...] = (),
        body: Any = None,
        content_type: str = "application/json",
    ) -> Request:
        headers = {"accept": "application/json"}
        if body is None:
            return Request(method, path, query, headers)
        return Request(method, path, query, headers | {"content-type": content_type}, msgspec.json.encode(body))

    async def _object(
        self,
        method: str,
        path: str,
        query: tuple[tuple[str, str], ...] = (),
        body: Any = None,
        content_type: str = "application/json",
        retry: bool = True,
    ) -> Object:
        # A PUT or a create that is sent again after a lost connection can only conflict, never count twice.
        response = await self.request(self._request(method, path, query, body, content_type), retry=retry)
        return _decoded(_object, response)

    async def _send(self, request: Request, timeout: float) -> Response:
        await self._take_token()
        request, limit = self._complete(request)
        started = self._clock.monotonic()
        try:
            response = await self.transport.send(request, timeout=min(timeout, limit))
        except TransportError:
            self.observe(request, 0, self._clock.monotonic() - started)
            raise
        self.observe(request, response.status, self._clock.monotonic() - started)
        if response.status >= 400:
            raise error_from_response(response)
        return response

    def _complete(self, request: Request) -> tuple[Request, float]:
        """The request as it is sent, and the seconds that it may take at most."""
        limit = self.guard(request) if self.guard is not None else None
        headers = {"user-agent": self._user_agent, **request.headers}
        sent = Request(request.method, request.path, request.query, headers, request.body)
        return sent, float("inf") if limit is None else limit

    async def _retrying(self, resend: bool, request: Request, timeout: float) -> Response:
        delay = FIRST_DELAY
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._send(request, timeout)
            except (TooManyRequests, ServerError) as error:
                if attempt == ATTEMPTS or not _promises_success(error):
                    raise
                wait = max(error.retry_after or 0.0, delay * (0.5 + self._rng.random()))
            except TransportError:
                if attempt == ATTEMPTS or not resend:
                    raise
                wait = delay * (0.5 + self._rng.random())
            await self._clock.sleep(wait)
            delay = min(delay * 2, LAST_DELAY)
        raise AssertionError("unreachable")

    async def _take_token(self) -> None:
        if self._bucket is not None and (wait := self._bucket.take()) > 0:
            await self._clock.sleep(wait)


def _decoded(decode: Callable[[bytes], T], response: Response) -> T:
    """The body of an answer. Raises `TransportError` for one that is not what an API server says (a proxy's page)."""
    try:
        return decode(response.body)
    except msgspec.DecodeError as error:
        raise TransportError(f"the answer is not that of an API server: {response.body[:100]!r}") from error


def _promises_success(error: ApiError) -> bool:
    return error.status in (429, 503, 504) or error.retry_after is not None


def _query(**values: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in values.items() if value)


def _dry(dry_run: bool) -> tuple[tuple[str, str], ...]:
    return _query(dryRun="All" if dry_run else "")


async def _lines(stream: Stream) -> AsyncIterator[bytes]:
    """Whole lines of a stream, whatever their length."""
    rest = bytearray()
    async for chunk in stream.chunks():
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            line = bytes(rest) + chunk[start:end] if rest else chunk[start:end]
            rest.clear()
            start = end + 1
            if line:
                yield line
        rest += chunk[start:]
