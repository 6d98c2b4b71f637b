"""What a sandbox's status says of what is there: time to live, local workloads, routes, limits, replaced Deployments."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from sandlane.api.limits import Settings
from sandlane.api.types import SandboxStatus
from sandlane.kube.resource import DEPLOYMENTS, Key, Object
from sandlane.runtime.conditions import find_condition
from sandlane.sandbox.plan import Problem, make_plan
from sandlane.sandbox.status import Observation, observe
from sandlane.world.world import World
from support.sandboxes import NAMESPACE, Report, deployment, fork, sandbox, service

NOW = datetime(2026, 1, 5, tzinfo=UTC)
CREATED = "2026-01-01T00:00:00Z"


def seen(
    *objects: Object,
    forks: tuple[Object, ...] = (),
    report: Report | None = None,
    settings: Settings = Settings(),
    failures: dict[Any, Problem] | None = None,
    **spec: Any,
) -> SandboxStatus:
    """The status of a sandbox in a world of these objects."""
    obj = sandbox("new-eta", *forks) | {"spec": {"forks": list(forks)} | spec}
    obj["metadata"] |= {"uid": "u", "generation": 1, "creationTimestamp": CREATED}
    world = World.of([obj, deployment(), service(), *objects])
    own = world.sandboxes.list()[0]
    plan = make_plan(world, own, settings.limits)
    return observe(world, own, plan, Observation(report, failures or {}), now=NOW, settings=settings)


def told(status: SandboxStatus, kind: str) -> tuple[str, str, str]:
    """Status, reason and message of a condition."""
    found = find_condition(status.conditions, kind)
    assert found is not None
    return found.status, found.reason, found.message


def local(status: str = "", reason: str = "", message: str = "") -> Object:
    """The LocalWorkload `laptop`, with this condition Ready, if any."""
    metadata = {"name": "laptop", "namespace": NAMESPACE}
    spec = {"sandbox": "new-eta", "from": {"name": "route"}, "mappings": [{"port": 8083, "to": "localhost:1"}]}
    ready = {"type": "Ready", "status": status, "reason": reason, "message": message, "lastTransitionTime": CREATED}
    head = {"apiVersion": "sandlane.dev/v1alpha1", "kind": "LocalWorkload", "metadata": metadata, "spec": spec}
    return head | {"status": {"conditions": [ready] if status else []}}


LAPTOP = [{"name": "laptop", "from": {"name": "route"}, "mappings": [{"port": 8083, "to": "localhost:1"}]}]


def test_sandboxes_without_a_time_to_live_have_the_clusters() -> None:
    """`defaultTtl` counts from the last update; a sandbox's own `ttl` comes first; without both nothing expires."""
    by_default = Settings(default_ttl="7d")
    assert seen(settings=by_default).expires_at == "2026-01-08T00:00:00Z"
    own = {"duration": "2h", "from": "creation"}
    assert seen(settings=by_default, ttl=own).expires_at == "2026-01-01T02:00:00Z"
    assert seen().expires_at == ""


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        ([], ("Unknown", "Pending", "LocalWorkload laptop is not there yet")),
        ([local()], ("Unknown", "Pending", "LocalWorkload laptop has no status yet")),
        ([local("False", "Gone", "nobody is there")], ("False", "Gone", "LocalWorkload laptop: nobody is there")),
        ([local("True", "AllReady")], ("True", "AllReady", "")),
    ],
)
def test_local_workloads_count(objects: list[Object], expected: tuple[str, str, str]) -> None:
    """A sandbox is as ready as its laptops are, in their own words."""
    status = seen(*objects, local=LAPTOP, report=Report())
    assert told(status, "LocalReady") == expected
    assert status.phase == ("Ready" if expected[0] == "True" else "Progressing")


def test_routes_wait_for_forks_that_cannot_be_written() -> None:
    """Where no Service leads to a fork, its trouble is told, not that there is nothing to route."""
    alone = fork("alone")
    base = deployment("alone")
    key = (DEPLOYMENTS, Key(NAMESPACE, seen(base, forks=(alone,)).forks[0].workload))
    status = seen(base, forks=(alone,), failures={key: Problem("NotOwned", "the name is taken")})
    assert told(status, "RoutesProgrammed") == ("Unknown", "Pending", "the forks come first")
    assert told(status, "ForksReady")[:2] == ("False", "NotOwned")


def test_what_a_limit_says_is_within_limits() -> None:
    """A quota that stops one fork is the sandbox's `WithinLimits`."""
    key = (DEPLOYMENTS, Key(NAMESPACE, seen(forks=(fork(),)).forks[0].workload))
    status = seen(forks=(fork(),), failures={key: Problem("QuotaExceeded", "pods: used 5, limited 5")})
    assert told(status, "WithinLimits")[:2] == ("False", "QuotaExceeded")
    assert "fork of route: pods: used 5, limited 5" in told(status, "WithinLimits")[2]
    assert told(status, "Accepted")[0] == "True"
    assert status.phase == "Failed"


def test_a_strangers_deployment_is_not_the_fork() -> None:
    """A Deployment of the fork's name that belongs to nobody has no say in its readiness."""
    name = seen(forks=(fork(),)).forks[0].workload
    stranger = deployment(name)
    stranger["status"] = {"replicas": 1, "readyReplicas": 1, "updatedReplicas": 1, "availableReplicas": 1}
    [found] = seen(stranger, forks=(fork(),)).forks
    assert (found.ready, found.ever_ready) == (0, False)
