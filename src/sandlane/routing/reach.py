"""Which Services a change is about, and which router ports they have. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sandlane.kube.resource import Key
from sandlane.routing.build import listeners
from sandlane.routing.names import SHADOW_OF
from sandlane.world.records import LocalWorkload, Sandbox, Service
from sandlane.world.world import World


def routed(world: World, namespace: str) -> list[Key]:
    """The Services of a namespace that have a shadow; some may be gone."""
    return list(_originals(world.shadows(namespace)))


def routed_anywhere(world: World) -> set[Key]:
    """The same of all namespaces."""
    return set(_originals(world.services))


def _originals(services: Iterable[Service]) -> Iterator[Key]:
    for service in services:
        if original := service.metadata.annotations.get(SHADOW_OF):
            yield Key(service.metadata.namespace, original)


def taken(world: World, service: Key) -> set[int]:
    """Router ports that other Services of a Service's namespace have."""
    others = {key: world.services.get(key) for key in routed(world, service.namespace) if key != service}
    return {port for other in others.values() if other is not None for port in listeners(world, other).values()}


def services_of_sandbox(sandbox: Sandbox) -> list[Key]:
    """The Services that a sandbox's forks stand in for."""
    return [
        Key(sandbox.metadata.namespace, service.from_) for fork in sandbox.status.forks for service in fork.services
    ]


def services_of_local(world: World, local: LocalWorkload) -> list[Key]:
    """The Services that a laptop stands in for."""
    baseline = world.baseline(local.metadata.namespace, local.spec.from_)
    if baseline is None:
        return []
    found = world.services_selecting(local.metadata.namespace, baseline.pod_labels)
    return [service.metadata.key for service in found]
