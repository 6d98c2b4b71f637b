"""Where a cluster's routers look for routing keys, for those who only see its objects: written on each router's Deployment. Pure."""

from __future__ import annotations

import msgspec

from sandlane.kube.resource import Key
from sandlane.routing.key import KeySources
from sandlane.routing.names import KEY_SOURCES, ROUTER
from sandlane.world.world import World


def described(sources: KeySources) -> dict[str, str]:
    """What a router's Deployment says; nothing where keys are only looked for in the usual places."""
    return {} if sources == KeySources() else {KEY_SOURCES: msgspec.json.encode(sources).decode()}


def sources_in(world: World, namespace: str) -> KeySources:
    """Where the routers of a namespace look. All routers have the same manager: without one there, any other tells."""
    own = world.deployments.get(Key(namespace, ROUTER))
    others = (each for each in world.deployments if each.metadata.name == ROUTER)
    router = own or min(others, key=lambda each: each.metadata.key, default=None)
    said = router.metadata.annotations.get(KEY_SOURCES) if router is not None else None
    try:
        return msgspec.json.decode(said, type=KeySources) if said else KeySources()
    except msgspec.DecodeError:
        return KeySources()  # another version's, or somebody has written it: the manager puts it right
