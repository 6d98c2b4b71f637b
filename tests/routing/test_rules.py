"""What `sandlane routes` says of every sandbox: that it is routed, or why not."""

from __future__ import annotations

from typing import Any

import pytest

from sandlane.routing.build import build
from sandlane.routing.rules import Rule, connected, rules
from sandlane.world.world import World
from support.routed import baseline, deployment, group, local, sandbox


def rules_of(*parts: Any) -> list[Rule]:
    objects = [each for part in parts for each in (part if isinstance(part, list) else [part])]
    world = World.of(objects)
    found = rules(world, connected(world))
    in_table = {
        (door, key)
        for door, front in build(world, connected(world)).doors.items()
        for key, override in front.overrides.items()
    }
    assert {(rule.door, rule.key) for rule in found if rule.active} <= in_table
    return found


def only(*parts: Any) -> Rule:
    (rule,) = rules_of(*parts)
    return rule


def test_a_route() -> None:
    """A ready fork of a turned Service has an active rule that names it and its Service."""
    rule = only(baseline(), sandbox("a"))
    assert (str(rule.door), rule.key, rule.via) == ("n/eta:80", "key-a", "Sandbox n/a")
    assert (rule.active, rule.served_by, rule.backend, rule.reason) == (True, "a/eta-a", "eta-a", "Programmed")


def test_a_route_group_has_its_own_key() -> None:
    """Each matched sandbox has a rule under the group's key; of two for the same door the older one is active."""
    found = rules_of(baseline(), sandbox("old"), sandbox("young", created=2), group("g", all="yes"))
    mine = [(rule.sandbox, rule.active, rule.reason) for rule in found if rule.via == "RouteGroup n/g"]
    assert mine == [("old", True, "Programmed"), ("young", False, "ConflictingSandboxes")]


@pytest.mark.parametrize(
    ("parts", "reason", "words"),
    [
        ([baseline(), sandbox("a", ready=False)], "PodsNotReady", "was never ready"),
        (
            [baseline(), sandbox("a", ready=False, fork={"reason": "CrashLoop", "message": "exit 1"})],
            "CrashLoop",
            "exit 1",
        ),
        ([baseline(), sandbox("a", suspended=True)], "Suspended", "is suspended"),
        ([baseline(turned=False), sandbox("a")], "Progressing", "being turned"),
        ([baseline(port={"appProtocol": "tcp"}), sandbox("a")], "ServiceNotRoutable", "has no key"),
    ],
)
def test_why_not(parts: list[Any], reason: str, words: str) -> None:
    """Without a route the baseline serves, and the reason is said in a stable word and in words."""
    rule = only(*parts)
    assert (rule.active, rule.served_by, rule.reason) == (False, "baseline", reason)
    assert words in rule.message


def test_a_service_that_cannot_be_routed() -> None:
    """The annotation `never` is named as the cause."""
    objects = baseline(turned=False)
    objects[1]["metadata"]["annotations"] = {"sandlane.dev/routing": "never"}
    rule = only(objects, sandbox("a"))
    assert (rule.active, rule.reason) == (False, "ServiceNotRoutable")
    assert "sandlane.dev/routing is never" in rule.message


def test_a_taken_key() -> None:
    """The younger of two with one key is told whose it is."""
    objects = [baseline(), sandbox("old", routingKey="k"), sandbox("young", created=2, routingKey="k")]
    active, refused = rules_of(*objects)
    assert (active.sandbox, active.active) == ("old", True)
    assert (refused.sandbox, refused.reason) == ("young", "RoutingKeyTaken")
    assert "n/old is older" in refused.message


def test_a_sandbox_without_status_yet() -> None:
    """Before the first status the Services come from the baseline."""
    made = sandbox("a")
    made[0].pop("status")
    rule = only(baseline(), made)
    assert (str(rule.door), rule.reason) == ("n/eta:80", "Pending")


def test_a_deleted_sandbox() -> None:
    """While it goes the baseline serves."""
    made = sandbox("a")
    made[0]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert only(baseline(), made).reason == "Terminating"


def test_a_fork_that_is_not_ready_any_more() -> None:
    """It keeps its route, and the message says that callers get a 503."""
    made = sandbox("a")
    made[2]["endpoints"][0]["conditions"]["ready"] = False
    rule = only(baseline(), made)
    assert (rule.active, rule.reason) == (True, "PodsNotReady")
    assert "503" in rule.message


@pytest.mark.parametrize(
    ("on_disconnect", "tunnels", "active", "served_by"),
    [
        ("Fail", 1, True, "a/local"),
        ("Fail", 0, True, "a/local"),
        ("Hold", 0, True, "a/local"),
        ("Baseline", 0, False, "baseline"),
    ],
)
def test_a_laptop(on_disconnect: str, tunnels: int, active: bool, served_by: str) -> None:
    """A laptop's rule says who answers, connected or not."""
    made = sandbox("a", forks=[])[:1]
    made[0]["status"]["forks"] = []
    rule = only(baseline(), made, local("a", on_disconnect=on_disconnect, tunnels=tunnels))
    assert (rule.active, rule.served_by) == (active, served_by)
    assert rule.reason == ("Connected" if tunnels else "NotConnected")


def test_a_fork_without_service() -> None:
    """What no Service selects has no rule."""
    made = sandbox("a")
    made[0]["status"]["forks"][0]["services"] = []
    assert rules_of(deployment(), made[0]) == []
