"""The routing controller, keyed by Service: runs the router, turns Services to it, and turns them back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import structlog

from sandlane.api import reasons
from sandlane.api.labels import ROUTER, ROUTER_PODS
from sandlane.kube.apply import Applier, NotOwned
from sandlane.kube.client import PatchType
from sandlane.kube.errors import Conflict, Invalid, NotFound
from sandlane.kube.informer import Change
from sandlane.kube.resource import (
    DEPLOYMENTS,
    LOCAL_WORKLOADS,
    NETWORK_POLICIES,
    POD_DISRUPTION_BUDGETS,
    PODS,
    SANDBOXES,
    SERVICES,
    Key,
)
from sandlane.routing.barriers import barrier
from sandlane.routing.build import ALWAYS, listeners, mode, not_routable
from sandlane.routing.contests import COMPLAIN, GIVE_UP, WINDOW, Contests, last_writer
from sandlane.routing.envoy.delta import Refusal
from sandlane.routing.identities import LOOK, RENEWAL, Identities
from sandlane.routing.names import ROUTER as ROUTER_NAME
from sandlane.routing.names import ROUTER_SECRET, router_identity, shadow_name
from sandlane.routing.publisher import Publisher
from sandlane.routing.reach import routed, routed_anywhere, services_of_local, services_of_sandbox, taken
from sandlane.routing.resources import RouterOptions, allocate, router_budget, router_deployment, shadow_service
from sandlane.routing.turning import Patch, is_right, is_turned, owners_wish, turn, turn_back
from sandlane.runtime.controller import Controller
from sandlane.runtime.manager import Manager
from sandlane.runtime.predicates import generation_changed
from sandlane.runtime.recorder import WARNING
from sandlane.runtime.result import Request, Result
from sandlane.world.records import Deployment, LocalWorkload, Pod, Sandbox, Service
from sandlane.world.surroundings import NetworkPolicy
from sandlane.world.world import SELECTORS, World, ours

log = structlog.get_logger(__name__)

WAIT = 1.0
"""Seconds until a step that waits for a router is looked at again, if no change wakes it before."""
IN_THE_WAY = 10.0
"""Seconds until it is looked whether a stranger's object is gone that has the name of one of ours."""
FIELD_MANAGER = "sandlane"
RESTARTED_AT = "kubectl.kubernetes.io/restartedAt"
"""What `kubectl rollout restart` writes into a Pod template: it stays."""
LOOK_AT_POLICIES = 10.0
"""Seconds for which a turned Service that no policy was in the way of is not judged again, unless policies or workloads change."""
DRAIN = 5.0
"""Seconds between turning a Service back and taking its listeners away."""


