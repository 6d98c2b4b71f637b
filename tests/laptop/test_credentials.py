"""A laptop's certificate: asked for when there is none, renewed in good time, after sleep too, and never written to a disk."""

from __future__ import annotations

import asyncio
import base64
import random
from datetime import timedelta
from typing import Any

import pytest

from sandlane.kube.errors import TransportError
from sandlane.laptop.credentials import LIFETIME, Credentials
from sandlane.laptop.errors import ConnectError
from sandlane.runtime.certificates import make_ca
from sandlane.testing.clock import ManualClock
from sandlane.tunnel.authority import Authority
from sandlane.tunnel.identity import RENEWAL

UID = "11111111-2222-3333-4444-555555555555"


class Signer:
    """The CSR API, with a manager that signs at once; `fails` requests are not answered."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.ca = make_ca("test", clock.now())
        self.renewals: list[bool] = []
        self.fails = 0
        self.denial = ""
        self._status: dict[str, Any] = {}

    async def create(self, resource: object, obj: dict[str, Any]) -> dict[str, Any]:
        if self.fails:
            self.fails -= 1
            raise TransportError("no answer")
        self.renewals.append(obj["metadata"]["annotations"].get(RENEWAL) == "true")
        request = base64.b64decode(obj["spec"]["request"])
        lifetime = timedelta(seconds=obj["spec"]["expirationSeconds"])
        signed = Authority(self.ca).sign_laptop(request, self.clock.now(), lifetime)
        denied = [{"type": "Denied", "message": self.denial}] if self.denial else []
        self._status = {"conditions": denied} if denied else {"certificate": base64.b64encode(signed).decode()}
        return obj

    async def get(self, resource: object, name: str) -> dict[str, Any]:
        return {"status": self._status}


def credentials(signer: Signer) -> Credentials:
    """Of a laptop."""
    return Credentials(signer, signer.clock, random.Random(1), UID, signer.ca.certificate.decode())  # type: ignore[arg-type]


async def test_a_certificate_is_renewed_long_before_it_ends() -> None:
    """Once in its life; what is asked for after the first is a renewal; an API server that is away is asked again."""
    clock = ManualClock()
    signer = Signer(clock)
    mine = credentials(signer)
    await mine.fresh()
    await mine.fresh()
    assert signer.renewals == [False]
    first = mine.context
    async with asyncio.TaskGroup() as tasks:
        keeping = tasks.create_task(mine.keep())
        await clock.advance(LIFETIME.total_seconds() * 0.5)
        assert mine.context is first
        signer.fails = 3
        await clock.advance(LIFETIME.total_seconds() * 0.2)
        assert signer.renewals == [False, True]
        assert mine.context is not first
        keeping.cancel()


async def test_a_certificate_that_ended_in_sleep_is_renewed_before_it_is_used() -> None:
    """Nothing has to run while the laptop sleeps."""
    clock = ManualClock()
    signer = Signer(clock)
    mine = credentials(signer)
    await mine.fresh()
    clock.jump(LIFETIME.total_seconds() * 3)
    await mine.fresh()
    assert signer.renewals == [False, True]


async def test_a_denial_says_why() -> None:
    """In the cluster's words: who holds it, or which right is missing."""
    signer = Signer(ManualClock())
    signer.denial = "it is held by mia"
    with pytest.raises(ConnectError, match="it is held by mia"):
        await credentials(signer).fresh()
