"""Which sandboxes a change of something else concerns. Pure functions of the world and of a record or a change."""

from __future__ import annotations

from typing import Any

from sandlane.api.keys import routing_key
from sandlane.api.labels import FORK, SANDBOX
from sandlane.kube.informer import Change
from sandlane.kube.resource import Key
from sandlane.preview.plan import endpoints_of
from sandlane.world.records import Deployment, Namespace, Pod, RouteGroup, Sandbox, Service
from sandlane.world.surroundings import NetworkPolicy
from sandlane.world.world import World, original, ours


def later(change: Change[Any]) -> bool:
    """Not the first list: then every sandbox is looked at anyway."""
    return not change.initial


def came_or_went(change: Change[Any]) -> bool:
    """An object is new, gone, or going."""
    if change.initial:
        return False
    return change.old is None or change.new is None or change.old.metadata.deleting != change.new.metadata.deleting


def spec_changed(change: Change[Any]) -> bool:
    """An object came, went, or has another spec."""
    if change.initial:
        return False
    if change.old is None or change.new is None:
        return True
    old, new = change.old.metadata, change.new.metadata
    return bool(old.uid != new.uid or old.generation != new.generation or old.deleting != new.deleting)


def service_changed(change: Change[Service]) -> bool:
    """A Service that is not ours came, went, or is written otherwise by its owner."""
    if change.initial:
        return False
    if change.old is None or change.new is None:
        return not ours(change.new or change.old)  # type: ignore[arg-type]
    return not ours(change.new) and original(change.old).spec != original(change.new).spec


def matches_changed(change: Change[RouteGroup]) -> bool:
    """A RouteGroup matches other sandboxes than before."""
    if change.initial:
        return False
    if change.old is None or change.new is None:
        return True
    return change.old.status.matched_sandboxes != change.new.status.matched_sandboxes


def same_key(world: World, sandbox: Sandbox) -> list[Key]:
    """The sandboxes that claim the same routing key."""
    key = routing_key(sandbox.metadata.uid, sandbox.spec.routing_key)
    return [other.metadata.key for other in world.sandboxes.by_index("routing-key", key)]


def of_baseline(world: World, deployment: Deployment) -> list[Key]:
    """The sandboxes that fork this Deployment."""
    return [sandbox.metadata.key for sandbox in world.sandboxes_of_baseline(deployment.metadata.key)]


def of_service(world: World, service: Service) -> list[Key]:
    """The sandboxes whose baselines or forks this Service selects."""
    selector = original(service).spec.selector
    if not selector:
        return []
    found: dict[Key, None] = {}
    for deployment in world.deployments.namespace(service.metadata.namespace):
        if selector.items() <= deployment.pod_labels.items():
            controller = deployment.metadata.controller
            if SANDBOX in deployment.metadata.labels and controller is not None:
                found[Key(deployment.metadata.namespace, controller.name)] = None
            else:
                found |= dict.fromkeys(of_baseline(world, deployment))
    return list(found)


def of_pod(pod: Pod) -> list[Key]:
    """The sandbox whose fork this Pod belongs to."""
    name = pod.metadata.labels.get(SANDBOX)
    return [Key(pod.metadata.namespace, name)] if name and FORK in pod.metadata.labels else []


def of_policy(world: World, policy: NetworkPolicy) -> list[Key]:
    """The sandboxes of its namespace."""
    return [sandbox.metadata.key for sandbox in world.sandboxes.list(policy.metadata.namespace)]


def of_consent(world: World, namespace: Namespace) -> list[Key]:
    """The sandboxes that have a preview endpoint in this namespace, which is another one's."""
    within = f".{namespace.metadata.name}:"
    return [
        sandbox.metadata.key
        for sandbox in world.sandboxes
        if any(within in endpoint.target for endpoint in endpoints_of(sandbox))
    ]


def of_route_group(group: RouteGroup) -> list[Key]:
    """The sandboxes that the group matches."""
    here = group.metadata.namespace
    return [Key(matched.namespace or here, matched.name) for matched in group.status.matched_sandboxes]
