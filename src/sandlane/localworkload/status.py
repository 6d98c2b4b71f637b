"""What is observed of a LocalWorkload, as its status. Pure; the time is an argument."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sandlane.api import reasons
from sandlane.api.types import ConnectionStatus, LocalWorkloadStatus
from sandlane.kube.clock import timestamp
from sandlane.localworkload.plan import Problem
from sandlane.runtime.verdicts import Verdict, with_verdicts
from sandlane.world.records import LocalWorkload
from sandlane.world.reports import RouteReport

CONDITIONS = ("Accepted", "Connected", "RoutesProgrammed", "Ready")


def observe(
    local: LocalWorkload, problem: Problem | None, tunnels: int, report: RouteReport | None, client: str, now: datetime
) -> LocalWorkloadStatus:
    """The status: `tunnels` is how many servers hold one, as they themselves say."""
    verdicts = _verdicts(local, problem, tunnels, report)
    return LocalWorkloadStatus(
        observed_generation=local.metadata.generation,
        phase=_phase(local, verdicts),
        connection=_connection(local.status.connection, tunnels, client, now),
        conditions=with_verdicts(local.status.conditions, CONDITIONS, verdicts, local.metadata.generation, now),
    )


def _verdicts(
    local: LocalWorkload, problem: Problem | None, tunnels: int, report: RouteReport | None
) -> Mapping[str, Verdict]:
    if problem is not None:
        refused = Verdict(False, problem.reason, problem.message)
        return {"Accepted": refused, "Ready": refused, "Connected": _connected(local, tunnels)}
    connected = _connected(local, tunnels)
    programmed = Verdict(None, reasons.PENDING)
    if report is not None:
        reason = reasons.PROGRAMMED if report.programmed else report.reason or reasons.PROGRESSING
        programmed = Verdict(report.programmed, reason, report.message)
    both = connected.status and programmed.status
    ready = Verdict(True, reasons.ALL_READY) if both else programmed if connected.status else connected
    return {
        "Accepted": Verdict(True, reasons.ACCEPTED),
        "Connected": connected,
        "RoutesProgrammed": programmed,
        "Ready": Verdict(bool(both), ready.reason, ready.message),
    }


def _connected(local: LocalWorkload, tunnels: int) -> Verdict:
    if tunnels:
        return Verdict(True, "Connected", f"{tunnels} tunnel server{'s' if tunnels > 1 else ''} reach the laptop")
    meanwhile = {
        "Fail": "get a 503",
        "Baseline": "go to the baseline",
        "Hold": f"wait up to {local.spec.hold_seconds} s",
    }
    callers = meanwhile[str(local.spec.on_disconnect)]
    message = f"no laptop is connected: run `sandlane connect {local.spec.sandbox}`; meanwhile callers {callers}"
    return Verdict(False, "Disconnected", message)


def _phase(local: LocalWorkload, verdicts: Mapping[str, Verdict]) -> str:
    if local.metadata.deleting:
        return "Terminating"
    if verdicts["Accepted"].status is False:
        return "Failed"
    if verdicts["Connected"].status:
        return "Connected"
    return "Disconnected" if local.status.connection is not None else "Pending"


def _connection(old: ConnectionStatus | None, tunnels: int, client: str, now: datetime) -> ConnectionStatus | None:
    """Since when, and until when: `lastSeen` is written when the connection is lost, not at each question."""
    if tunnels:
        since = old.connected_at if old is not None and old.tunnels else timestamp(now)
        return ConnectionStatus(client=client or (old.client if old else ""), connected_at=since, tunnels=tunnels)
    if old is None or not old.tunnels:
        return old
    return ConnectionStatus(client=old.client, connected_at=old.connected_at, last_seen=timestamp(now), tunnels=0)
