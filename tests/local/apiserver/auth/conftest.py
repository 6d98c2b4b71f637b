"""A server that is asked in process, as any user."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from sandlane.kube.clock import SystemClock
from sandlane.kube.transport import Request, Response
from sandlane.local.apiserver.auth.user import ADMIN, User
from sandlane.local.apiserver.server import ApiServer
from sandlane.local.apiserver.store.objects import ObjectStore
from sandlane.testing.clock import ManualClock


@dataclass
class Asked:
    """A server, its clock, and a way to ask it."""

    server: ApiServer
    clock: Any

    async def ask(
        self, method: str, path: str, body: Any = None, *, user: User = ADMIN, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Send a request; the status code and the parsed answer."""
        path, _, query = path.partition("?")
        pairs = tuple((name, value) for name, _, value in (each.partition("=") for each in query.split("&") if each))
        sent = {"content-type": "application/json"} | (headers or {})
        data = b"" if body is None else msgspec.json.encode(body)
        answer = await self.server.handle(Request(method, path, pairs, sent, data), user)
        assert isinstance(answer, Response)
        is_json = (answer.header("content-type") or "").startswith("application/json")
        return answer.status, msgspec.json.decode(answer.body) if is_json else answer.body

    async def make(self, path: str, body: Any) -> Any:
        """Create an object as the administrator."""
        status, made = await self.ask("POST", path, body)
        assert status == 201, made
        return made

    async def token(self, name: str = "robot", **spec: Any) -> str:
        """A token of a ServiceAccount of the namespace `default`."""
        made = await self.make(f"/api/v1/namespaces/default/serviceaccounts/{name}/token", {"spec": spec})
        return str(made["status"]["token"])

    def who(self, token: str) -> User | None:
        """Whose token it is."""
        found = self.server.tokens.verify(token)
        return None if found is None else found.user


async def _ready(clock: Any) -> Asked:
    server = ApiServer(ObjectStore(), clock=clock, rng=random.Random(1))
    await server.prepare()
    made = Asked(server, clock)
    await made.make("/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "robot"}})
    return made


@pytest.fixture
async def asked() -> AsyncIterator[Asked]:
    """A server with an in-memory store and a clock that stands still."""
    made = await _ready(ManualClock(datetime(2026, 1, 1, tzinfo=UTC)))
    yield made
    await made.server.close()


@pytest.fixture
async def real() -> AsyncIterator[Asked]:
    """A server that goes by the machine's clock, as TLS does."""
    made = await _ready(SystemClock())
    yield made
    await made.server.close()
