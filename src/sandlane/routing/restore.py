"""Gives Services back to their owners without a manager: for uninstalling, and for whoever has to do by hand what it did.

`restore` looks once at all Services and turns back those that are turned, however they came to be left behind.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from sandlane.kube.client import Client, PatchType
from sandlane.kube.errors import Conflict, Invalid, NotFound
from sandlane.kube.resource import SERVICES, Object
from sandlane.routing.build import listeners
from sandlane.routing.names import FIRST_LISTENER, LAST_LISTENER
from sandlane.routing.resources import ROUTER_SELECTOR
from sandlane.routing.turning import is_turned, turn_back
from sandlane.world.records import Service
from sandlane.world.world import World

ATTEMPTS = 10


class NotRestored(RuntimeError):
    """A Service could not be given back; the message says which one and why."""


async def restore(client: Client) -> AsyncIterator[str]:
    """Turn every Service back; what was done, in words. Raises `NotRestored` at the end for those that could not be."""
    world = World.of((await client.list(SERVICES)).items)
    problems = []
    for service in list(world.services):
        if not is_turned(service):
            continue
        try:
            await _restore(client, world, service)
        except NotRestored as error:
            problems.append(str(error))
        else:
            yield f"Service {service.metadata.key} turned back"
    if problems:
        raise NotRestored("\n".join(problems))


async def _restore(client: Client, world: World, service: Service) -> None:
    namespace, name = service.metadata.key
    for _ in range(ATTEMPTS):
        try:
            obj = await client.get(SERVICES, name, namespace)
            current = next(iter(World.of([obj]).services))
            if not is_turned(current):
                return  # a manager was faster
            patch = turn_back(obj, listeners(world, current) or _told_by(obj))
            await client.patch(SERVICES, name, patch, namespace=namespace, patch_type=PatchType.JSON)
            return
        except NotFound:
            return
        except (Conflict, Invalid):  # somebody wrote it meanwhile, or the version test of the patch failed
            continue
        except (ValueError, KeyError, TypeError) as error:
            raise NotRestored(
                f"Service {service.metadata.key}: its annotation sandlane.dev/original is damaged ({error}): write its "
                f"selector and target ports as they should be and remove the annotation"
            ) from error
    raise NotRestored(f"Service {service.metadata.key} was written by somebody else all the time")


def _told_by(obj: Object) -> Mapping[int, int]:
    """The router's ports as the Service itself tells them: its shadow, which remembers them, is gone."""
    if obj["spec"].get("selector") != ROUTER_SELECTOR:
        return {}
    ports = {port["port"]: port.get("targetPort") for port in obj["spec"].get("ports") or ()}
    return {
        port: target
        for port, target in ports.items()
        if isinstance(target, int) and FIRST_LISTENER <= target <= LAST_LISTENER
    }
