"""What is observed of a RouteGroup, as its status. Pure; the time is an argument."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from sandlane.api import reasons
from sandlane.api.limits import Settings
from sandlane.api.reasons import explained
from sandlane.api.ttl import Expiry, expiry, format_time
from sandlane.api.types import CompiledRoute, RouteGroupStatus
from sandlane.preview.plan import statuses
from sandlane.routegroup.plan import SHOWN, Compiled
from sandlane.runtime.verdicts import Verdict, verdict_of, with_verdicts
from sandlane.world.records import RouteGroup
from sandlane.world.reports import RouteReport

NAMED = 5
"""The most of a kind that a message names."""
CONDITIONS = ("Accepted", "Conflicted", "SandboxesReady", "RoutesProgrammed", "Ready")


def observe(
    group: RouteGroup, compiled: Compiled, report: RouteReport | None, *, now: datetime, settings: Settings
) -> RouteGroupStatus:
    """The status of a group that is not being deleted."""
    old, generation = group.status, group.metadata.generation
    updated = old.last_update_time
    if old.observed_generation != generation or not updated:
        updated = format_time(now) if old.observed_generation else group.metadata.creation_timestamp
    unmatched = "" if compiled.sandboxes else old.unmatched_since or format_time(now)
    verdicts = _verdicts(compiled, report, old.routes)
    ends = expires(group, updated, unmatched)
    return RouteGroupStatus(
        observed_generation=generation,
        phase=_phase(verdicts),
        routing_key=compiled.routing_key,
        last_update_time=updated,
        expires_at=format_time(ends.at) if ends else "",
        unmatched_since=unmatched,
        matched_sandboxes=compiled.sandboxes[: 10 * SHOWN],
        routes=compiled.routes,
        route_count=compiled.route_count,
        conflicts=compiled.conflicts[:SHOWN],
        endpoints=statuses(settings, compiled.routing_key, group.spec.endpoints, compiled.unserved),
        conditions=with_verdicts(old.conditions, CONDITIONS, verdicts, generation, now),
    )


def terminating(group: RouteGroup, message: str, now: datetime) -> RouteGroupStatus:
    """The status of a group that is being deleted, and what that waits for."""
    old = group.status.conditions
    verdicts = {each.type: verdict_of(each) for each in old} | {
        "RoutesProgrammed": Verdict(False, reasons.ROUTES_DRAINING, message),
        "Ready": Verdict(False, reasons.TERMINATING, message),
    }
    conditions = with_verdicts(old, CONDITIONS, verdicts, group.metadata.generation, now)
    generation = group.metadata.generation
    return msgspec.structs.replace(
        group.status, observed_generation=generation, phase="Terminating", conditions=conditions
    )


def expires(group: RouteGroup, updated: str, unmatched: str) -> Expiry | None:
    """When the group is deleted by itself."""
    if group.spec.ttl is None:
        return None
    created = group.metadata.creation_timestamp
    return expiry(group.spec.ttl, created=created, updated=updated, unmatched_since=unmatched)


def _verdicts(
    compiled: Compiled, report: RouteReport | None, old_routes: tuple[CompiledRoute, ...]
) -> dict[str, Verdict]:
    found = {
        "Accepted": _accepted(compiled),
        "Conflicted": _conflicted(compiled),
        "SandboxesReady": _sandboxes_ready(compiled),
        "RoutesProgrammed": _routes(compiled, report, old_routes),
    }
    needed = [found[kind] for kind in ("Accepted", "SandboxesReady", "RoutesProgrammed")]
    bad = next((each for each in needed if each.status is False), None)
    bad = bad or next((each for each in needed if each.status is None), None)
    count = len(compiled.sandboxes)
    found["Ready"] = bad or Verdict(True, reasons.ALL_READY, f"{count} {'sandbox' if count == 1 else 'sandboxes'}")
    return found


def _accepted(compiled: Compiled) -> Verdict:
    if compiled.refused is not None:
        reason, message = compiled.refused
        return Verdict(False, reason, explained(reason, message))
    if compiled.not_consenting:
        what = f"spec.namespaces: sandboxes are not looked for in {_some(compiled.not_consenting)}"
        return Verdict(False, reasons.NAMESPACE_NOT_CONSENTED, explained(reasons.NAMESPACE_NOT_CONSENTED, what))
    return Verdict(True, reasons.ACCEPTED)


def _conflicted(compiled: Compiled) -> Verdict:
    if not compiled.conflicts:
        return Verdict(False, reasons.NO_CONFLICT)
    told = "; ".join(
        f"{_some(each.sandboxes)} replace {each.baseline.kind} {each.baseline.name}, {each.winner} has the route"
        for each in compiled.conflicts[:NAMED]
    )
    if len(compiled.conflicts) > NAMED:
        told += f"; and {len(compiled.conflicts) - NAMED} more"
    return Verdict(True, reasons.CONFLICTING_SANDBOXES, explained(reasons.CONFLICTING_SANDBOXES, told))


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _sandboxes_ready(compiled: Compiled) -> Verdict:
    if not compiled.sandboxes:
        return Verdict(False, reasons.NO_MATCHED_SANDBOXES, "no sandbox matches yet")
    late = [each.name for each in compiled.sandboxes if not each.ready]
    if late:
        return Verdict(False, reasons.SANDBOXES_NOT_READY, f"not ready: {_some(late)}")
    return Verdict(True, reasons.ALL_READY)


def _routes(compiled: Compiled, report: RouteReport | None, old_routes: tuple[CompiledRoute, ...]) -> Verdict:
    if compiled.refused is not None or report is None:
        return Verdict(None, reasons.PENDING)
    if compiled.routes != old_routes:
        return Verdict(False, reasons.PROGRESSING, reasons.TAKING_IN)  # what is reported is about the routes before
    if not report.programmed:
        reason = report.reason or reasons.PROGRESSING
        return Verdict(False, reason, explained(reason, report.message))
    if not compiled.route_count:
        return Verdict(True, reasons.NOTHING_TO_DO, "the key leads to the baseline everywhere")
    return Verdict(True, report.reason or reasons.PROGRAMMED, report.message)


def _phase(verdicts: Mapping[str, Verdict]) -> str:
    if verdicts["Ready"].status:
        return "Ready"
    if not verdicts["Accepted"].status:
        return "Failed"
    return "Pending" if verdicts["SandboxesReady"].reason == reasons.NO_MATCHED_SANDBOXES else "Progressing"