class RoutingController:
    """Turns Services that have overrides (or shall always be routed) to the router, step by step."""

    def __init__(
        self, manager: Manager, world: World, publisher: Publisher, options: RouterOptions, identities: Identities
    ) -> None:
        self._world = world
        self._publisher = publisher
        self._options = options
        self._identities = identities
        self._client = manager.client
        self._cache = manager.cache
        self._clock = manager.clock
        self._recorder = manager.recorder
        self._applier = Applier(manager.client, manager.cache)
        self._turned_back: dict[Key, float] = {}
        self._allocating = asyncio.Lock()
        self._waiting: set[Key] = set()  # Services whose next step waits for routers
        self._refusals: dict[
            str, list[tuple[str, Refusal]]
        ] = {}  # namespace -> when its Services were looked at for it
        self._contests = Contests(manager.clock)
        self._judged: dict[Key, float] = {}  # turned Service -> when policies are to be looked at again
        self._budgets: dict[str, float] = {}  # namespace -> when its PodDisruptionBudget is to be looked at again

    def setup_with_manager(self, manager: Manager) -> Controller:
        """Say who wakes it."""
        controller = (
            Controller.managed_by(manager)
            .named("routing")
            .for_(SERVICES, Service)
            .owns(SERVICES, Service)
            .watches(SANDBOXES, Sandbox, to_requests=services_of_sandbox)
            .watches(LOCAL_WORKLOADS, LocalWorkload, to_requests=partial(services_of_local, self._world))
            .watches(PODS, Pod, to_requests=self._services_of_router, label_selector=SELECTORS["pods"])
            .watches(DEPLOYMENTS, Deployment, to_requests=self._services_of_router)
            .watches(DEPLOYMENTS, Deployment, to_requests=self._services_of_baseline, when=_new_spec)
            .watches(NETWORK_POLICIES, NetworkPolicy, to_requests=self._services_in_reach, when=_new_spec)
            .complete(self)
        )

        def namespace_changed(namespace: str) -> None:
            for key in self._concerned(namespace):
                controller.enqueue(key)

        self._publisher.subscribe(namespace_changed)
        return controller

    async def reconcile(self, request: Request) -> Result:
        """Drive one Service to where its requests should go."""
        result = await self._reconcile(request)
        (self._waiting.add if result.after == WAIT else self._waiting.discard)(request)
        return result

    def _concerned(self, namespace: str) -> list[Key]:
        """The Services to look at when routers or routes are others, which is often: those that wait, those that nobody needs
        routed any more, and all when routers refuse other things."""
        refusals = self._publisher.refusals(namespace)
        if refusals != self._refusals.get(namespace, []):
            self._refusals[namespace] = refusals
            return routed(self._world, namespace)
        found = [key for key in self._waiting if key.namespace == namespace]
        if self._publisher.rerouted:
            there = map(self._world.services.get, routed(self._world, namespace))
            found += [each.metadata.key for each in there if each is not None and not self._wanted(each)]
        return found

    async def _reconcile(self, request: Request) -> Result:
        service = self._world.services.get(request)
        if service is None or service.metadata.deleting or self._ending(request.namespace):
            self._forget(request)
            return await self._tidy(request.namespace)
        if ours(service):
            return Result.done()
        if not self._publisher.published.is_set():
            return Result.requeue_after(WAIT)  # what there is a door for is not known yet
        original = self._world.original(service)
        problem = not_routable(original)
        wanted = not problem and self._wanted(service)
        if problem and is_turned(service):
            self._recorder.event(SERVICES, service.metadata, reasons.SERVICE_NOT_ROUTABLE, problem, kind=WARNING)
        if not wanted:
            self._forget(request)
            return await self._release(service)
        if left := self._left_to_owner(service):
            return await self._leave(service, left)
        remembered = listeners(self._world, service)
        if why := self._barrier(service, remembered):
            return await self._bar(service, why)
        if is_turned(service) and not is_right(service, remembered):
            if not self._publisher.routers(request.namespace):
                return await self._fail_open(service, remembered)
            return await self._repair(service, remembered)
        ports = [port.port for port in original.spec.ports]
        if in_the_way := await self._ensure(request.namespace):
            self._recorder.event(SERVICES, service.metadata, reasons.NOT_OWNED, in_the_way, kind=WARNING)
            return Result.requeue_after(IN_THE_WAY)
        async with self._allocating:  # two Services must not be given the same router port
            allocated = allocate(ports, remembered, taken(self._world, service.metadata.key))
            shadow = shadow_service(service, original, allocated)
            applied = await self._applier.ensure(SERVICES, shadow, owner=service.metadata)
            if applied.object is not None:
                self._cache.observe(SERVICES, applied.object)
        if is_turned(service) and not self._publisher.routers(request.namespace):
            return await self._fail_open(service, allocated)
        if why := self._barrier(service, allocated):
            return await self._bar(service, why)
        self._publisher.bar(request, "")
        if refused := self._refused(request):
            self._recorder.event(SERVICES, service.metadata, reasons.ROUTES_REJECTED, refused, kind=WARNING)
        if is_turned(service) and is_right(service, allocated):
            return Result.requeue_after(RENEWAL)
        if is_turned(service):  # right, as far as its ports are remembered
            return Result.requeue_after(WAIT)
        if waiting := self._not_ready(service, allocated):
            log.debug("turn_waits", service=str(request), why=waiting)
            return Result.requeue_after(WAIT)
        await self._patch(service, turn(service.object(), allocated))
        log.info("turned", service=str(request))
        return Result.requeue_after(RENEWAL)

    def _wanted(self, service: Service) -> bool:
        """Whether the Service's requests have to go through the router."""
        if mode(service) == ALWAYS:
            return True
        return self._publisher.has_overrides(service.metadata.key)

    def _ending(self, namespace: str) -> bool:
        """Whether a namespace is being deleted: nothing can be made there, and nothing has to be undone."""
        found = self._world.namespaces.get(Key("", namespace))
        return found is not None and (found.metadata.deleting or found.status.phase == "Terminating")

    async def _repair(self, service: Service, remembered: Mapping[int, int]) -> Result:
        """Somebody wrote a turned Service, and the webhook was not asked: until it is put right it may select nobody.

        What has no door yet is given back to its owner at once, and turned again when it has one.
        """
        key = service.metadata.key
        live = await self._client.get(SERVICES, key.name, key.namespace)
        writer = last_writer(live, FIELD_MANAGER) or "somebody"
        obj = service.object()
        wanted = {port["port"] for port in owners_wish(obj, remembered)["ports"]}
        doors = self._doors(service)
        if any(port not in remembered or doors.get(port) != remembered[port] for port in wanted):
            await self._patch(service, turn_back(obj, remembered))
            return Result.requeue_after(WAIT)
        await self._patch(service, turn(obj, remembered))
        count = self._contests.repaired(key, writer)
        log.info("repaired", service=str(key), writer=writer, count=count)
        if count >= COMPLAIN:
            message = f"{writer} wrote its selector or ports {count} times within {WINDOW:.0f} s; each time it was turned again"
            self._recorder.event(SERVICES, service.metadata, reasons.SERVICE_CONTESTED, message, kind=WARNING)
        return Result.requeue_after(0.0 if count >= GIVE_UP else RENEWAL)

    def _left_to_owner(self, service: Service) -> float:
        """Seconds for which a contested Service is left alone; it is in the reports of whoever wants it routed."""
        manager, left = self._contests.lost_to(service.metadata.key)
        self._publisher.contested[service.metadata.key] = manager
        if not left:
            del self._publisher.contested[service.metadata.key]
        return left

    async def _leave(self, service: Service, seconds: float) -> Result:
        """Give a contested Service back and let it be."""
        if is_turned(service):
            manager = self._publisher.contested[service.metadata.key]
            message = f"it is left to {manager} for {seconds:.0f} s: requests go to the baseline, whatever their keys"
            self._recorder.event(SERVICES, service.metadata, reasons.SERVICE_CONTESTED, message, kind=WARNING)
            await self._patch(service, turn_back(service.object(), listeners(self._world, service)))
        return Result.requeue_after(seconds)

    def _not_ready(self, service: Service, allocated: dict[int, int]) -> str:
        """Why the Service cannot be turned yet; empty when every router serves its doors."""
        if missing := self._no_doors(service, allocated):
            return missing
        return self._refused(service.metadata.key) or "; ".join(self._publisher.behind(service.metadata.namespace))

    def _no_doors(self, service: Service, allocated: dict[int, int]) -> str:
        """Why there is not a door for each port of a Service in the published table; empty when there is."""
        if listeners(self._world, service) != allocated:
            return "its shadow is not seen yet"
        return "" if self._doors(service) == allocated else "its doors are not in the table yet"

    def _doors(self, service: Service) -> dict[int, int]:
        """The router's port for each port of a Service, in the published table."""
        namespace, name = service.metadata.key
        fronts = self._publisher.table.fronts(namespace)
        return {door.port: front.listener for door, front in fronts.items() if door.service == name}

    def _refused(self, service: Key) -> str:
        """What routers refuse of a Service's configuration; they keep the last good one."""
        of = f"{service.namespace}/{service.name}:"
        return "; ".join(
            f"router {name} refuses {refusal.name}: {refusal.error}"
            for name, refusal in self._publisher.refusals(service.namespace)
            if refusal.name.startswith(of)
        )

    async def _ensure(self, namespace: str) -> str:
        """The namespace's router. Says what is in the way when a stranger has one of its names."""
        try:
            secret = Key(namespace, ROUTER_SECRET)
            certificate = await self._identities.ensure(secret, router_identity(namespace), ROUTER_PODS)
            router = router_deployment(namespace, self._options, certificate)
            known = self._world.deployments.get(Key(namespace, ROUTER_NAME))
            if restarted := ((known.spec.template.metadata.annotations if known else None) or {}).get(RESTARTED_AT):
                router["spec"]["template"]["metadata"].setdefault("annotations", {})[RESTARTED_AT] = restarted
            await self._applier.ensure(DEPLOYMENTS, router)
            if self._clock.monotonic() >= self._budgets.get(namespace, 0.0):  # they are not watched
                await self._applier.ensure(POD_DISRUPTION_BUDGETS, router_budget(namespace))
                self._budgets[namespace] = self._clock.monotonic() + LOOK
        except NotOwned as error:
            self._publisher.obstruct(namespace, str(error))
            return str(error)
        self._publisher.obstruct(namespace, "")
        return ""

    async def _fail_open(self, service: Service, allocated: Mapping[int, int]) -> Result:
        """No router is ready: the baseline must go on without it."""
        message = "no router is ready: the Service is turned back until one is"
        self._recorder.event(SERVICES, service.metadata, reasons.ROUTER_UNAVAILABLE, message, kind=WARNING)
        await self._patch(service, turn_back(service.object(), allocated))
        return Result.requeue_after(WAIT)

    def _forget(self, service: Key) -> None:
        """It is gone, or not to be routed."""
        self._contests.forget(service)
        self._publisher.bar(service, "")
        self._judged.pop(service, None)

    def _barrier(self, service: Service, doors: Mapping[int, int]) -> str:
        """The policy in the way of a Service; a turned one is asked about at each change of its namespace."""
        key, now = service.metadata.key, self._clock.monotonic()
        if is_turned(service) and now < self._judged.get(key, 0.0):
            return ""
        self._judged.pop(key, None)
        why = barrier(self._world, self._world.original(service), doors)
        if not why and is_turned(service):
            self._judged[key] = now + LOOK_AT_POLICIES
        return why

    async def _bar(self, service: Service, why: str) -> Result:
        """A NetworkPolicy is in the way: the Service stays, or becomes again, as its owner wrote it. A change of policies wakes it."""
        key = service.metadata.key
        if self._publisher.barred.get(key) != why:
            self._recorder.event(SERVICES, service.metadata, reasons.POLICY_BLOCKS_TRAFFIC, why, kind=WARNING)
            self._publisher.bar(key, why)
        if is_turned(service):
            await self._patch(service, turn_back(service.object(), listeners(self._world, service)))
            log.info("turned_back", service=str(key), why=why)
        return Result.requeue_after(RENEWAL)

    async def _release(self, service: Service) -> Result:
        """Turn a Service back; its shadow goes after a drain, the router with the last shadow."""
        key = service.metadata.key
        if is_turned(service):
            await self._patch(service, turn_back(service.object(), listeners(self._world, service)))
            self._turned_back[key] = self._clock.monotonic()
            log.info("turned_back", service=str(key))
            return Result.requeue_after(DRAIN)
        shadow = self._world.services.get(Key(key.namespace, shadow_name(key.name)))
        if shadow is None:
            return await self._tidy(key.namespace)
        waited = self._clock.monotonic() - self._turned_back.get(key, float("-inf"))
        if waited < DRAIN:
            return Result.requeue_after(DRAIN - waited)
        self._turned_back.pop(key, None)
        await self._applier.remove(SERVICES, shadow.metadata.key, owner=service.metadata)
        return await self._tidy(key.namespace)

    async def _tidy(self, namespace: str) -> Result:
        """Remove the router of a namespace where nothing is routed (any more); its Deployment last, as it tells that there is one."""
        router = self._world.deployments.get(Key(namespace, ROUTER_NAME))
        if (
            router is None
            or router.metadata.deleting
            or ROUTER not in router.metadata.labels
            or self._ending(namespace)
        ):
            return Result.done()
        if any(self._world.services.get(key) for key in routed(self._world, namespace)) or any(
            self._wanted(each) for each in self._world.services.list(namespace)
        ):
            return Result.done()
        self._budgets.pop(namespace, None)
        with contextlib.suppress(NotFound):
            await self._client.delete(POD_DISRUPTION_BUDGETS, ROUTER_NAME, namespace)
        await self._identities.remove(Key(namespace, ROUTER_SECRET))
        await self._applier.remove(DEPLOYMENTS, Key(namespace, ROUTER_NAME))
        return Result.done()

    async def _patch(self, service: Service, patch: Patch) -> None:
        """Write the Service as it was computed. Raises `Conflict` when somebody was faster."""
        namespace, name = service.metadata.key
        try:
            written = await self._client.patch(
                SERVICES, name, patch, namespace=namespace, patch_type=PatchType.JSON, field_manager=FIELD_MANAGER
            )
        except Invalid as error:
            raise Conflict(409, "Conflict", str(error), {}) from error  # the version test of the patch failed
        self._cache.observe(SERVICES, written)

    # -- who is meant -----------------------------------------------------------------------------------

    def _services_of_router(self, record: Pod | Deployment) -> Iterable[Key]:
        return routed(self._world, record.metadata.namespace) if ROUTER in record.metadata.labels else []

    def _services_of_baseline(self, deployment: Deployment) -> Iterable[Key]:
        """The Services before a workload, where policies may go by its labels and ports."""
        if not len(self._world.network_policies):
            return []
        found = self._world.services_selecting(deployment.metadata.namespace, deployment.pod_labels)
        for service in found:
            self._judged.pop(service.metadata.key, None)
        return [
            service.metadata.key
            for service in found
            if is_turned(service) or service.metadata.key in self._publisher.barred
        ]

    def _services_in_reach(self, policy: NetworkPolicy) -> Iterable[Key]:
        """The Services that are routed or would be: in all namespaces, as callers may be anywhere."""
        self._judged.clear()
        return {*self._publisher.barred, *routed_anywhere(self._world)}


def _new_spec(change: Change[Any]) -> bool:
    """Something of the first list is no change: every Service is looked at anyway."""
    return not change.initial and generation_changed(change)
