"""The RouteGroup controller: who wakes it, and what it does. Its tasks are the runtime's workers."""

from __future__ import annotations

from typing import Any

from sandlane.api import reasons
from sandlane.api.labels import ALLOW_ROUTE_GROUPS
from sandlane.api.limits import Settings
from sandlane.api.ttl import Expiry
from sandlane.api.types import FINALIZER, RouteGroupStatus
from sandlane.kube.clock import timestamp
from sandlane.kube.errors import NotFound
from sandlane.kube.informer import Change
from sandlane.kube.resource import LOCAL_WORKLOADS, NAMESPACES, ROUTE_GROUPS, SANDBOXES, Key
from sandlane.routegroup.plan import compile_group
from sandlane.routegroup.status import expires, observe, terminating
from sandlane.routing.groups import matches
from sandlane.routing.patience import Patience
from sandlane.runtime.conditions import find_condition
from sandlane.runtime.controller import Controller
from sandlane.runtime.finalizers import add_finalizer, remove_finalizer
from sandlane.runtime.lifetime import Lifetime
from sandlane.runtime.manager import Manager
from sandlane.runtime.recorder import WARNING
from sandlane.runtime.result import Request, Result
from sandlane.runtime.status import write_status
from sandlane.world.records import LocalWorkload, Namespace, RouteGroup, Sandbox
from sandlane.world.reports import Routes
from sandlane.world.world import World

RETRY_DELETION = 10.0


class RouteGroupController:
    """Keeps the status of route groups, from which nothing is routed: the route table asks the groups' specs."""

    def __init__(self, manager: Manager, world: World, routes: Routes, settings: Settings | None = None) -> None:
        self.world = world
        self.settings = settings or Settings()
        self._clock = manager.clock
        self._client = manager.client
        self._cache = manager.cache
        self._recorder = manager.recorder
        self._routes = routes
        self._patience = Patience(manager.clock)
        self._lifetime = Lifetime(ROUTE_GROUPS, manager.client, manager.clock, manager.recorder)

    def setup_with_manager(self, manager: Manager) -> Controller:
        """Say who wakes it."""
        world = self.world
        controller = (
            Controller.managed_by(manager)
            .for_(ROUTE_GROUPS, RouteGroup)
            .watches(ROUTE_GROUPS, RouteGroup, to_requests=lambda group: same_key(world, group), when=_came_or_went)
            .watches(SANDBOXES, Sandbox, to_requests=lambda sandbox: groups_of(world, sandbox), when=_later)
            .watches(LOCAL_WORKLOADS, LocalWorkload, to_requests=lambda local: of_local(world, local), when=_later)
            .watches(NAMESPACES, Namespace, to_requests=lambda ns: looking_into(world, ns), when=_consent_changed)
            .complete(self)
        )
        self._routes.subscribe(lambda kind, key: controller.enqueue(key) if kind == "RouteGroup" else None)
        return controller

    async def reconcile(self, request: Request) -> Result:
        """Drive one group towards its spec. Level-triggered: reads everything, assumes nothing."""
        group = self.world.route_groups.get(request)
        if group is None:
            self._patience.forget(request)
            return Result.done()
        if group.metadata.deleting:
            return await self._finalize(group)
        if await self._lifetime.end(group.metadata, self._ends(group)):
            return Result.done()
        answer = await add_finalizer(self._client, ROUTE_GROUPS, group.metadata, FINALIZER)
        if answer is not None:
            self._cache.observe(ROUTE_GROUPS, answer)
            group = self.world.route_groups.get(request) or group
        compiled = compile_group(self.world, group)
        report, look_again = self._patience.calm(group, self._routes.route_group(request))
        status = observe(group, compiled, report, now=self._clock.now(), settings=self.settings)
        group = await self._report(group, status)
        due = self._lifetime.wait(group.metadata, self._ends(group))
        waits = [seconds for seconds in (due, look_again) if seconds is not None]
        return Result.requeue_after(min(waits)) if waits else Result.done()

    def _ends(self, group: RouteGroup) -> Expiry | None:
        status = group.status
        if not status.observed_generation:
            return expires(group, group.metadata.creation_timestamp, "")
        unseen = status.observed_generation != group.metadata.generation
        updated = timestamp(self._clock.now()) if unseen else status.last_update_time
        return expires(group, updated, status.unmatched_since)

    async def _report(self, group: RouteGroup, status: RouteGroupStatus) -> RouteGroup:
        """Write the status if it changed, and announce what changed in it."""
        if status == group.status:
            return group
        self._cache.observe(ROUTE_GROUPS, await write_status(self._client, ROUTE_GROUPS, group.metadata, status))
        self._announce(group, status)
        return self.world.route_groups.get(group.metadata.key) or group

    def _announce(self, group: RouteGroup, new: RouteGroupStatus) -> None:
        """One Event for each transition."""
        for kind, became, reason in (
            ("Conflicted", "True", "Conflict"),
            ("Accepted", "False", "Refused"),
            ("RoutesProgrammed", "True", "RoutesProgrammed"),
        ):
            before, after = find_condition(group.status.conditions, kind), find_condition(new.conditions, kind)
            if after is None or after.status != became or (before is not None and before.status == became):
                continue
            if reason == "RoutesProgrammed" and not new.route_count:
                continue
            level = "Normal" if reason == "RoutesProgrammed" else WARNING
            text = after.message or f"{new.route_count} routes are served"
            self._recorder.event(ROUTE_GROUPS, group.metadata, reason, text, kind=level)

    async def _finalize(self, group: RouteGroup) -> Result:
        """Routes out, then the finalizer off."""
        if FINALIZER not in group.metadata.finalizers:
            return Result.done()
        report = self._routes.route_group(group.metadata.key)
        if report is not None and report.served:
            message = report.message or "routers still serve its routes"
            await self._report(group, terminating(group, message, self._clock.now()))
            return Result.requeue_after(RETRY_DELETION)
        try:
            answer = await remove_finalizer(self._client, ROUTE_GROUPS, group.metadata, FINALIZER)
        except NotFound:
            return Result.done()
        told = find_condition(group.status.conditions, "RoutesProgrammed")
        served = told is not None and (told.status == "True" or told.reason == reasons.ROUTES_DRAINING)
        if served and group.status.route_count:
            self._recorder.event(ROUTE_GROUPS, group.metadata, "RoutesRemoved", "no router serves its routes")
        if answer is not None:
            self._cache.observe(ROUTE_GROUPS, answer)
            self._cache.observe_deleted(ROUTE_GROUPS, group.metadata.key)
        return Result.done()


