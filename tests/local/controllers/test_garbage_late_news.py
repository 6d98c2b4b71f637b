"""Watches of different kinds tell late and in any order; what was to live lives, and what was to go goes all the same."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sandlane.kube.client import Client
from sandlane.kube.resource import CONFIG_MAPS, SECRETS
from sandlane.kube.transport import Request, Response, Stream
from sandlane.local.apiserver.answers import JSON
from sandlane.testing.cluster import FakeCluster, InProcessTransport
from support.workloads import DEADLINE, Workloads, workloads

KINDS = ("configmaps", "secrets")


class _Late:
    """A stream whose pieces wait for a gate."""

    def __init__(self, stream: Stream, gate: asyncio.Event) -> None:
        self.status, self.headers = stream.status, stream.headers
        self._stream = stream
        self._gate = gate

    async def chunks(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream.chunks():
            await self._gate.wait()
            yield chunk


class LateNews(InProcessTransport):
    """A transport whose watches can be held up, each kind apart."""

    gates: dict[str, asyncio.Event]
    open_with: str = ""
    """The gate that opens when this kind is listed, before who lists goes on."""
    opened: Awaitable[None] | None = None

    async def send(self, request: Request, *, timeout: float) -> Response:
        answer = await super().send(request, timeout=timeout)
        if self.open_with and request.method == "GET" and request.path.endswith(f"/{self.open_with}"):
            self.gates[self.open_with].set()
            self.open_with = ""
            if self.opened is not None:
                await self.opened
        return answer

    @asynccontextmanager
    async def stream(self, request: Request, *, timeout: float) -> AsyncIterator[Stream]:
        async with super().stream(request, timeout=timeout) as stream:
            gate = self.gates.get(request.path.rpartition("/")[2])
            yield stream if gate is None else _Late(stream, gate)


@pytest.fixture
def gates(monkeypatch: pytest.MonkeyPatch) -> dict[str, asyncio.Event]:
    """One for the watches of each kind; they are open."""
    made = {kind: asyncio.Event() for kind in KINDS}
    for gate in made.values():
        gate.set()
    start = FakeCluster.__init__

    def late(self: FakeCluster, *args: Any, **kwargs: Any) -> None:
        start(self, *args, **kwargs)
        self.transport = LateNews(self.server)
        self.transport.gates = made
        self.client = Client(self.transport, clock=self.clock, rng=self.rng, user_agent="fake")

    monkeypatch.setattr(FakeCluster, "__init__", late)
    return made


async def owner(on: Workloads) -> str:
    """Make a ConfigMap; its uid."""
    made = await on.client.create(CONFIG_MAPS, {"metadata": {"name": "owner", "namespace": "rides"}})
    return str(made["metadata"]["uid"])


async def child(on: Workloads, uid: str, name: str = "child") -> None:
    """Make a Secret that the ConfigMap owns."""
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}
    metadata = {"name": name, "namespace": "rides", "ownerReferences": [reference]}
    await on.client.create(SECRETS, {"metadata": metadata})


async def heard(on: Workloads) -> None:
    """Wait until the garbage collector has heard of all Secrets and has come to rest."""
    last = {"metadata": {"generateName": "last-", "namespace": "rides"}}
    version = (await on.client.create(SECRETS, last))["metadata"]["resourceVersion"]
    await on.inventory._own[SECRETS].wait_for(version, timeout=DEADLINE)
    await on.quiet()


async def references(on: Workloads, name: str = "child") -> list[Any]:
    """The owners that a Secret names."""
    found = await on.client.get(SECRETS, name, "rides")
    return found["metadata"].get("ownerReferences") or []


async def test_orphans_that_nobody_told_of_are_kept(gates: dict[str, asyncio.Event]) -> None:
    """A dependent of which the collector hears only after its owner has gone was untied before that."""
    async with workloads() as on:
        await on.cluster.ensure_namespace("rides")
        gates["secrets"].clear()
        await child(on, await owner(on))
        await on.client.delete(CONFIG_MAPS, "owner", "rides", propagation="Orphan")
        await on.gone(CONFIG_MAPS, "owner", "rides")
        assert await references(on) == []
        gates["secrets"].set()
        await heard(on)
        assert await references(on) == []


async def test_orphans_known_only_as_they_were_are_kept(gates: dict[str, asyncio.Event]) -> None:
    """The collector that still takes a dependent for owned by what has gone deletes nothing on that."""
    async with workloads() as on:
        await on.cluster.ensure_namespace("rides")
        uid = await owner(on)
        for number in range(5):
            await child(on, uid, f"child-{number}")
        await heard(on)
        gates["secrets"].clear()
        await on.client.delete(CONFIG_MAPS, "owner", "rides", propagation="Orphan")
        live = {"data": {"touched": "eWVz"}}
        for number in range(5):
            await on.client.patch(SECRETS, f"child-{number}", live, namespace="rides")
        await on.quiet()
        gates["secrets"].set()
        await on.gone(CONFIG_MAPS, "owner", "rides")
        await heard(on)
        assert [await references(on, f"child-{number}") for number in range(5)] == [[]] * 5


@pytest.mark.parametrize("seed", range(8))
async def test_any_order_of_news(gates: dict[str, asyncio.Event], seed: int) -> None:
    """Held up here and there at random, orphans live and the dependents of a plain delete go."""
    rng = random.Random(seed)
    for policy in ("Orphan", "Background", "Foreground"):
        async with workloads() as on:
            await on.cluster.ensure_namespace("rides")

            async def weather() -> None:
                for gate in gates.values():
                    (gate.set if rng.random() < 0.5 else gate.clear)()
                await asyncio.sleep(rng.random() * 0.02)

            await weather()
            uid = await owner(on)
            await weather()
            await child(on, uid)
            await weather()
            await on.client.delete(CONFIG_MAPS, "owner", "rides", propagation=policy)
            for _ in range(3):
                await weather()
            for gate in gates.values():
                gate.set()
            await on.gone(CONFIG_MAPS, "owner", "rides")
            if policy == "Orphan":
                await heard(on)
                assert await references(on) == []
            else:
                await on.gone(SECRETS, "child", "rides")


async def test_a_list_that_fails_makes_no_garbage() -> None:
    """While the server cannot list a kind, orphaning waits: the dependents that it would miss would be deleted."""
    async with workloads() as on:
        await on.cluster.ensure_namespace("rides")
        uid = await owner(on)
        refused = 0

        async def broken(request: Request) -> Response | None:
            nonlocal refused
            if request.method == "GET" and request.path == "/api/v1/namespaces/rides/secrets" and refused < 2:
                refused += 1
                return Response(500, JSON, b'{"kind":"Status","status":"Failure","message":"broken","code":500}')
            return None

        on.cluster.transport.intercepts.append(broken)
        await child(on, uid)
        await on.client.delete(CONFIG_MAPS, "owner", "rides", propagation="Orphan")
        await on.gone(CONFIG_MAPS, "owner", "rides")
        assert refused == 2
        await heard(on)
        assert await references(on) == []


async def test_dependents_told_of_while_they_are_listed_hold_their_owner(gates: dict[str, asyncio.Event]) -> None:
    """The collector that hears of a blocking dependent only after it has decided lets the owner wait for it."""
    async with workloads() as on:
        await on.cluster.ensure_namespace("rides")
        uid = await owner(on)
        await on.quiet()
        gates["secrets"].clear()
        reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid, "blockOwnerDeletion": True}
        metadata = {"name": "child", "namespace": "rides", "ownerReferences": [reference], "finalizers": ["e.x/hold"]}
        version = (await on.client.create(SECRETS, {"metadata": metadata}))["metadata"]["resourceVersion"]
        transport = on.cluster.transport
        assert isinstance(transport, LateNews)
        transport.opened = on.inventory._own[SECRETS].wait_for(version, timeout=DEADLINE)
        transport.open_with = "secrets"
        await on.client.delete(CONFIG_MAPS, "owner", "rides", propagation="Foreground")
        await heard(on)
        live = await on.client.get(CONFIG_MAPS, "owner", "rides")
        assert live["metadata"]["finalizers"] == ["foregroundDeletion"]
        await on.client.patch(SECRETS, "child", {"metadata": {"finalizers": None}}, namespace="rides")
        await on.gone(CONFIG_MAPS, "owner", "rides")
