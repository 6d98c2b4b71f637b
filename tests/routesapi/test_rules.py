"""Which sandbox takes the place of a workload for which key."""

from __future__ import annotations

from typing import Any

import pytest

from sandlane.routing.workloads import workload_rules
from sandlane.world.world import World
from support.routed import LAPTOP, baseline, group, local, sandbox


def told(objects: list[dict[str, Any]], held: Any = None) -> list[tuple[str, str, str]]:
    """Baseline, key and workload of each rule."""
    found = workload_rules(World.of(objects), held)
    return [(str(rule.baseline), rule.key, f"{rule.sandbox}/{rule.workload}") for rule in found]


def test_forks() -> None:
    """A fork that was ever ready takes over, with the hosts of its own Service."""
    (rule,) = workload_rules(World.of([*baseline(), *sandbox("a"), *sandbox("b", ready=False)]))
    assert (str(rule.baseline), rule.key, rule.sandbox, rule.workload) == ("n/Deployment/eta", "key-a", "a", "eta-a")
    assert [(each.service, each.port, each.host) for each in rule.routes] == [("eta", 80, "eta-a.n.svc")]
    assert rule.via == "Sandbox n/a"


def test_a_workload_without_a_service() -> None:
    """A consumer of messages has no Service; the rule is there all the same."""
    (rule,) = workload_rules(World.of(sandbox("a", fork={"services": []})))
    assert rule.routes == ()


def test_suspended_and_going() -> None:
    """A sandbox that is suspended, or is being deleted, has no rules."""
    gone = sandbox("b")
    gone[0]["metadata"] |= {"deletionTimestamp": "2026-02-01T00:00:00Z", "finalizers": ["x"]}
    assert told([*sandbox("a", suspended=True), *gone]) == []


def test_groups() -> None:
    """Under a group's key all its sandboxes count; of two with one baseline the older."""
    objects = [*sandbox("a", created=2), *sandbox("b", created=1), *sandbox("c", of="drivers"), group("g", all="yes")]
    assert told(objects)[-1] == ("n/Deployment/eta", "key-g", "b/eta-b")
    assert ("n/Deployment/drivers", "key-g", "c/drivers-c") in told(objects)


def test_a_key_that_is_taken() -> None:
    """The older of two with one key has it."""
    assert told([*sandbox("a", created=2), *sandbox("b", created=1, routingKey="key-a")]) == [
        ("n/Deployment/eta", "key-a", "b/eta-b")
    ]


@pytest.mark.parametrize(
    ("on_disconnect", "connected", "takes_over"),
    [("Fail", False, True), ("Hold", False, True), ("Baseline", False, False), ("Baseline", True, True)],
)
def test_laptops(on_disconnect: str, connected: bool, takes_over: bool) -> None:
    """A laptop that is away keeps its place, as for requests, unless the baseline shall stand in."""
    objects = [*sandbox("a", of="drivers"), local("a", on_disconnect=on_disconnect)]
    held = {LAPTOP: frozenset({"127.0.0.1"})} if connected else {}
    assert (("n/Deployment/eta", "key-a", "a/l") in told(objects, held)) is takes_over
