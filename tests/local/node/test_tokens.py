"""Account tokens in volumes: whose they are, and that they are renewed in time."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

from sandlane.kube.resource import SERVICE_ACCOUNTS
from sandlane.local.node.podvolumes import PodVolumes
from sandlane.testing.clock import ManualClock
from sandlane.testing.cluster import FakeCluster

from .conftest import ACCOUNT


def claims(token: str) -> dict[str, Any]:
    """What a token says."""
    part = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


async def test_tokens_are_bound_and_renewed(tmp_path: Path) -> None:
    """A token is of the Pod's account and bound to the Pod; after four fifths of its life there is another one."""
    clock = ManualClock()
    sources = [{"serviceAccountToken": {"path": "token", "audience": "vault", "expirationSeconds": 1000}}]
    mounts = [{"name": "v", "mountPath": "/v"}]
    spec = {
        "automountServiceAccountToken": False,
        "containers": [{"name": "app", "image": "i", "volumeMounts": mounts}],
        "volumes": [{"name": "v", "projected": {"sources": sources}}],
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "rides"}, "spec": spec}
    async with FakeCluster.with_objects(*ACCOUNT, clock=clock) as cluster:
        made = await cluster.add(pod)

        async def find(kind: str, namespace: str, name: str) -> dict[str, Any] | None:
            return await cluster.client.get(SERVICE_ACCOUNTS, name, namespace)

        volumes = PodVolumes(tmp_path, find, cluster.client, clock, "127.0.0.1", "127.0.0.2", "")
        await volumes.prepare(made)
        file = tmp_path / "volumes" / "v" / "token"
        first = claims(file.read_text())
        assert first["sub"] == "system:serviceaccount:rides:default"
        assert first["aud"] == ["vault"]
        assert first["kubernetes.io"]["pod"] == {"name": "web", "uid": made["metadata"]["uid"]}
        async with asyncio.TaskGroup() as tasks:
            keeping = tasks.create_task(volumes.keep(lambda: made))
            await clock.advance(790)
            assert claims(file.read_text()) == first
            await clock.advance(20)
            assert claims(file.read_text())["exp"] == first["exp"] + 800
            keeping.cancel()
