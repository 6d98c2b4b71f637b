"""The ReplicaSet plan: which Pods are adopted, released, made and deleted."""

from __future__ import annotations

from typing import Any

from sandlane.local.controllers.replicaset.plan import DELETION_COST, make_plan, make_status


def names(pods: tuple[dict[str, Any], ...]) -> list[str]:
    """Names of Pods."""
    return [pod["metadata"]["name"] for pod in pods]


def test_counts_only_active_pods_of_its_own(make: Any) -> None:
    """Ended, dying and foreign Pods do not count; matching orphans are adopted and do."""
    rs = make.replica_set(4)
    pods = [
        make.pod("mine", owner="rs"),
        make.pod("ended", owner="rs", phase="Failed"),
        make.pod("dying", owner="rs", deleting=True),
        make.pod("orphan"),
        make.pod("foreign", owner="other"),
        make.pod("unmatched", labels={"app": "b"}),
    ]
    plan = make_plan(rs, pods)
    assert names(plan.adopt) == ["orphan"]
    assert plan.create == 2
    assert plan.delete == ()


def test_releases_pods_that_no_longer_match(make: Any) -> None:
    """A Pod whose labels were changed is released and replaced."""
    plan = make_plan(make.replica_set(1), [make.pod("relabelled", owner="rs", labels={"app": "debug"})])
    assert names(plan.release) == ["relabelled"]
    assert plan.create == 1


def test_deletes_the_least_useful_first(make: Any) -> None:
    """Pending before running, not ready before ready, cheap before dear, young before old."""
    pods = [
        make.pod("old", owner="rs"),
        make.pod("young", owner="rs"),
        make.pod("dear", owner="rs", annotations={DELETION_COST: "10"}),
        make.pod("cheap", owner="rs", annotations={DELETION_COST: "-10"}),
        make.pod("sick", owner="rs", ready=False),
        make.pod("pending", owner="rs", ready=False, phase="Pending"),
    ]
    assert names(make_plan(make.replica_set(0), pods).delete) == ["pending", "sick", "cheap", "young", "old", "dear"]


def test_min_ready_seconds(make: Any) -> None:
    """A ready Pod is available only after minReadySeconds, and the status says when to look again."""
    rs = make.replica_set(1)
    rs["spec"]["minReadySeconds"] = 30
    status, again = make_status(rs, [make.pod("a", owner="rs")], None, make.now)
    assert (status["readyReplicas"], status.get("availableReplicas", 0)) == (1, 0)
    assert again == 20


def test_failure_condition_comes_and_goes(make: Any) -> None:
    """`ReplicaFailure` says why Pods cannot be made, keeps its time while it lasts, and goes when they can."""
    rs = make.replica_set(1)
    rs["status"], _ = make_status(rs, [], ("FailedCreate", "exceeded quota"), make.now)
    assert rs["status"]["conditions"][0]["message"] == "exceeded quota"
    status, _ = make_status(rs, [make.pod("a", owner="rs")], None, make.now)
    assert "conditions" not in status
