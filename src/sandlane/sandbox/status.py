"""What is observed of a sandbox, as its status: forks, conditions, phase, expiry. Pure; the time is an argument."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

import msgspec

from sandlane.api import reasons
from sandlane.api.limits import Settings
from sandlane.api.reasons import explained
from sandlane.api.ttl import Expiry, expiry, format_time
from sandlane.api.types import (
    BaselineStatus,
    ForkStatus,
    SandboxStatus,
    ServiceStatus,
    Ttl,
)
from sandlane.kube.resource import DEPLOYMENTS, SERVICES, Key, Resource
from sandlane.preview.plan import endpoints_of, problems, statuses
from sandlane.runtime.conditions import find_condition
from sandlane.runtime.verdicts import Verdict, verdict_of, with_verdicts
from sandlane.sandbox import pods as pod_causes
from sandlane.sandbox import traffic
from sandlane.sandbox.plan import Plan, PlannedFork, Problem
from sandlane.world.records import Deployment, Sandbox
from sandlane.world.reports import RouteReport
from sandlane.world.world import World

CONDITIONS = ("Accepted", "WithinLimits", "ForksReady", "LocalReady", "RoutesProgrammed", "Ready")


class Observation(msgspec.Struct, frozen=True):
    """What one pass found out besides the world: failures of writes, the routers' report, last lines of crashes."""

    report: RouteReport | None
    failures: Mapping[tuple[Resource, Key], Problem] = {}
    last_lines: pod_causes.LastLines = {}


def observe(
    world: World, sandbox: Sandbox, plan: Plan, seen: Observation, *, now: datetime, settings: Settings
) -> SandboxStatus:
    """The status of a sandbox that is not being deleted."""
    old = sandbox.status
    changed = old.observed_generation != sandbox.metadata.generation
    updated = old.last_update_time
    if changed or not updated:
        updated = format_time(now) if old.observed_generation else sandbox.metadata.creation_timestamp
    stopped = plan.refused is not None or plan.exceeded is not None
    forks = tuple(_fork(world, sandbox, fork, seen, now, stopped=stopped) for fork in plan.forks)
    verdicts = _verdicts(world, sandbox, plan, forks, seen)
    conditions = with_verdicts(old.conditions, CONDITIONS, verdicts, sandbox.metadata.generation, now)
    ends = expires(sandbox, settings, updated)
    asked = endpoints_of(sandbox)
    return SandboxStatus(
        observed_generation=sandbox.metadata.generation,
        phase=_phase(verdicts, forks),
        routing_key=plan.routing_key,
        route_groups=_groups(world, sandbox),
        last_update_time=updated,
        expires_at=format_time(ends.at) if ends else "",
        forks=forks,
        endpoints=statuses(settings, plan.routing_key, asked, problems(world, sandbox.metadata.namespace, asked)),
        conditions=conditions,
    )


def terminating(sandbox: Sandbox, reason: str, message: str, now: datetime) -> SandboxStatus:
    """The status of a sandbox that is being deleted, and what that waits for."""
    verdicts = {
        "RoutesProgrammed": Verdict(False, reason, message),
        "Ready": Verdict(False, reasons.TERMINATING, message),
    }
    old = sandbox.status.conditions
    known = {each.type: verdict_of(each) for each in old}
    conditions = with_verdicts(old, CONDITIONS, known | verdicts, sandbox.metadata.generation, now)
    generation = sandbox.metadata.generation
    return msgspec.structs.replace(
        sandbox.status, observed_generation=generation, phase="Terminating", conditions=conditions
    )


def expires(sandbox: Sandbox, settings: Settings, updated: str) -> Expiry | None:
    """When the sandbox is deleted by itself."""
    ttl = sandbox.spec.ttl
    if ttl is None and settings.default_ttl:
        ttl = Ttl(settings.default_ttl, "lastUpdate")
    return expiry(ttl, created=sandbox.metadata.creation_timestamp, updated=updated) if ttl else None


# -- forks --------------------------------------------------------------------------------------------------


def _fork(
    world: World, sandbox: Sandbox, planned: PlannedFork, seen: Observation, now: datetime, *, stopped: bool
) -> ForkStatus:
    old = next((each for each in sandbox.status.forks if each.workload == planned.workload), None)
    live = world.deployments.get(Key(sandbox.metadata.namespace, planned.workload))
    if live is not None and (live.metadata.controller is None or live.metadata.controller.uid != sandbox.metadata.uid):
        live = None
    followed = planned.deployment is not None and not stopped
    wanted = planned.deployment["spec"]["replicas"] if planned.deployment and followed else 0
    if not followed:
        wanted = live.spec.replicas if live else 0
    ever = old is not None and old.ever_ready and not sandbox.spec.suspended
    complete = live is not None and is_complete(live, wanted)
    waiting = "waiting for its Pods"
    if live is not None and not ever and pod_causes.unsettled(live, world.pods_of_fork(live.metadata.key), now):
        complete, waiting = False, "its containers have just started, and have no readiness probe"
    problem = planned.problem or _failure(sandbox, planned, seen)
    if problem is None and not complete:
        problem = _incomplete(world, live, seen, now) or Problem(reasons.PROGRESSING, waiting)
    kept = old.services if old else ()
    return ForkStatus(
        baseline=_baseline(planned, old, followed),
        workload=planned.workload,
        ready=live.status.ready_replicas if live else 0,
        desired=wanted,
        ever_ready=ever or (complete and wanted > 0 and not sandbox.spec.suspended),
        services=tuple(each.status for each in planned.overrides) if followed else kept,
        reason=problem.reason if problem else "",
        message=problem.message if problem else "",
    )


