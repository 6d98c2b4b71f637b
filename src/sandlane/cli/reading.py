"""Reads what routing depends on from an API server, once, with the rights of whoever asks."""

from __future__ import annotations

import asyncio
import random  # noqa: TID251 - the composition root
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sandlane.kube.client import Client
from sandlane.kube.clock import SystemClock
from sandlane.kube.config import Config, load_config
from sandlane.kube.errors import Forbidden, Gone, KubeError, NotFound
from sandlane.kube.http import HttpTransport
from sandlane.kube.pages import RawList
from sandlane.kube.resource import SANDBOXES, Resource
from sandlane.kube.store import Store
from sandlane.local.settings import DataDir
from sandlane.world.world import KINDS, World, decode

NEEDED = (
    "sandboxes",
    "route_groups",
    "local_workloads",
    "services",
    "endpoint_slices",
    "deployments",
    "namespaces",
)
HELPFUL = ("network_policies",)
"""What says why a route is not there; whoever may not read it is not told."""


class NotInstalled(KubeError):
    """The cluster does not serve Sandlane's kinds."""


def config_of(kubeconfig: Path | None, data_dir: Path | None) -> Config:
    """The cluster that is meant: the one named, or the usual one. Raises `ConfigError`."""
    if kubeconfig is None and data_dir is not None:
        kubeconfig = DataDir(data_dir).kubeconfig
    return load_config(kubeconfig)


@asynccontextmanager
async def client_of(config: Config) -> AsyncIterator[Client]:
    """A client, closed at the end."""
    client = Client(HttpTransport(config), clock=SystemClock(), rng=random.Random(), user_agent="sandlane-cli")
    try:
        yield client
    finally:
        await client.close()


class Reading:
    """A world, and what of it could not be seen."""

    def __init__(self) -> None:
        self.world = World()
        self.unseen: list[str] = []


async def read_world(client: Client, namespace: str) -> Reading:
    """Everything that may be seen, at least of `namespace`. Raises `KubeError` when that is refused."""
    reading = Reading()

    async def read(name: str) -> tuple[str, Store[Any]]:
        resource, record = KINDS[name]
        try:
            found, whole = await _list(client, resource, namespace)
        except Forbidden:
            if name not in HELPFUL:
                raise
            found, whole = None, True
        if not whole and name not in HELPFUL:
            reading.unseen.append(resource.plural)
        store: Store[Any] = Store()
        for data in found.items if found else ():
            store.set(decode(record, data))
        return name, store

    reading.world = World(dict(await asyncio.gather(*(read(name) for name in (*NEEDED, *HELPFUL)))))
    return reading


async def _list(client: Client, resource: Resource, namespace: str) -> tuple[RawList | None, bool]:
    try:
        return await _all(client, resource, None), True
    except Forbidden:
        if not resource.namespaced:
            return None, False
        return await _all(client, resource, namespace), False
    except NotFound:
        if resource.group != SANDBOXES.group:
            raise
        message = f"{resource.plural}.{resource.group} are not served: Sandlane is not installed in this cluster"
        raise NotInstalled(message) from None


async def _all(client: Client, resource: Resource, namespace: str | None) -> RawList:
    try:
        return await client.list_raw(resource, namespace)
    except Gone:  # the pages have expired while they were read
        return await client.list_raw(resource, namespace)
