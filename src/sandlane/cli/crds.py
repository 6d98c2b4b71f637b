"""Puts the CustomResourceDefinitions into a cluster and waits until their kinds are served."""

from __future__ import annotations

import structlog

from sandlane.api.crd import definitions
from sandlane.kube.client import Client
from sandlane.kube.clock import Clock
from sandlane.kube.errors import TransportError
from sandlane.kube.resource import CUSTOM_RESOURCE_DEFINITIONS, Object

log = structlog.get_logger(__name__)

SECONDS = 60.0
_PAUSE = 0.03


class CrdsNotServed(RuntimeError):
    """The cluster does not serve our kinds; the message names them and what their conditions say."""


async def install(client: Client, clock: Clock) -> None:
    """Apply the definitions. Raises `CrdsNotServed`, and `ApiError` when the cluster refuses one."""
    end = clock.monotonic() + SECONDS
    for definition in definitions():
        while True:
            try:
                await client.apply(CUSTOM_RESOURCE_DEFINITIONS, definition)
                break
            except TransportError:  # the API server may be starting, too
                if clock.monotonic() > end:
                    raise
                await clock.sleep(_PAUSE)
    waiting = [definition["metadata"]["name"] for definition in definitions()]
    while waiting:
        found = await client.get(CUSTOM_RESOURCE_DEFINITIONS, waiting[0])
        if _established(found):
            waiting.pop(0)
        elif clock.monotonic() > end:
            said = [c.get("message", "") for c in (found.get("status") or {}).get("conditions") or ()]
            raise CrdsNotServed(f"{', '.join(waiting)} not served after {SECONDS:.0f} s: {'; '.join(said)}")
        else:
            await clock.sleep(_PAUSE)
    log.info("crds_installed")


def _established(definition: Object) -> bool:
    conditions = (definition.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)
