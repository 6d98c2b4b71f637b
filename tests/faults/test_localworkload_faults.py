"""Whatever goes wrong on the way, a LocalWorkload and the certificate of its laptop end in the same world."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from sandlane.api.crd import definitions
from sandlane.kube.client import Client
from sandlane.kube.resource import CERTIFICATE_SIGNING_REQUESTS, LOCAL_WORKLOADS, Object
from sandlane.localworkload.controller import LocalWorkloadController
from sandlane.localworkload.signer import TunnelSigner
from sandlane.localworkload.status import Observed
from sandlane.runtime.manager import Manager
from sandlane.runtime.signing import make_ca, new_key
from sandlane.testing.harness import Harness, Step
from sandlane.tunnel.authority import Authority
from sandlane.tunnel.identity import SIGNER, Claim, signing_request
from sandlane.world.world import World
from support.sandboxes import NAMESPACE, PretendRoutes, deployment, sandbox, service

QUIET = 8.0
"""Seconds: less than would bring a heartbeat."""
AUTHORITY = Authority(make_ca("tunnel", datetime(2026, 1, 1, tzinfo=UTC)))
KEY = new_key()
LOCAL: Object = {
    "apiVersion": "sandlane.dev/v1alpha1",
    "kind": "LocalWorkload",
    "metadata": {"name": "laptop", "namespace": NAMESPACE},
    "spec": {
        "sandbox": "new-eta",
        "from": {"kind": "Deployment", "name": "driver"},
        "mappings": [{"port": 8083, "to": "localhost:1"}],
    },
}


class PretendConnections:
    """Whoever holds a LocalWorkload is connected at once."""

    def __init__(self, world: World) -> None:
        self._world = world

    def observed(self, uid: str) -> Observed:
        local = next(each for each in self._world.local_workloads if each.metadata.uid == uid)
        return Observed(2, 2, "10.0.0.9") if local.status.connection else Observed()

    def close(self, uid: str) -> bool:
        return True

    def subscribe(self, listener: Callable[[str], None]) -> None:
        """Nothing changes by itself."""


def build(manager: Manager) -> LocalWorkloadController:
    """Register the controllers under test."""
    world = World.from_cache(manager.cache)
    controller = LocalWorkloadController(manager, world, PretendRoutes(), PretendConnections(world))
    controller.setup_with_manager(manager)
    TunnelSigner(manager, world, lambda: AUTHORITY).setup_with_manager(manager)
    return controller


async def create(client: Client) -> None:
    """A user applies it."""
    await client.create(LOCAL_WORKLOADS, LOCAL)


async def delete(client: Client) -> None:
    """A user deletes it."""
    await client.delete(LOCAL_WORKLOADS, "laptop", NAMESPACE)


def ask(session: str) -> Step:
    """A laptop asks for a certificate."""

    async def step(client: Client) -> None:
        local = await client.get(LOCAL_WORKLOADS, "laptop", NAMESPACE)
        pem = signing_request(KEY, Claim(session, local["metadata"]["uid"]))
        spec = {"signerName": SIGNER, "request": base64.b64encode(pem).decode(), "usages": ["client auth"]}
        request = {"apiVersion": CERTIFICATE_SIGNING_REQUESTS.api_version, "kind": "CertificateSigningRequest"}
        await client.create(CERTIFICATE_SIGNING_REQUESTS, request | {"metadata": {"name": session}, "spec": spec})

    return step


def same(obj: Object) -> Object:
    """Requests and certificates hold what is random."""
    if obj["kind"] != "CertificateSigningRequest":
        return obj
    status = obj.get("status") or {}
    hidden = {"certificate": bool(status.get("certificate"))}
    return obj | {"spec": obj["spec"] | {"request": ""}, "status": status | hidden}


BASE = (*definitions(), sandbox(), deployment("driver"), service("driver"))
ROWS: dict[str, list[Step]] = {
    "taken-over": [create, ask("aaaaaaaaaaaaaaaa"), ask("bbbbbbbbbbbbbbbb")],
    "deleted": [create, ask("aaaaaaaaaaaaaaaa"), delete],
}


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS)
async def test_ends_in_the_same_world(row: str) -> None:
    """Crashes after every write, failing calls, broken watches and stale restarts change nothing in the end."""
    report = await Harness(build, objects=BASE, steps=ROWS[row], normalise=same, limit=8, quiet=QUIET).check()
    assert report.writes
    if row == "taken-over":
        status = report.world[f"LocalWorkload {NAMESPACE}/laptop"]["status"]
        assert (status["phase"], status["connection"]["session"]) == ("Connected", "bbbbbbbbbbbbbbbb")
