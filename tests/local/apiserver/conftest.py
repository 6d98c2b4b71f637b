"""An API server over plain HTTP, in this process."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from sandlane.kube.clock import SystemClock
from sandlane.local.apiserver.auth.user import ADMIN, User
from sandlane.local.apiserver.http import HttpFront
from sandlane.local.apiserver.server import ApiServer
from sandlane.local.apiserver.store.objects import ObjectStore

TOKEN = "secret"


@dataclass
class Served:
    """A running server and a client of it."""

    server: ApiServer
    front: HttpFront
    session: aiohttp.ClientSession
    url: str
    stack: AsyncExitStack
    headers: dict[str, str] = field(default_factory=lambda: {"Authorization": f"Bearer {TOKEN}"})

    async def ask(self, method: str, path: str, body: Any = None, **more: Any) -> tuple[int, Any]:
        """Send a request; the status code and the parsed answer."""
        async with self.session.request(method, self.url + path, json=body, headers=self.headers, **more) as answer:
            if answer.content_type == "application/json":
                return answer.status, await answer.json()
            return answer.status, await answer.text()


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """A server with an in-memory store; whoever has the token may do everything."""
    store = ObjectStore()
    server = ApiServer(store, clock=SystemClock(), rng=random.Random(1))
    await server.prepare()

    async def authenticate(http: web.BaseRequest) -> User | None:
        return ADMIN if http.headers.get("Authorization") == f"Bearer {TOKEN}" else None

    front = HttpFront(server, authenticate)
    async with AsyncExitStack() as stack:
        port = await front.serve(stack, "127.0.0.1", 0, None)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        yield Served(server, front, session, f"http://127.0.0.1:{port}", stack)
