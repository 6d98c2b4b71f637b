"""Where the cluster's tunnel servers are, and whom to trust: read from the ConfigMap that the manager keeps for laptops."""

from __future__ import annotations

import msgspec

from sandlane.api.labels import TUNNEL
from sandlane.api.places import NAMESPACE
from sandlane.kube.client import Client
from sandlane.kube.clock import Clock
from sandlane.kube.errors import Forbidden, NotFound
from sandlane.kube.resource import CONFIG_MAPS, Object
from sandlane.laptop.errors import ConnectError
from sandlane.tunnel.resources import NAME

PATIENCE = 30.0


class Directory(msgspec.Struct, frozen=True):
    """The tunnel servers: `host` is empty when no address of theirs is published outside of the cluster."""

    namespace: str
    host: str
    port: int
    replicas: int
    ca: str


async def find_directory(client: Client, clock: Clock) -> Directory:
    """Read the directory, waiting for it to be made. Raises `ConnectError`."""
    end = clock.monotonic() + PATIENCE
    while clock.monotonic() < end:
        if (found := await read_directory(client)) is not None:
            return found
        await clock.sleep(0.1)
    raise ConnectError(
        f"the cluster has made no tunnel servers within {PATIENCE:.0f} s: is Sandlane's manager running? (see its log)"
    )


async def read_directory(client: Client) -> Directory | None:
    """The directory, or None when it is not there or may not be read. Raises `KubeError`."""
    found = await _directory(client)
    return None if found is None else directory_of(found)


def directory_of(obj: Object) -> Directory:
    """What a ConfigMap says."""
    data = obj["data"]
    host, _, port = (data.get("address") or "").rpartition(":")
    return Directory(
        obj["metadata"]["namespace"], host.strip("[]"), int(port or 0), int(data["replicas"]), data["ca.crt"]
    )


async def _directory(client: Client) -> Object | None:
    """The ConfigMap: in the usual namespace, which everybody may read, or wherever the user may look."""
    try:
        return await client.get(CONFIG_MAPS, NAME, NAMESPACE)
    except (NotFound, Forbidden):
        try:
            listed = (await client.list(CONFIG_MAPS, label_selector=f"{TUNNEL}=true")).items
        except Forbidden:
            return None
        return next((obj for obj in listed if obj["metadata"]["name"] == NAME), None)
