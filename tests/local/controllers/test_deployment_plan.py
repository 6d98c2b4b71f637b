"""The Deployment plan: a small model of ReplicaSets and Pods is driven by it until nothing changes."""

from __future__ import annotations

import copy
from datetime import timedelta
from typing import Any

import pytest

from sandlane.local.controllers.deployment.plan import Plan, make_plan
from sandlane.local.controllers.deployment.revision import HISTORY, REVISION, find_new

HUNDRED = 100


class Model:
    """ReplicaSets that get and lose Pods at once; Pods of `broken` images never become available."""

    def __init__(self, make: Any, deployment: dict[str, Any], broken: frozenset[str] = frozenset()) -> None:
        self.make = make
        self.deployment = deployment
        self.sets: dict[str, dict[str, Any]] = {}
        self.broken = broken
        self.now = make.now
        self.seen: list[tuple[int, int]] = []  # (Pods, available) after each step
        self.old_pods_run = False

    def plan(self) -> Plan:
        return make_plan(
            copy.deepcopy(self.deployment),
            copy.deepcopy(list(self.sets.values())),
            running_old_pods=self.old_pods_run,
            collisions=0,
            now=self.now,
        )

    def step(self) -> bool:
        """Carry out one plan; whether it wrote anything."""
        plan = self.plan()
        if plan.create:
            name = plan.create["metadata"]["name"]
            made = self.make.replica_set(plan.create["spec"]["replicas"], name)
            made["spec"] = plan.create["spec"]
            made["metadata"] |= {k: plan.create["metadata"][k] for k in ("labels", "annotations")}
            self.sets[name] = made
        for name, patch in plan.patches.items():
            self.sets[name]["spec"] |= patch.get("spec") or {}
            self.sets[name]["metadata"]["annotations"] |= (patch.get("metadata") or {}).get("annotations") or {}
        for name in plan.delete:
            del self.sets[name]
        if plan.revision:
            self.deployment["metadata"].setdefault("annotations", {})[REVISION] = plan.revision
        wrote = bool(plan.create or plan.patches or plan.delete or plan.revision)
        wrote = wrote or plan.status != self.deployment.get("status")
        self.deployment["status"] = plan.status
        for made in self.sets.values():
            count = made["spec"]["replicas"]
            image = made["spec"]["template"]["spec"]["containers"][0]["image"]
            good = 0 if image in self.broken else count
            made["status"] = {"replicas": count, "readyReplicas": good, "availableReplicas": good}
        self.seen.append(
            (
                sum(rs["spec"]["replicas"] for rs in self.sets.values()),
                sum(rs["status"]["availableReplicas"] for rs in self.sets.values()),
            )
        )
        return wrote

    def settle(self) -> None:
        """Step until a plan writes nothing."""
        for _ in range(HUNDRED):
            if not self.step():
                return
        raise AssertionError("the plan never comes to rest")

    def update(self, image: str) -> None:
        self.deployment["spec"]["template"]["spec"]["containers"][0]["image"] = image

    def sizes(self) -> dict[str, int]:
        """Image -> replicas, without empty ReplicaSets."""
        return {
            rs["spec"]["template"]["spec"]["containers"][0]["image"]: rs["spec"]["replicas"]
            for rs in self.sets.values()
            if rs["spec"]["replicas"]
        }

    def progressing(self) -> tuple[str, str]:
        found = next(c for c in self.deployment["status"]["conditions"] if c["type"] == "Progressing")
        return found["status"], found["reason"]

    def revision(self) -> str:
        return str(self.deployment["metadata"]["annotations"][REVISION])


def test_first_rollout(make: Any) -> None:
    """A new Deployment gets one ReplicaSet of its size, revision 1, and comes to rest as complete."""
    model = Model(make, make.deployment())
    model.settle()
    assert model.sizes() == {"app:1": 3}
    assert model.revision() == "1"
    assert model.progressing() == ("True", "NewReplicaSetAvailable")
    status = model.deployment["status"]
    assert (status["replicas"], status["updatedReplicas"], status["availableReplicas"]) == (3, 3, 3)


