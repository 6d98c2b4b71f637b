"""`sandlane uninstall`: undoes what Sandlane did to a cluster, then says what it left.

A running manager does most of it: deleted sandboxes take their routes out first, so that no request fails. What is still
there after a while (because no manager runs) is undone here: finalizers, turned Services, routers.
"""

from __future__ import annotations

import asyncio
import random  # noqa: TID251 - a composition root
from collections.abc import Callable
from pathlib import Path

from sandlane.api.crd import definitions
from sandlane.api.labels import MANAGED_SELECTOR
from sandlane.api.types import FINALIZER
from sandlane.cli.crds import install
from sandlane.cli.manager import Options
from sandlane.kube.client import Client
from sandlane.kube.clock import Clock, SystemClock
from sandlane.kube.config import load_config
from sandlane.kube.errors import NotFound
from sandlane.kube.http import HttpTransport
from sandlane.kube.resource import (
    CUSTOM_RESOURCE_DEFINITIONS,
    DEPLOYMENTS,
    LOCAL_WORKLOADS,
    MUTATING_WEBHOOK_CONFIGURATIONS,
    POD_DISRUPTION_BUDGETS,
    ROUTE_GROUPS,
    SANDBOXES,
    SERVICES,
    VALIDATING_WEBHOOK_CONFIGURATIONS,
    Object,
    Resource,
)
from sandlane.routing.controller import RoutingController
from sandlane.routing.envoy.server import XdsServer
from sandlane.routing.key import KeySources
from sandlane.routing.publisher import Publisher
from sandlane.routing.resources import RouterOptions
from sandlane.runtime.manager import Manager
from sandlane.world.world import World

PATIENCE = 20.0
"""Seconds for a running manager to take its finalizers off."""
_PAUSE = 0.2
_OURS = (LOCAL_WORKLOADS, SANDBOXES, ROUTE_GROUPS)
_MADE = (DEPLOYMENTS, SERVICES, POD_DISRUPTION_BUDGETS)

Say = Callable[[str], None]


async def uninstall(kubeconfig: Path | None, say: Say, *, keep_crds: bool = False) -> None:
    """Undo everything. Raises `ConfigError` and `KubeError`."""
    clock, rng = SystemClock(), random.Random()
    client = Client(HttpTransport(load_config(kubeconfig)), clock=clock, rng=rng)
    try:
        await install(
            client, clock, definitions()
        )  # where somebody deleted the kinds, what they left can still be undone
        await _delete_ours(client, clock, say)
        await _delete_webhooks(client, say)
        await _restore_services(Manager(client, clock=clock, rng=rng, options=Options()), say)
        await _delete_made(client, say)
        if not keep_crds:
            await _delete_definitions(client, say)
        say("left alone: namespaces, and annotations that their owners wrote (sandlane.dev/routing and the like)")
    finally:
        await client.close()


async def _all(client: Client, resource: Resource, label_selector: str = "") -> list[Object]:
    try:
        return (await client.list(resource, label_selector=label_selector)).items
    except NotFound:  # the kind is not served (any more)
        return []


async def _delete_ours(client: Client, clock: Clock, say: Say) -> None:
    for resource in _OURS:
        for obj in await _all(client, resource):
            await _delete(client, resource, obj)
            say(f"{resource.kind} {obj['metadata']['namespace']}/{obj['metadata']['name']} deleted")
    end = clock.monotonic() + PATIENCE
    while any([await _all(client, resource) for resource in _OURS]) and clock.monotonic() < end:
        await clock.sleep(_PAUSE)
    for resource in _OURS:
        for obj in await _all(client, resource):
            metadata = obj["metadata"]
            left = [name for name in metadata.get("finalizers") or () if name != FINALIZER]
            body = {"metadata": {"finalizers": left, "resourceVersion": metadata["resourceVersion"]}}
            try:
                await client.patch(resource, metadata["name"], body, namespace=metadata["namespace"])
            except NotFound:
                continue
            say(f"{resource.kind} {metadata['namespace']}/{metadata['name']}: no manager answered, finalizer removed")


async def _delete(client: Client, resource: Resource, obj: Object) -> None:
    try:
        await client.delete(
            resource, obj["metadata"]["name"], obj["metadata"].get("namespace"), propagation="Background"
        )
    except NotFound:
        return


async def _restore_services(manager: Manager, say: Say) -> None:
    world = World.from_cache(manager.cache)
    publisher = Publisher(manager.cache, world, XdsServer(), manager.clock, KeySources())
    routing = RoutingController(manager, world, publisher, RouterOptions("", 0))
    routing.setup_with_manager(manager)
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(manager.cache.run())
        try:
            await manager.cache.wait_synced()
            for done in await routing.restore_all():
                say(done)
        finally:
            watching.cancel()


async def _delete_made(client: Client, say: Say) -> None:
    """What nobody owns any more, or what garbage collection has not taken yet."""
    for resource in _MADE:
        for obj in await _all(client, resource, MANAGED_SELECTOR):
            await _delete(client, resource, obj)
            say(f"{resource.kind} {obj['metadata']['namespace']}/{obj['metadata']['name']} deleted")


async def _delete_webhooks(client: Client, say: Say) -> None:
    """Nobody is to be asked by the time that nobody answers."""
    for resource in (MUTATING_WEBHOOK_CONFIGURATIONS, VALIDATING_WEBHOOK_CONFIGURATIONS):
        name = Options().webhook_service
        try:
            await client.delete(resource, name)
        except NotFound:
            continue
        say(f"{resource.kind} {name} deleted")


async def _delete_definitions(client: Client, say: Say) -> None:
    for definition in definitions():
        name = definition["metadata"]["name"]
        try:
            await client.delete(CUSTOM_RESOURCE_DEFINITIONS, name)
        except NotFound:
            continue
        say(f"CustomResourceDefinition {name} deleted")