def _incomplete(world: World, live: Deployment | None, seen: Observation, now: datetime) -> Problem | None:
    if live is None:
        return None
    cause = pod_causes.cause(live, world.pods_of_fork(live.metadata.key), seen.last_lines, now)
    return Problem(cause.reason, cause.message) if cause else None


def is_complete(live: Deployment, wanted: int) -> bool:
    """Whether exactly the wanted Pods of the newest template are there and available."""
    status = live.status
    return (
        status.observed_generation >= live.metadata.generation
        and live.spec.replicas == wanted
        and status.updated_replicas == wanted
        and status.replicas == wanted
        and status.available_replicas == wanted
    )


def _baseline(planned: PlannedFork, old: ForkStatus | None, followed: bool) -> BaselineStatus:
    reference, record = planned.reference, planned.baseline
    if record is not None and followed:
        return BaselineStatus(reference.kind, reference.name, record.metadata.uid, record.metadata.generation)
    return old.baseline if old else BaselineStatus(reference.kind, reference.name, "", 0)


def _failure(sandbox: Sandbox, planned: PlannedFork, seen: Observation) -> Problem | None:
    """What stopped an object of this fork from being written."""
    namespace = sandbox.metadata.namespace
    wanted = [(DEPLOYMENTS, Key(namespace, planned.workload))]
    wanted += [(SERVICES, Key(namespace, each.name)) for each in planned.overrides]
    return next((seen.failures[each] for each in wanted if each in seen.failures), None)


# -- conditions ---------------------------------------------------------------------------------------------


def _verdicts(
    world: World, sandbox: Sandbox, plan: Plan, forks: tuple[ForkStatus, ...], seen: Observation
) -> dict[str, Verdict]:
    found = {
        "Accepted": _accepted(plan, seen),
        "WithinLimits": _within_limits(plan, forks),
        "ForksReady": _forks_ready(sandbox, forks),
        "LocalReady": _local_ready(world, sandbox),
        "RoutesProgrammed": _routes(world, sandbox, plan, forks, seen),
    }
    bad = next((each for each in found.values() if each.status is False), None)
    bad = bad or next((each for each in found.values() if each.status is None), None)
    told = [_summary(forks, sandbox), found["RoutesProgrammed"].message]
    found["Ready"] = bad or Verdict(True, reasons.ALL_READY, "; ".join(filter(None, told)))
    return found


def _refusal(problem: Problem) -> Verdict:
    return Verdict(False, problem.reason, explained(problem.reason, problem.message))


def _accepted(plan: Plan, seen: Observation) -> Verdict:
    problems = [plan.refused, *(fork.problem for fork in plan.forks), *seen.failures.values()]
    refused = [each for each in problems if each is not None and each.reason not in _LIMITS]
    if not refused:
        return Verdict(True, reasons.ACCEPTED)
    messages = dict.fromkeys(each.message for each in refused)
    return _refusal(Problem(refused[0].reason, "; ".join(messages)))


_LIMITS = (reasons.LIMIT_EXCEEDED, reasons.QUOTA_EXCEEDED)
_HOPELESS = frozenset(
    {reasons.IMAGE_PULL_FAILED, reasons.CRASH_LOOP, reasons.CONTAINER_FAILED, reasons.CONFIG_MISSING}
    | {reasons.UNSCHEDULABLE, reasons.REFUSED, *_LIMITS}
)
_WITHOUT_ROUTES = frozenset(
    {reasons.POLICY_BLOCKS_TRAFFIC, reasons.SERVICE_NOT_ROUTABLE, reasons.ROUTES_REJECTED, reasons.NOT_OWNED}
)
"""Reasons for which routes do not come by waiting."""


def _within_limits(plan: Plan, forks: tuple[ForkStatus, ...]) -> Verdict:
    if plan.exceeded is not None:
        return _refusal(plan.exceeded)
    over = next((fork for fork in forks if fork.reason in _LIMITS), None)
    if over is not None:
        return _refusal(Problem(over.reason, f"fork of {over.baseline.name}: {over.message}"))
    return Verdict(True, reasons.WITHIN_LIMITS)