@pytest.mark.parametrize(
    ("surge", "unavailable", "most", "least"),
    [(1, 0, 4, 3), (0, 1, 3, 2), ("25%", "25%", 4, 3), ("100%", 0, 6, 3), (0, 0, 3, 2)],
)
def test_rolling_update_keeps_its_bounds(make: Any, surge: Any, unavailable: Any, most: int, least: int) -> None:
    """A rolling update never has more Pods than maxSurge allows, nor fewer available than maxUnavailable allows."""
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}
    model = Model(make, make.deployment(strategy=strategy))
    model.settle()
    model.seen.clear()
    model.update("app:2")
    model.settle()
    assert model.sizes() == {"app:2": 3}
    assert max(pods for pods, _ in model.seen) <= most
    assert min(available for _, available in model.seen) >= least
    assert model.revision() == "2"


def test_broken_update_keeps_the_old_pods(make: Any) -> None:
    """A template whose Pods never become available leaves the old ones serving, and times out after its deadline."""
    model = Model(make, make.deployment(), broken=frozenset({"app:2"}))
    model.settle()
    model.update("app:2")
    model.settle()
    assert model.sizes() == {"app:1": 3, "app:2": 1}
    assert model.progressing()[0] == "True"
    again = model.plan().again_after
    assert again is not None
    model.now += timedelta(seconds=again)
    model.settle()
    assert model.progressing() == ("False", "ProgressDeadlineExceeded")


def test_undo_takes_the_old_replica_set_again(make: Any) -> None:
    """Going back to an earlier template uses its ReplicaSet, with the highest revision and its history noted."""
    model = Model(make, make.deployment())
    model.settle()
    first = find_new(model.deployment, model.sets.values())
    model.update("app:2")
    model.settle()
    model.update("app:1")
    model.settle()
    again = find_new(model.deployment, model.sets.values())
    assert first is not None
    assert again is not None
    assert again["metadata"]["name"] == first["metadata"]["name"]
    assert model.sizes() == {"app:1": 3}
    assert model.revision() == "3"
    assert again["metadata"]["annotations"][HISTORY] == "1"


def test_recreate_waits_for_old_pods(make: Any) -> None:
    """Recreate makes no new ReplicaSet while a Pod of the old one runs."""
    model = Model(make, make.deployment(strategy={"type": "Recreate"}))
    model.settle()
    model.update("app:2")
    model.old_pods_run = True
    model.settle()
    assert model.sizes() == {}
    model.old_pods_run = False
    model.settle()
    assert model.sizes() == {"app:2": 3}


def test_paused_scales_but_does_not_roll(make: Any) -> None:
    """A paused Deployment follows replicas, not its template; resumed, it rolls."""
    model = Model(make, make.deployment())
    model.settle()
    model.deployment["spec"] |= {"paused": True, "replicas": 5}
    model.update("app:2")
    model.settle()
    assert model.sizes() == {"app:1": 5}
    assert model.progressing() == ("Unknown", "DeploymentPaused")
    model.deployment["spec"]["paused"] = False
    model.settle()
    assert model.sizes() == {"app:2": 5}


def test_scaling_in_the_middle_of_a_rollout_is_proportional(make: Any) -> None:
    """Replicas added while two ReplicaSets are active go to both in proportion."""
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}}
    model = Model(make, make.deployment(replicas=10, strategy=strategy), broken=frozenset({"app:2"}))
    model.settle()
    model.update("app:2")
    model.settle()
    assert model.sizes() == {"app:1": 8, "app:2": 5}
    model.deployment["spec"]["replicas"] = 15
    model.step()
    assert model.sizes() == {"app:1": 11, "app:2": 7}


def test_old_revisions_are_limited(make: Any) -> None:
    """Only revisionHistoryLimit idle ReplicaSets are kept, the newest ones."""
    model = Model(make, make.deployment(revisionHistoryLimit=2))
    for number in range(6):
        model.update(f"app:{number}")
        model.settle()
    images = {rs["spec"]["template"]["spec"]["containers"][0]["image"] for rs in model.sets.values()}
    assert images == {"app:3", "app:4", "app:5"}


def test_scale_to_zero_and_back_is_no_new_rollout(make: Any) -> None:
    """Scaling keeps the revision and the ReplicaSet."""
    model = Model(make, make.deployment())
    model.settle()
    for replicas in (0, 4):
        model.deployment["spec"]["replicas"] = replicas
        model.settle()
        assert sum(model.sizes().values()) == replicas
        assert model.revision() == "1"
        assert len(model.sets) == 1
