"""Why a fork's Pods are not ready, in words: the most telling cause among them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from sandlane.api import reasons
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
    reasons.PODS_NOT_READY,
)

LastLines = Mapping[tuple[str, str], str]
"""The last line that a container wrote before it crashed, by Pod and container name."""


class Cause(msgspec.Struct, frozen=True):
    """Why a fork is not ready."""

    reason: str
    message: str

    @property
    def hopeless(self) -> bool:
        """Whether waiting alone will hardly help."""
        return self.reason != reasons.PODS_NOT_READY


def cause(deployment: Deployment, pods: Iterable[Pod], last_lines: LastLines) -> Cause | None:
    """The most telling cause that a fork's Deployment and Pods give, or None."""
    found = list(_of_deployment(deployment.status.conditions or ()))
    for pod in pods:
        if not pod.metadata.deleting and not pod.ready:
            found += _of_pod(pod, last_lines)
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


def _of_pod(pod: Pod, last_lines: LastLines) -> Iterator[Cause]:
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