def _forks_ready(sandbox: Sandbox, forks: tuple[ForkStatus, ...]) -> Verdict:
    if not forks:
        return Verdict(True, reasons.NOTHING_TO_DO, "the sandbox forks nothing")
    if sandbox.spec.suspended:
        return Verdict(False, reasons.SUSPENDED, explained(reasons.SUSPENDED, "spec.suspended is true"))
    for fork in forks:
        if fork.reason and (fork.reason != reasons.PROGRESSING or all(f.reason in ("", fork.reason) for f in forks)):
            return _refusal(Problem(fork.reason, f"fork of {fork.baseline.name}: {fork.message}"))
    return Verdict(True, reasons.ALL_READY, _summary(forks, sandbox))


def _names(forks: Iterable[ForkStatus]) -> str:
    return ", ".join(fork.workload for fork in forks)


def _summary(forks: tuple[ForkStatus, ...], sandbox: Sandbox) -> str:
    parts = []
    if forks:
        parts.append(f"{len(forks)} {'fork' if len(forks) == 1 else 'forks'} ready")
    if sandbox.spec.local:
        count = len(sandbox.spec.local)
        parts.append(f"{count} local {'workload' if count == 1 else 'workloads'} connected")
    return ", ".join(parts) or "nothing differs from the baseline"


def _local_ready(world: World, sandbox: Sandbox) -> Verdict:
    if not sandbox.spec.local:
        return Verdict(True, reasons.NOTHING_TO_DO, "the sandbox has no local workloads")
    for local in sandbox.spec.local:
        live = world.local_workloads.get(Key(sandbox.metadata.namespace, local.name))
        if live is None:
            return Verdict(None, reasons.PENDING, f"LocalWorkload {local.name} is not there yet")
        ready = find_condition(live.status.conditions, "Ready")
        if ready is None:
            return Verdict(None, reasons.PENDING, f"LocalWorkload {local.name} has no status yet")
        if ready.status != "True":
            return Verdict(False, ready.reason, f"LocalWorkload {local.name}: {ready.message}")
    return Verdict(True, reasons.ALL_READY)


def _routes(world: World, sandbox: Sandbox, plan: Plan, forks: tuple[ForkStatus, ...], seen: Observation) -> Verdict:
    if sandbox.spec.suspended:
        return Verdict(False, reasons.SUSPENDED, explained(reasons.SUSPENDED, "spec.suspended is true"))
    if not sandbox.spec.local and not any(service.ports for fork in forks for service in fork.services):
        if any(fork.reason for fork in forks) or plan.refused or plan.exceeded:
            return Verdict(None, reasons.PENDING, "the forks come first")
        return Verdict(True, reasons.NOTHING_TO_DO, "no Service leads to what the sandbox replaces")
    late = [fork for fork in forks if fork.services and not fork.ever_ready]
    if late:
        waiting = f"requests stay on the baseline until {_names(late)} is ready"
        if empty := [fork for fork in late if not fork.desired and not fork.reason]:
            waiting += f"; {_names(empty)} never is with customizations.replicas 0"
        return Verdict(False, reasons.PROGRESSING, waiting)
    if (blocked := traffic.blocked(world, sandbox, plan)) is not None:
        return _refusal(blocked)
    if seen.report is None:
        return Verdict(None, reasons.PENDING, "no router has answered yet")
    if _routes_of(forks) != _routes_of(sandbox.status.forks):
        return Verdict(False, reasons.PROGRESSING, reasons.TAKING_IN)  # what is reported is about the routes before
    if seen.report.programmed:
        if (cut_off := traffic.cut_off(world, sandbox, plan)) is not None:
            return Verdict(True, cut_off.reason, cut_off.message)
        return Verdict(True, seen.report.reason or reasons.PROGRAMMED, seen.report.message)
    reason = seen.report.reason or reasons.PROGRESSING
    return Verdict(False, reason, explained(reason, seen.report.message))


def _routes_of(forks: tuple[ForkStatus, ...]) -> list[tuple[str, tuple[ServiceStatus, ...]]]:
    """What the route table is built from."""
    return [(fork.workload, fork.services) for fork in forks if fork.ever_ready]


def _phase(verdicts: Mapping[str, Verdict], forks: tuple[ForkStatus, ...]) -> str:
    if verdicts["Ready"].status:
        return "Ready"
    if not (verdicts["Accepted"].status and verdicts["WithinLimits"].status):
        return "Failed"
    routes = verdicts["RoutesProgrammed"]
    if verdicts["ForksReady"].reason in _HOPELESS or (routes.status is False and routes.reason in _WITHOUT_ROUTES):
        return "Failed"
    return "Pending" if verdicts["ForksReady"].reason == reasons.SUSPENDED else "Progressing"


def _groups(world: World, sandbox: Sandbox) -> tuple[str, ...]:
    """The groups that say they match this sandbox."""
    here = sandbox.metadata.namespace
    found = []
    for group in world.route_groups:
        for matched in group.status.matched_sandboxes:
            namespace = matched.namespace or group.metadata.namespace
            if (namespace, matched.name) == (here, sandbox.metadata.name):
                other = group.metadata.namespace
                found.append(group.metadata.name if other == here else f"{other}/{group.metadata.name}")
    return tuple(sorted(found))
