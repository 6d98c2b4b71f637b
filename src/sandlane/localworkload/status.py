"""What is observed of a LocalWorkload, as its status. Pure; the time is an argument."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

import msgspec

from sandlane.api import reasons
from sandlane.api.types import ConnectionStatus, LocalWorkloadStatus
from sandlane.kube.clock import parse_timestamp, timestamp
from sandlane.localworkload.plan import Problem
from sandlane.runtime.verdicts import Verdict, with_verdicts
from sandlane.world.records import LocalWorkload
from sandlane.world.reports import RouteReport

CONDITIONS = ("Accepted", "Connected", "RoutesProgrammed", "Ready")

HEARTBEAT = timedelta(seconds=60)
"""How old `lastSeen` becomes at most while a laptop is connected."""


class Observed(msgspec.Struct, frozen=True):
    """The holder's tunnels as the servers themselves say: how many, to how many servers, from which address."""

    tunnels: int = 0
    servers: int = 0
    remote_address: str = ""


def observe(
    local: LocalWorkload, problem: Problem | None, seen: Observed, report: RouteReport | None, now: datetime
) -> LocalWorkloadStatus:
    """The status."""
    verdicts = _verdicts(local, problem, seen, report)
    return LocalWorkloadStatus(
        observed_generation=local.metadata.generation,
        phase=_phase(local, verdicts),
        connection=_connection(local.status.connection, seen, now),
        conditions=with_verdicts(local.status.conditions, CONDITIONS, verdicts, local.metadata.generation, now),
    )


def _verdicts(
    local: LocalWorkload, problem: Problem | None, seen: Observed, report: RouteReport | None
) -> Mapping[str, Verdict]:
    connected = _connected(local, seen)
    if problem is not None:
        refused = Verdict(False, problem.reason, problem.message)
        return {"Accepted": refused, "Ready": refused, "Connected": connected}
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


def _connected(local: LocalWorkload, seen: Observed) -> Verdict:
    if seen.servers:
        servers = f"{seen.servers} tunnel server{'s' if seen.servers > 1 else ''}"
        return Verdict(True, reasons.CONNECTED, f"{servers} reach{'' if seen.servers > 1 else 'es'} the laptop")
    meanwhile = {
        "Fail": "get a 503",
        "Baseline": "go to the baseline",
        "Hold": f"wait up to {local.spec.hold_seconds} s",
    }
    callers = meanwhile[str(local.spec.on_disconnect)]
    message = f"no laptop is connected: run `sandlane connect {local.spec.sandbox}`; meanwhile callers {callers}"
    return Verdict(False, reasons.NOT_CONNECTED, message)


def _phase(local: LocalWorkload, verdicts: Mapping[str, Verdict]) -> str:
    if local.metadata.deleting:
        return "Terminating"
    if verdicts["Accepted"].status is False:
        return "Failed"
    if verdicts["Connected"].status:
        return "Connected"
    connection = local.status.connection
    return "Disconnected" if connection is not None and (connection.connected_at or connection.tunnels) else "Pending"


def _connection(old: ConnectionStatus | None, seen: Observed, now: datetime) -> ConnectionStatus | None:
    """Since when, and until when: `lastSeen` is written each minute while the tunnels are there, and when they are lost."""
    if old is None:
        return None  # nobody was ever given a certificate
    if seen.servers:
        since = old.connected_at if old.tunnels else timestamp(now)
        recent = old.tunnels and old.last_seen and now - parse_timestamp(old.last_seen) < HEARTBEAT
        return ConnectionStatus(
            client=old.client,
            session=old.session,
            connected_at=since,
            last_seen=old.last_seen if recent else timestamp(now),
            tunnels=seen.tunnels,
            remote_address=seen.remote_address,
        )
    if not old.tunnels:
        return old
    return msgspec.structs.replace(old, last_seen=timestamp(now), tunnels=0)
