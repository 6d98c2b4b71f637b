"""What to do for a Job, given its Pods: a pure function to Pods to make and delete, and the status.

Failed Pods are replaced after 10 s, doubling to 6 minutes, until `backoffLimit`. Ended Pods are counted while they
exist; a count never goes down when somebody deletes one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sandlane.kube.resource import Object, Resource
from sandlane.local.controllers.objects import (
    annotations_of,
    condition,
    controller_reference,
    deleting,
    is_active,
    is_ready,
    moment,
    timestamp,
    with_condition,
)

JOBS = Resource("batch", "v1", "jobs", "Job")
INDEX = "batch.kubernetes.io/job-completion-index"
FIRST_DELAY, LAST_DELAY = 10.0, 360.0


@dataclass(frozen=True)
class Plan:
    """Indexes to make Pods for (None: without an index), Pods to delete, the status, when to look again, and whether
    the Job itself has outlived its `ttlSecondsAfterFinished`."""

    status: Object
    create: tuple[int | None, ...] = ()
    delete: tuple[Object, ...] = ()
    again_after: float | None = None
    expired: bool = False


def make_plan(job: Object, pods: Sequence[Object], now: datetime) -> Plan:
    """The next step. `pods` are those that the Job controls."""
    spec, old = job["spec"], job.get("status") or {}
    if finished(job) or deleting(job):
        left = _ttl_left(job, now)
        leftover = tuple(pod for pod in pods if is_active(pod))
        return Plan(dict(old), (), leftover, left, left is not None and left <= 0)
    state = _Count(job, pods)
    status: Object = {key: value for key, value in old.items() if key in ("startTime", "conditions")}
    if not spec.get("suspend"):
        status.setdefault("startTime", timestamp(now))
    ending = _ending(job, state, status, now)
    if ending is not None:
        return _end(job, state, status, ending, now)
    if spec.get("suspend"):
        status = _with(status, "Suspended", "True", "JobSuspended", "Job suspended", now)
        status.pop("startTime", None)
        return Plan(_counts(status, state, 0), (), tuple(state.active))
    if condition(job, "Suspended"):
        status = _with(status, "Suspended", "False", "JobResumed", "Job resumed", now)
    wait = _pause(state, now)
    wanted = state.wanted(spec)
    surplus = tuple(state.active[: max(len(state.active) - len(wanted), 0)])
    create: tuple[int | None, ...] = ()
    if wait <= 0:
        create = (
            tuple(wanted[: max(len(wanted) - len(state.active), 0)]) if not state.indexed else state.lacking(wanted)
        )
    deadline = _deadline_left(job, status, now)
    again = min((t for t in (wait if wait > 0 else None, deadline) if t is not None), default=None)
    return Plan(_counts(status, state, len(create) - len(surplus)), create, surplus, again)


class _Count:
    """What has become of the Job's Pods."""

    def __init__(self, job: Object, pods: Sequence[Object]) -> None:
        spec, old = job["spec"], job.get("status") or {}
        self.indexed = spec.get("completionMode") == "Indexed"
        self.active = [pod for pod in pods if is_active(pod)]
        ended = [pod for pod in pods if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")]
        self.failures = [pod for pod in ended if pod["status"]["phase"] == "Failed"]
        done = [pod for pod in ended if pod["status"]["phase"] == "Succeeded"]
        self.done_indexes = {_index(pod) for pod in done} | _parse(old.get("completedIndexes", ""))
        self.succeeded = max(
            len(self.done_indexes - {None}) if self.indexed else len(done), int(old.get("succeeded") or 0)
        )
        self.failed = max(len(self.failures), int(old.get("failed") or 0))
        self.completions = spec.get("completions")

    def wanted(self, spec: Object) -> list[int | None]:
        """One entry for each Pod that should be active now."""
        parallel = int(spec.get("parallelism", 1))
        if self.completions is None:
            return [None] * (0 if self.succeeded else parallel)
        if not self.indexed:
            return [None] * min(parallel, max(int(self.completions) - self.succeeded, 0))
        open_ = [index for index in range(int(self.completions)) if index not in self.done_indexes]
        return list(open_[:parallel])

    def lacking(self, wanted: list[int | None]) -> tuple[int | None, ...]:
        """The wanted indexes for which no Pod is active."""
        have = {_index(pod) for pod in self.active}
        return tuple(index for index in wanted if index not in have)


def finished(job: Object) -> bool:
    """Whether a Job has completed or failed."""
    return any((c := condition(job, kind)) is not None and c["status"] == "True" for kind in ("Complete", "Failed"))


def _ending(job: Object, state: _Count, status: Object, now: datetime) -> tuple[str, str, str] | None:
    spec = job["spec"]
    if state.failed > int(spec.get("backoffLimit", 6)):
        return "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit"
    left = _deadline_left(job, status, now)
    if left is not None and left <= 0:
        return "Failed", "DeadlineExceeded", "Job was active longer than specified deadline"
    if state.completions is None:
        complete = state.succeeded > 0 and not state.active
    else:
        complete = state.succeeded >= int(state.completions)
    return ("Complete", "CompletionsReached", "Reached expected number of succeeded pods") if complete else None


def _end(job: Object, state: _Count, status: Object, ending: tuple[str, str, str], now: datetime) -> Plan:
    kind, reason, message = ending
    first = "SuccessCriteriaMet" if kind == "Complete" else "FailureTarget"
    status = _with(_with(status, first, "True", reason, message, now), kind, "True", reason, message, now)
    if kind == "Complete":
        status["completionTime"] = timestamp(now)
    ttl = job["spec"].get("ttlSecondsAfterFinished")
    again = None if ttl is None else float(ttl)
    return Plan(_counts(status, state, -len(state.active)), (), tuple(state.active), again)


def _with(status: Object, kind: str, value: str, reason: str, message: str, now: datetime) -> Object:
    at = timestamp(now)
    new = {
        "type": kind,
        "status": value,
        "lastProbeTime": at,
        "lastTransitionTime": at,
        "reason": reason,
        "message": message,
    }
    if (old := condition({"status": status}, kind)) and old["status"] == value:
        return status
    return {**status, "conditions": with_condition(status.get("conditions") or (), new)}


def _counts(status: Object, state: _Count, change: int) -> Object:
    counts = {
        "active": max(len(state.active) + change, 0),
        "succeeded": state.succeeded,
        "failed": state.failed,
    }
    status = {**status, **{key: value for key, value in counts.items() if value}}
    status["ready"] = sum(map(is_ready, state.active)) if change >= 0 else 0
    if state.indexed and (done := sorted(index for index in state.done_indexes if index is not None)):
        status["completedIndexes"] = _format(done)
    return status


def _pause(state: _Count, now: datetime) -> float:
    """Seconds until a failed Pod may be replaced."""
    if not state.failures:
        return 0.0
    last = max(_ended_at(pod) for pod in state.failures)
    delay = min(FIRST_DELAY * 2.0 ** min(len(state.failures) - 1, 10), LAST_DELAY)
    return (last + timedelta(seconds=delay) - now).total_seconds()


def _ended_at(pod: Object) -> datetime:
    times = [
        terminated["finishedAt"]
        for c in pod["status"].get("containerStatuses") or ()
        if (terminated := (c.get("state") or {}).get("terminated")) and terminated.get("finishedAt")
    ]
    return moment(max(times, default=pod["metadata"]["creationTimestamp"]))


def _deadline_left(job: Object, status: Object, now: datetime) -> float | None:
    seconds = job["spec"].get("activeDeadlineSeconds")
    if seconds is None or "startTime" not in status:
        return None
    return (moment(status["startTime"]) + timedelta(seconds=int(seconds)) - now).total_seconds()


def _ttl_left(job: Object, now: datetime) -> float | None:
    ttl = job["spec"].get("ttlSecondsAfterFinished")
    ends = [condition(job, kind) for kind in ("Complete", "Failed")]
    at = next((c["lastTransitionTime"] for c in ends if c and c["status"] == "True"), None)
    if ttl is None or at is None:
        return None
    return (moment(at) + timedelta(seconds=int(ttl)) - now).total_seconds()


def _index(pod: Object) -> int | None:
    text = annotations_of(pod).get(INDEX, "")
    return int(text) if text.isdigit() else None


def _parse(text: str) -> set[int | None]:
    """`0,2-4` as numbers."""
    out: set[int | None] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        out.update(range(int(first), int(last or first) + 1))
    return out


def _format(numbers: Sequence[int]) -> str:
    """Sorted numbers as `0,2-4`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def make_pod(job: Object, index: int | None) -> Object:
    """One Pod of the template."""
    template, name = job["spec"]["template"], job["metadata"]["name"]
    metadata = template.get("metadata") or {}
    uid = job["metadata"]["uid"]
    labels = {
        **(metadata.get("labels") or {}),
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": name,
        "controller-uid": uid,
        "job-name": name,
    }
    annotations = dict(metadata.get("annotations") or {})
    spec, stem = dict(template["spec"]), name
    if index is not None:
        labels[INDEX] = annotations[INDEX] = str(index)
        stem = f"{name}-{index}"
        variable = {"name": "JOB_COMPLETION_INDEX", "value": str(index)}
        spec["containers"] = [{**c, "env": [*(c.get("env") or []), variable]} for c in spec["containers"]]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": f"{stem}-",
            "namespace": job["metadata"]["namespace"],
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [controller_reference(job, JOBS)],
        },
        "spec": spec,
    }
