"""Why a fork is not ready, in words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from sandlane.sandbox.pods import PROBE_PATIENCE, SETTLED, cause, crashed, patience, quota_problem, unsettled
from sandlane.world.records import Deployment, Pod


def pod(waiting: dict[str, Any] | None = None, ended: dict[str, Any] | None = None, **status: Any) -> Pod:
    """A Pod with one container."""
    state = {"waiting": waiting} if waiting else {"terminated": ended} if ended else {}
    containers = [{"name": "main", "state": state} | status.pop("container", {})]
    raw = {"metadata": {"name": "p", "uid": "u"}, "status": {"containerStatuses": containers} | status}
    return msgspec.convert(raw, Pod)


def deployment(*conditions: dict[str, str]) -> Deployment:
    """A Deployment with conditions."""
    raw = {"metadata": {"name": "d"}, "status": {"conditions": list(conditions)}}
    return Deployment.from_bytes(msgspec.json.encode(raw))


NOW = datetime(2026, 1, 1, tzinfo=UTC)
BACK_OFF = {"reason": "CrashLoopBackOff"}
CASES: dict[str, tuple[Pod, str, str]] = {
    "image": (pod({"reason": "ImagePullBackOff", "message": "no x:1"}), "ImagePullFailed", "no x:1"),
    "image-name": (pod({"reason": "InvalidImageName"}), "ImagePullFailed", "InvalidImageName"),
    "config": (pod({"reason": "CreateContainerConfigError", "message": "secret s"}), "ConfigMissing", "secret s"),
    "other": (pod({"reason": "RunContainerError", "message": "no shell"}), "ContainerFailed", "no shell"),
    "crash": (pod(BACK_OFF), "CrashLoop", "again and again"),
    "crash-code": (
        pod(BACK_OFF, container={"lastState": {"terminated": {"exitCode": 2, "message": "a\nlast\n"}}}),
        "CrashLoop",
        "exit code 2: last",
    ),
    "ended": (pod(ended={"exitCode": 1}), "ContainerFailed", "exit code 1"),
    "unschedulable": (
        pod(conditions=[{"type": "PodScheduled", "status": "False", "message": "0/3 nodes"}]),
        "Unschedulable",
        "0/3 nodes",
    ),
    "evicted": (pod(phase="Failed", reason="Evicted"), "ContainerFailed", "Evicted"),
}


@pytest.mark.parametrize("case", CASES)
def test_causes_of_pods(case: str) -> None:
    """Each state of a Pod has its reason, and the words that help."""
    given, reason, words = CASES[case]
    found = cause(deployment(), [given], {}, NOW)
    assert found is not None
    assert found.reason == reason
    assert words in found.message


def test_a_starting_pod_is_no_cause() -> None:
    """Creating a container is not a problem; nor is a Pod that is ready or on its way out."""
    ready = pod(BACK_OFF, conditions=[{"type": "Ready", "status": "True"}])
    starting = pod({"reason": "ContainerCreating"})
    assert cause(deployment(), [starting, ready], {}, NOW) is None


def test_causes_of_deployments_come_first() -> None:
    """A quota is named before a crash; other refusals are the server's words; no progress is the last resort."""
    quota = {"type": "ReplicaFailure", "status": "True", "message": 'pods "a" is forbidden: exceeded quota: q'}
    other = {"type": "ReplicaFailure", "status": "True", "message": "denied by a webhook"}
    late = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
    found = [cause(deployment(each), [pod(BACK_OFF)], {}, NOW) for each in (quota, other, late)]
    assert [each.reason if each else "" for each in found] == ["QuotaExceeded", "Refused", "CrashLoop"]
    alone = cause(deployment(late), [], {}, NOW)
    assert alone is not None
    assert alone.reason == "PodsNotReady"


def test_the_last_line_of_a_log_is_used_when_there_is_no_message() -> None:
    """Crashes without a message are looked up."""
    given = pod(BACK_OFF)
    assert [status.name for _, status in crashed([given])] == ["main"]
    found = cause(deployment(), [given], {("p", "main"): "panic: no database"}, NOW)
    assert found is not None
    assert found.message.endswith("panic: no database")


@pytest.mark.parametrize("text", ["exceeded quota: q", "maximum memory usage per Container is 1Gi, but limit is 2Gi"])
def test_refusals_by_quota_and_limit_range(text: str) -> None:
    """Both are quota problems; others are not."""
    assert quota_problem(text)
    assert not quota_problem("denied by a webhook")


def test_probes_are_the_cause_after_a_while() -> None:
    """A container that runs without being ready is given some time; then its probes are named, and nothing is waited for."""
    given = pod(container={"state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}})
    early = NOW + timedelta(seconds=PROBE_PATIENCE - 5)
    assert cause(deployment(), [given], {}, early) is None
    assert patience([given], early) == 5
    late = NOW + timedelta(seconds=PROBE_PATIENCE)
    found = cause(deployment(), [given], {}, late)
    assert found is not None
    assert found.reason == "NotPassingProbe"
    assert "container main" in found.message
    assert patience([given], late) is None
    ready = pod(container={"ready": True, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}})
    assert patience([ready], early) is None


def test_containers_without_probes_settle() -> None:
    """They are waited for a little; with a probe, or by a clock that is ahead, they are not."""
    given = pod(container={"ready": True, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}})
    plain = deployment()
    probe = {"containers": [{"name": "main", "readinessProbe": {}}]}
    probed = Deployment.from_bytes(
        msgspec.json.encode({"metadata": {"name": "d"}, "spec": {"template": {"spec": probe}}})
    )
    assert unsettled(plain, [given], NOW) == SETTLED
    assert unsettled(plain, [given], NOW + timedelta(seconds=0.5)) == SETTLED - 0.5
    assert unsettled(plain, [given], NOW + timedelta(seconds=SETTLED)) == 0
    assert unsettled(plain, [given], NOW - timedelta(seconds=9)) == 0
    assert unsettled(plain, [], NOW) == 0
    assert unsettled(probed, [given], NOW) == 0
