"""Why a fork's Pods are not ready, in words: the most telling cause among them. Pure; the time is an argument."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

import msgspec

from sandlane.api import reasons
from sandlane.api.ttl import parse_time
from sandlane.world.records import ContainerStatus, Deployment, Pod, WorkloadCondition

_IMAGE = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
    | {"ImageInspectError", "ImageNotMapped", "SignatureValidationFailed"}
)
_STARTING = frozenset({"", "ContainerCreating", "PodInitializing"})
_CONFIG = frozenset({"CreateContainerConfigError"})
_ORDER = (
    reasons.QUOTA_EXCEEDED,
    reasons.REFUSED,
    reasons.IMAGE_PULL_FAILED,
    reasons.CONFIG_MISSING,
    reasons.CRASH_LOOP,
    reasons.CONTAINER_FAILED,
    reasons.UNSCHEDULABLE,
    reasons.NOT_PASSING_PROBE,
    reasons.PODS_NOT_READY,
)
OF_PODS = frozenset(_ORDER) - {reasons.QUOTA_EXCEEDED, reasons.REFUSED}
"""Reasons that only Pods that are there can give."""
PROBE_PATIENCE = 20.0
"""Seconds that a container may run without being ready before its probes are named as the cause."""

SETTLED = 2.0
"""Seconds that containers without a readiness probe must have run until a fork counts as ready for the first time: they are
called ready as soon as they start, also those that end at once.
"""

LastLines = Mapping[tuple[str, str], str]
"""The last line that a container wrote before it crashed, by Pod and container name."""


class Cause(msgspec.Struct, frozen=True):
    """Why a fork is not ready."""

    reason: str
    message: str


def cause(deployment: Deployment, pods: Iterable[Pod], last_lines: LastLines, now: datetime) -> Cause | None:
    """The most telling cause that a fork's Deployment and Pods give, or None."""
    found = list(_of_deployment(deployment.status.conditions or ()))
    for pod in pods:
        if not pod.metadata.deleting and not pod.ready:
            found += _of_pod(pod, last_lines, now)
    return min(found, key=lambda each: (_ORDER.index(each.reason), each.message), default=None)


def crashed(pods: Iterable[Pod]) -> Iterator[tuple[Pod, ContainerStatus]]:
    """Containers in a crash loop that left no message: their last line has to be read from their log."""
    for pod in pods:
        for status in _statuses(pod):
            waiting, ended = status.state.waiting, status.last_state.terminated
            if waiting and waiting.reason == "CrashLoopBackOff" and not (ended and ended.message):
                yield pod, status


def quota_problem(message: str) -> bool:
    """Whether an API server's refusal of a Pod comes from a ResourceQuota or a LimitRange."""
    signs = ("exceeded quota", "failed quota", "usage per Container", "usage per Pod", "limit to request ratio")
    return any(sign in message for sign in signs)


def _of_deployment(conditions: Iterable[WorkloadCondition]) -> Iterator[Cause]:
    for condition in conditions:
        if condition.type == "ReplicaFailure" and condition.status == "True":
            reason = reasons.QUOTA_EXCEEDED if quota_problem(condition.message) else reasons.REFUSED
            yield Cause(reason, condition.message)
        if condition.type == "Progressing" and condition.reason == "ProgressDeadlineExceeded":
            yield Cause(reasons.PODS_NOT_READY, "the Deployment has made no progress for too long")


def patience(pods: Iterable[Pod], now: datetime) -> float | None:
    """Seconds until probes of a container that runs count as the cause; None when nothing is waited for."""
    left = [
        PROBE_PATIENCE - seconds
        for pod in pods
        if not pod.metadata.deleting and not pod.ready
        for status in _statuses(pod)
        if (seconds := _unready(status, now)) is not None
    ]
    return min((seconds for seconds in left if seconds > 0), default=None)


def unsettled(fork: Deployment, pods: Iterable[Pod], now: datetime) -> float:
    """Seconds until the Pods of a fork without readiness probes have run for long enough to count; 0: they have.

    What starts in the future, by the clock of its node, counts at once.
    """
    if b'"readinessProbe"' in fork.raw:
        return 0.0
    ages = [
        (now - parse_time(status.state.running.started_at)).total_seconds()
        for pod in pods
        if not pod.metadata.deleting
        for status in pod.status.container_statuses or ()
        if status.state.running is not None and status.state.running.started_at
    ]
    return max((SETTLED - age for age in ages if 0 <= age < SETTLED), default=0.0)


def _unready(status: ContainerStatus, now: datetime) -> float | None:
    """Seconds for which a container has been running without being ready."""
    if status.ready or status.state.running is None or not status.state.running.started_at:
        return None
    return (now - parse_time(status.state.running.started_at)).total_seconds()


def _of_pod(pod: Pod, last_lines: LastLines, now: datetime) -> Iterator[Cause]:
    name = pod.metadata.name
    for condition in pod.status.conditions or ():
        if condition.type == "PodScheduled" and condition.status == "False":
            yield Cause(reasons.UNSCHEDULABLE, f"Pod {name}: {condition.message or 'it cannot be scheduled'}")
    if pod.status.phase == "Failed":
        yield Cause(reasons.CONTAINER_FAILED, f"Pod {name}: {pod.status.message or pod.status.reason or 'it failed'}")
    for status in _statuses(pod):
        where = f"Pod {name}, container {status.name}"
        waiting, ended = status.state.waiting, status.state.terminated
        if waiting and waiting.reason not in _STARTING:
            yield _waiting(status, waiting.reason, waiting.message, where, last_lines.get((name, status.name), ""))
        elif ended and ended.exit_code:
            yield Cause(reasons.CONTAINER_FAILED, f"{where}: it ended with exit code {ended.exit_code}")
        elif (_unready(status, now) or 0.0) >= PROBE_PATIENCE:
            yield Cause(reasons.NOT_PASSING_PROBE, f"{where}: it runs, but its readiness or startup probe fails")


def _waiting(status: ContainerStatus, reason: str, message: str, where: str, last_line: str) -> Cause:
    said = f"{where}: {message or reason}"
    if reason in _IMAGE:
        return Cause(reasons.IMAGE_PULL_FAILED, said)
    if reason in _CONFIG:
        return Cause(reasons.CONFIG_MISSING, said)
    if reason == "CrashLoopBackOff":
        ended = status.last_state.terminated
        code = f"exit code {ended.exit_code}" if ended else "an error"
        lines = (ended.message if ended else "").strip().splitlines()
        last_line = lines[-1] if lines else last_line
        said = f"{where}: it starts and ends again and again, last with {code}"
        return Cause(reasons.CRASH_LOOP, f"{said}: {last_line[:300]}" if last_line else said)
    return Cause(reasons.CONTAINER_FAILED, f"{where}: {reason}: {message}" if message else said)


def _statuses(pod: Pod) -> list[ContainerStatus]:
    return [*(pod.status.init_container_statuses or ()), *(pod.status.container_statuses or ())]