# -- who is meant -------------------------------------------------------------------------------------------


def groups_of(world: World, sandbox: Sandbox) -> list[Key]:
    """The groups that match a sandbox (as it is in this record), or claim its key."""
    namespace = sandbox.metadata.namespace
    return [
        group.metadata.key
        for group in world.route_groups
        if namespace in (group.spec.namespaces or (group.metadata.namespace,))
        and (
            matches(group.spec.match, sandbox.metadata.labels)
            or (sandbox.spec.routing_key and sandbox.spec.routing_key == group.spec.routing_key)
        )
    ]


def of_local(world: World, local: LocalWorkload) -> list[Key]:
    """The groups that match a local workload's sandbox."""
    sandbox = world.sandboxes.get(Key(local.metadata.namespace, local.spec.sandbox))
    return groups_of(world, sandbox) if sandbox is not None else []


def same_key(world: World, group: RouteGroup) -> list[Key]:
    """The groups that claim the same key."""
    key = group.spec.routing_key
    return [other.metadata.key for other in world.route_groups.by_index("routing-key", key)] if key else []


def looking_into(world: World, namespace: Namespace) -> list[Key]:
    """The groups that look for sandboxes, or have endpoints, in a namespace that they name."""
    name = namespace.metadata.name
    return [
        group.metadata.key
        for group in world.route_groups
        if name in group.spec.namespaces or any(f".{name}:" in each.target for each in group.spec.endpoints)
    ]


def _later(change: Change[Any]) -> bool:
    return not change.initial


def _came_or_went(change: Change[RouteGroup]) -> bool:
    if change.initial:
        return False
    return change.old is None or change.new is None or change.old.metadata.deleting != change.new.metadata.deleting


def _consent_changed(change: Change[Namespace]) -> bool:
    consents = [
        each.metadata.annotations.get(ALLOW_ROUTE_GROUPS) if each else None for each in (change.old, change.new)
    ]
    return consents[0] != consents[1]
