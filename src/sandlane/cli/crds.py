"""Puts objects of an installation into a cluster and waits until their kinds are served."""

from __future__ import annotations

import structlog

from sandlane.kube.client import Client
from sandlane.kube.clock import Clock
from sandlane.kube.errors import TransportError
from sandlane.kube.resource import (
    CUSTOM_RESOURCE_DEFINITIONS,
    ENDPOINT_SLICES,
    MUTATING_WEBHOOK_CONFIGURATIONS,
    NAMESPACES,
    SERVICES,
    VALIDATING_WEBHOOK_CONFIGURATIONS,
    Object,
    Resource,
)

log = structlog.get_logger(__name__)

SECONDS = 60.0
_PAUSE = 0.03
_RBAC = ("rbac.authorization.k8s.io", "v1")
_RESOURCES = {
    resource.kind: resource
    for resource in (
        CUSTOM_RESOURCE_DEFINITIONS,
        NAMESPACES,
        SERVICES,
        ENDPOINT_SLICES,
        MUTATING_WEBHOOK_CONFIGURATIONS,
        VALIDATING_WEBHOOK_CONFIGURATIONS,
        Resource("", "v1", "serviceaccounts", "ServiceAccount"),
        Resource(*_RBAC, "clusterroles", "ClusterRole", namespaced=False),
        Resource(*_RBAC, "clusterrolebindings", "ClusterRoleBinding", namespaced=False),
        Resource(*_RBAC, "roles", "Role"),
        Resource(*_RBAC, "rolebindings", "RoleBinding"),
    )
}


class CrdsNotServed(RuntimeError):
    """The cluster does not serve our kinds; the message names them and what their conditions say."""


async def install(client: Client, clock: Clock, objects: list[Object]) -> None:
    """Apply them in their order. Raises `CrdsNotServed`, and `ApiError` when the cluster refuses one."""
    end = clock.monotonic() + SECONDS
    for obj in objects:
        while True:
            try:
                await client.apply(_RESOURCES[obj["kind"]], obj, field_manager="sandlane-install")
                break
            except TransportError:  # the API server may be starting, too
                if clock.monotonic() > end:
                    raise
                await clock.sleep(_PAUSE)
    waiting = [obj["metadata"]["name"] for obj in objects if obj["kind"] == CUSTOM_RESOURCE_DEFINITIONS.kind]
    while waiting:
        found = await client.get(CUSTOM_RESOURCE_DEFINITIONS, waiting[0])
        if _established(found):
            waiting.pop(0)
        elif clock.monotonic() > end:
            said = [c.get("message", "") for c in (found.get("status") or {}).get("conditions") or ()]
            raise CrdsNotServed(f"{', '.join(waiting)} not served after {SECONDS:.0f} s: {'; '.join(said)}")
        else:
            await clock.sleep(_PAUSE)
    log.info("installed", objects=len(objects))


def _established(definition: Object) -> bool:
    conditions = (definition.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)
