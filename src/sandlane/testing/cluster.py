"""`FakeCluster`: the embedded API server in this process, without HTTP, for tests of controllers.

async with FakeCluster.with_objects(deployment, service) as cluster:
    await cluster.client.get(DEPLOYMENTS, "route", "rides")
    assert cluster.writes == []
    manager = cluster.manager()
    controller = RouteController(manager)
    async with cluster.synced(manager):
        await controller.reconcile(Key("rides", "route"))
"""

from __future__ import annotations

import asyncio
import random  # noqa: TID251 - seeded, for repeatable tests
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import TracebackType

import msgspec

from sandlane.kube.client import Client
from sandlane.kube.clock import Clock, SystemClock
from sandlane.kube.errors import TransportError
from sandlane.kube.resource import Object
from sandlane.kube.transport import Request, Response, Stream
from sandlane.local.apiserver.answers import StreamResponse
from sandlane.local.apiserver.server import ApiServer
from sandlane.local.apiserver.store.objects import ObjectStore
from sandlane.runtime.manager import Manager
from sandlane.runtime.options import ManagerOptions

Intercept = Callable[[Request], Awaitable[Response | None]]
"""Asked before each request: an answer takes the server's place; raising `TransportError` loses the connection."""


class _ServerStream:
    """A stream of the server as the client reads it."""

    def __init__(self, answer: Response | StreamResponse) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self._answer = answer

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body, line by line."""
        if isinstance(self._answer, Response):
            yield self._answer.body
            return
        async for line in self._answer.lines:
            yield line


class InProcessTransport:
    """A transport straight into an `ApiServer`."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self.writes: list[Request] = []
        self.intercepts: list[Intercept] = []

    async def send(self, request: Request, *, timeout: float) -> Response:
        """The whole answer."""
        for intercept in self.intercepts:
            answer = await intercept(request)
            if answer is not None:
                return answer
        if request.method not in ("GET", "HEAD"):
            self.writes.append(request)
        answered = await self._server.handle(request)
        if isinstance(answered, StreamResponse):
            raise TransportError(f"{request.path} answers with a stream")
        return answered

    @asynccontextmanager
    async def stream(self, request: Request, *, timeout: float) -> AsyncIterator[Stream]:
        """An answer to be read piece by piece."""
        for intercept in self.intercepts:
            answer = await intercept(request)
            if answer is not None:
                yield _ServerStream(answer)
                return
        answered = await self._server.handle(request)
        try:
            yield _ServerStream(answered)
        finally:
            if isinstance(answered, StreamResponse) and (close := getattr(answered.lines, "aclose", None)):
                await close()

    async def close(self) -> None:
        """Nothing to close."""


class FakeCluster:
    """An API server with an in-memory store, a client of it, and a record of all writes. Use as a context manager."""

    def __init__(self, objects: tuple[Object, ...] = (), *, clock: Clock | None = None, seed: int = 0) -> None:
        self.clock: Clock = clock or SystemClock()
        self.rng = random.Random(seed)
        self.store = ObjectStore()
        self.server = ApiServer(self.store, clock=self.clock, rng=self.rng)
        self.transport = InProcessTransport(self.server)
        self.client = Client(self.transport, clock=self.clock, rng=self.rng, user_agent="fake")
        self._objects = objects

    @classmethod
    def with_objects(cls, *objects: Object, clock: Clock | None = None, seed: int = 0) -> FakeCluster:
        """A cluster that holds these objects (status included) when it is entered; namespaces are made as needed."""
        return cls(objects, clock=clock, seed=seed)

    @property
    def writes(self) -> list[Request]:
        """Every request so far that was not a read."""
        return self.transport.writes

    async def __aenter__(self) -> FakeCluster:
        await self.server.prepare()
        for obj in self._objects:
            await self.add(obj)
        self.writes.clear()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.server.close()
        self.store.close()

    def manager(self, options: ManagerOptions | None = None) -> Manager:
        """A manager with a client of its own, on this cluster's clock. `run` it, or reconcile by hand under `synced`."""
        return Manager(self.client.unguarded(), clock=self.clock, rng=self.rng, options=options)

    @asynccontextmanager
    async def synced(self, manager: Manager) -> AsyncIterator[None]:
        """The manager's caches are synced and follow meanwhile; its controllers do not run. Raises `TimeoutError`."""
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(manager.cache.run())
            await manager.cache.wait_synced()
            yield
            following.cancel()

    async def add(self, obj: Object) -> Object:
        """Create an object with its status, as kubectl and a controller would. Raises `ApiError`."""
        type_ = self.server.registry.by_kind(obj["apiVersion"], obj["kind"])
        if type_ is None:
            raise ValueError(f"no such kind is served: {obj['apiVersion']} {obj['kind']}")
        resource = type_.resource
        namespace = obj["metadata"].get("namespace", "default") if resource.namespaced else None
        if namespace is not None:
            await self.ensure_namespace(namespace)
        made = await self.client.create(
            resource, {**obj, "metadata": obj["metadata"] | ({"namespace": namespace} if namespace else {})}
        )
        if obj.get("status") and type_.subresource("status"):
            made["status"] = obj["status"]
            made = await self.client.replace(resource, made, subresource="status")
        return made

    async def ensure_namespace(self, name: str) -> None:
        """Make a namespace unless it is there."""
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        request = Request(
            "POST", "/api/v1/namespaces", (), {"content-type": "application/json"}, msgspec.json.encode(body)
        )
        answer = await self.server.handle(request)
        if answer.status not in (201, 409):
            raise ValueError(f"namespace {name}: {getattr(answer, 'body', b'')!r}")
