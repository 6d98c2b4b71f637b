"""The status of a LocalWorkload: the connection comes from the data plane, and every condition is always there."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from sandlane.api.types import (
    ConnectionStatus,
    LocalWorkloadSpec,
    LocalWorkloadStatus,
    OnDisconnect,
    WorkloadReference,
)
from sandlane.kube.metadata import ObjectMeta
from sandlane.localworkload.plan import Problem
from sandlane.localworkload.status import CONDITIONS, Observed, observe
from sandlane.routing.report import RouteReport
from sandlane.runtime.conditions import find_condition, is_true
from sandlane.world.records import LocalWorkload

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = datetime(2026, 1, 2, tzinfo=UTC)
LOCAL = LocalWorkload(
    ObjectMeta(name="l", namespace="n", uid="u", generation=1),
    LocalWorkloadSpec(sandbox="a", from_=WorkloadReference("eta")),
    LocalWorkloadStatus(connection=ConnectionStatus(client="jane", session="5e55", last_seen="2026-01-01T00:00:00Z")),
)
SEEN, GONE = Observed(4, 2, "10.0.0.9"), Observed()
PROGRAMMED = RouteReport(True, served=True)


def test_connected_and_programmed_is_ready() -> None:
    """With a tunnel and programmed routes it is Ready, and says since when and who."""
    status = observe(LOCAL, None, SEEN, PROGRAMMED, NOW)
    assert [condition.type for condition in status.conditions] == list(CONDITIONS)
    assert all(condition.status == "True" for condition in status.conditions)
    assert status.phase == "Connected"
    assert status.connection is not None
    assert status.connection == ConnectionStatus(
        client="jane",
        session="5e55",
        connected_at="2026-01-01T00:00:00Z",
        last_seen="2026-01-01T00:00:00Z",
        tunnels=4,
        remote_address="10.0.0.9",
    )


def test_a_connection_has_a_heartbeat() -> None:
    """While the tunnels are there, the last time they were seen is written each minute, and not more often."""
    status = observe(LOCAL, None, SEEN, PROGRAMMED, NOW)
    for seconds, written in ((59, "00:00"), (60, "01:00"), (119, "01:00"), (120, "02:00")):
        local = msgspec.structs.replace(LOCAL, status=status)
        status = observe(local, None, SEEN, PROGRAMMED, NOW + timedelta(seconds=seconds))
        assert status.connection is not None
        assert status.connection.last_seen == f"2026-01-01T00:{written}Z"
        assert status.connection.connected_at == "2026-01-01T00:00:00Z"


def test_a_lost_connection_is_told_once() -> None:
    """When the laptop goes, the last time it was seen is written, and a second look changes nothing."""
    before = observe(LOCAL, None, SEEN, PROGRAMMED, NOW)
    local = msgspec.structs.replace(LOCAL, status=before)
    lost = observe(local, None, GONE, PROGRAMMED, LATER)
    assert (lost.phase, is_true(lost.conditions, "Ready")) == ("Disconnected", False)
    assert lost.connection is not None
    assert lost.connection.last_seen == "2026-01-02T00:00:00Z"
    again = observe(
        msgspec.structs.replace(LOCAL, status=lost), None, GONE, PROGRAMMED, datetime(2026, 1, 3, tzinfo=UTC)
    )
    assert again == lost


@pytest.mark.parametrize(
    ("on_disconnect", "words"),
    [(OnDisconnect.FAIL, "503"), (OnDisconnect.BASELINE, "baseline"), (OnDisconnect.HOLD, "wait up to 10 s")],
)
def test_what_callers_get_meanwhile_is_said(on_disconnect: OnDisconnect, words: str) -> None:
    """A disconnected LocalWorkload says what its callers get, and how to connect."""
    local = msgspec.structs.replace(LOCAL, spec=msgspec.structs.replace(LOCAL.spec, on_disconnect=on_disconnect))
    condition = find_condition(observe(local, None, GONE, PROGRAMMED, NOW).conditions, "Connected")
    assert condition is not None
    assert words in condition.message
    assert "sandlane connect a" in condition.message


def test_a_problem_is_the_reason_of_ready() -> None:
    """What is not accepted is Failed, and Ready says why."""
    status = observe(LOCAL, Problem("SandboxNotFound", "no such sandbox"), GONE, None, NOW)
    ready = find_condition(status.conditions, "Ready")
    assert ready is not None
    assert (status.phase, ready.reason, ready.message) == ("Failed", "SandboxNotFound", "no such sandbox")


def test_nobody_has_asked_to_connect_yet() -> None:
    """It is pending, whatever the tunnel servers see of somebody else."""
    local = msgspec.structs.replace(LOCAL, status=LocalWorkloadStatus())
    for seen in (GONE, SEEN):
        assert observe(local, None, seen, PROGRAMMED, NOW).connection is None
    assert observe(local, None, GONE, PROGRAMMED, NOW).phase == "Pending"
    going = msgspec.structs.replace(local, metadata=msgspec.structs.replace(LOCAL.metadata, deletion_timestamp="x"))
    assert observe(going, None, GONE, PROGRAMMED, NOW).phase == "Terminating"
