"""All writes for a sandbox: its objects, what it does not need any more, its status."""

from __future__ import annotations

import structlog

from sandlane.api import reasons
from sandlane.api.labels import PLAN
from sandlane.api.types import ForkStatus
from sandlane.kube.apply import Action, Applier, NotOwned
from sandlane.kube.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    Forbidden,
    Gone,
    NotFound,
    ServerError,
    TooManyRequests,
    Unauthorized,
)
from sandlane.kube.resource import DEPLOYMENTS, LOCAL_WORKLOADS, SERVICES, Key, Object, Resource, key_of
from sandlane.sandbox.events import Announcer
from sandlane.sandbox.plan import Plan, Problem
from sandlane.sandbox.pods import OF_PODS, quota_problem
from sandlane.world.records import Sandbox
from sandlane.world.reports import RouteReport
from sandlane.world.world import World

log = structlog.get_logger(__name__)

Failures = dict[tuple[Resource, Key], Problem]


class Writes:
    """Makes the cluster hold what plans say."""

    def __init__(self, applier: Applier, world: World) -> None:
        self._applier = applier
        self._world = world

    async def apply(self, sandbox: Sandbox, plan: Plan, announcer: Announcer) -> Failures:
        """Apply everything that is planned; what the server refuses is answered, everything else raised."""
        failures: Failures = {}
        changes: dict[str, list[str]] = {}
        for resource, desired in plan.objects:
            key = key_of(desired)
            before = self._planned_before(resource, key)
            try:
                applied = await self._applier.ensure(resource, desired, owner=sandbox.metadata)
            except NotOwned as error:
                failures[resource, key] = Problem(reasons.NOT_OWNED, str(error))
            except ApiError as error:
                if _passes(error):
                    raise
                failures[resource, key] = refusal(resource, key, error)
            else:
                kind = _kind_of_change(applied.action, before, desired, sandbox)
                if kind:
                    changes.setdefault(kind, []).append(f"{resource.kind} {key.name}")
        announcer.changes(sandbox, changes)
        return failures

    async def remove_superfluous(
        self, sandbox: Sandbox, plan: Plan, report: RouteReport | None, announcer: Announcer
    ) -> None:
        """Delete what is not asked for any more, once no router leads there."""
        remaining = bool(sandbox.spec.forks or sandbox.spec.local)
        if report is not None and report.served and not (report.programmed and remaining):
            return
        gone = []
        for resource, key in plan.superfluous(self._world, sandbox):
            await self._applier.remove(resource, key, owner=sandbox.metadata)
            gone.append(f"{resource.kind} {key.name}")
        announcer.changes(sandbox, {"Deleted": gone} if gone else {})

    async def remove_all(self, sandbox: Sandbox) -> list[str]:
        """Delete everything that the sandbox owns; what is not gone yet."""
        owned = [
            *((LOCAL_WORKLOADS, record.metadata) for record in self._world.owned_local_workloads(sandbox.metadata)),
            *((DEPLOYMENTS, record.metadata) for record in self._world.owned_deployments(sandbox.metadata)),
            *((SERVICES, record.metadata) for record in self._world.owned_services(sandbox.metadata)),
        ]
        left = []
        for resource, metadata in owned:
            if not await self._applier.remove(resource, metadata.key, owner=sandbox.metadata):
                left.append(f"{resource.kind} {metadata.name}")
        return left

    def _planned_before(self, resource: Resource, key: Key) -> str | None:
        stores = {
            DEPLOYMENTS: self._world.deployments,
            SERVICES: self._world.services,
            LOCAL_WORKLOADS: self._world.local_workloads,
        }
        record = stores[resource].get(key)  # type: ignore[attr-defined]
        return None if record is None else record.metadata.annotations.get(PLAN, "")


def _kind_of_change(action: Action, before: str | None, desired: Object, sandbox: Sandbox) -> str:
    """Which Event tells of a write; none for no write."""
    if action is Action.CREATED:
        made = [fork for fork in sandbox.status.forks if _was_made(fork)]
        had = {fork.workload for fork in made}
        had |= {service.to for fork in made for service in fork.services if service.ports}
        return "DriftCorrected" if desired["metadata"]["name"] in had else "Created"
    if action in (Action.UPDATED, Action.CLEANED):
        return "DriftCorrected" if before == desired["metadata"]["annotations"][PLAN] else "Updated"
    return ""


def _was_made(fork: ForkStatus) -> bool:
    """Whether a fork's objects were there when its status was written: a status tells of forks that cannot be made, too."""
    if fork.reason == reasons.PROGRESSING:
        return fork.desired > 0
    return fork.ever_ready or not fork.reason or fork.reason in OF_PODS


def _passes(error: ApiError) -> bool:
    """Whether the same request may be taken in a moment: a failure of the server, and not of a webhook that it asks."""
    if isinstance(error, ServerError):
        return "failed calling webhook" not in error.message
    return isinstance(error, Unauthorized | NotFound | AlreadyExists | Conflict | Gone | TooManyRequests)


def refusal(resource: Resource, key: Key, error: ApiError) -> Problem:
    """What a refused write means to the user."""
    quota = isinstance(error, Forbidden) and quota_problem(error.message)
    going = "being terminated" in error.message
    reason = reasons.QUOTA_EXCEEDED if quota else reasons.NAMESPACE_TERMINATING if going else reasons.REFUSED
    return Problem(reason, f"{resource.kind} {key.name}: {error.message}")
