"""The Job plan: how many Pods run, when a Job is complete, when it has failed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from sandlane.local.controllers.job.plan import INDEX, make_plan, make_pod


@pytest.fixture
def job(make: Any) -> dict[str, Any]:
    """A Job of three completions, two at a time."""
    return {
        "metadata": {"name": "job", "namespace": "rides", "uid": "uid-job", "generation": 1},
        "spec": {
            "completions": 3,
            "parallelism": 2,
            "backoffLimit": 1,
            "template": {"metadata": {}, "spec": {"containers": [{"name": "main", "image": "x"}]}},
        },
    }


def conditions(status: dict[str, Any]) -> dict[str, str]:
    """Type -> reason of the conditions that hold."""
    return {c["type"]: c["reason"] for c in status.get("conditions", ()) if c["status"] == "True"}


def test_runs_as_many_as_are_left(make: Any, job: dict[str, Any]) -> None:
    """Never more Pods than parallelism, nor more than completions still needed."""
    assert len(make_plan(job, [], make.now).create) == 2
    done = [make.pod(f"done{i}", owner="job", phase="Succeeded") for i in range(2)]
    assert len(make_plan(job, done, make.now).create) == 1
    running = [make.pod("running", owner="job")]
    assert len(make_plan(job, done + running, make.now).create) == 0


def test_completes(make: Any, job: dict[str, Any]) -> None:
    """With enough successes the Job is complete, also when its Pods are deleted afterwards."""
    done = [make.pod(f"done{i}", owner="job", phase="Succeeded") for i in range(3)]
    job["status"] = make_plan(job, done, make.now).status
    assert conditions(job["status"])["Complete"] == "CompletionsReached"
    assert job["status"]["succeeded"] == 3
    again = make_plan(job, [], make.now)
    assert again.status == job["status"]
    assert again.create == ()


def test_failures_are_replaced_after_a_pause_until_the_limit(make: Any, job: dict[str, Any]) -> None:
    """A failed Pod is replaced 10 s later; more failures than backoffLimit fail the Job and end its Pods."""
    failed = [make.pod("f1", owner="job", phase="Failed", creationTimestamp="2026-01-01T11:59:58Z")]
    plan = make_plan(job, failed, make.now)
    assert (plan.create, plan.again_after) == ((), 8)
    assert len(make_plan(job, failed, make.now + timedelta(seconds=8)).create) == 2
    failed.append(make.pod("f2", owner="job", phase="Failed"))
    running = make.pod("r", owner="job")
    plan = make_plan(job, [*failed, running], make.now)
    assert conditions(plan.status)["Failed"] == "BackoffLimitExceeded"
    assert plan.delete == (running,)


def test_indexed(make: Any, job: dict[str, Any]) -> None:
    """Each index has its own Pod, told by annotation and environment, until it succeeded."""
    job["spec"] |= {"completionMode": "Indexed"}
    assert make_plan(job, [], make.now).create == (0, 1)
    done = make.pod("d", owner="job", phase="Succeeded", annotations={INDEX: "0"})
    running = make.pod("r", owner="job", annotations={INDEX: "1"})
    plan = make_plan(job, [done, running], make.now)
    assert plan.create == (2,)
    assert plan.status["completedIndexes"] == "0"
    env = make_pod(job, 2)["spec"]["containers"][0]["env"]
    assert env == [{"name": "JOB_COMPLETION_INDEX", "value": "2"}]


def test_deadline_and_ttl(make: Any, job: dict[str, Any]) -> None:
    """activeDeadlineSeconds fails a Job; ttlSecondsAfterFinished removes it later."""
    job["spec"] |= {"activeDeadlineSeconds": 5, "ttlSecondsAfterFinished": 60}
    plan = make_plan(job, [], make.now)
    job["status"] = plan.status
    assert plan.again_after == 5
    job["status"] = make_plan(job, [], make.now + timedelta(seconds=5)).status
    assert conditions(job["status"])["Failed"] == "DeadlineExceeded"
    assert not make_plan(job, [], make.now + timedelta(seconds=64)).expired
    assert make_plan(job, [], make.now + timedelta(seconds=65)).expired


def test_suspended(make: Any, job: dict[str, Any]) -> None:
    """A suspended Job has no Pods and says so."""
    job["spec"]["suspend"] = True
    running = make.pod("r", owner="job")
    plan = make_plan(job, [running], make.now)
    assert plan.delete == (running,)
    assert conditions(plan.status) == {"Suspended": "JobSuspended"}
