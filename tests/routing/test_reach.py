"""Which Services are looked at when routers have something new."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from sandlane.kube.resource import Key
from sandlane.routing.controller import RoutingController
from sandlane.routing.envoy.delta import ROUTES, Refusal
from sandlane.routing.reach import routed, routed_anywhere, services_of_local, services_of_sandbox, taken
from sandlane.world.world import World
from support.routed import NAMESPACE, baseline, local, sandbox

ETA, WEB = Key(NAMESPACE, "eta"), Key(NAMESPACE, "web")


def world() -> World:
    return World.of([*baseline(), *baseline("web"), *sandbox("a"), local("a")])


def test_what_a_change_is_about() -> None:
    """Services with a shadow, those that a fork or a laptop stands in for, and the ports that others have."""
    there = world()
    assert set(routed(there, NAMESPACE)) == routed_anywhere(there) == {ETA, WEB}
    assert routed(there, "elsewhere") == []
    assert services_of_sandbox(next(iter(there.sandboxes))) == [ETA]
    assert services_of_local(there, next(iter(there.local_workloads))) == [ETA]
    assert services_of_local(World.of([local("a")]), next(iter(there.local_workloads))) == []
    assert taken(there, ETA) == {20000}


def test_an_answer_of_a_router_wakes_only_who_waits_for_it() -> None:
    """Routers answer at each change of their namespace: its Services are not all looked at each time, but when another thing is
    refused, and those that have lost their overrides when routes change."""
    refused: list[tuple[str, Refusal]] = []
    publisher: Any = SimpleNamespace(
        refusals=lambda namespace: list(refused), has_overrides=lambda key: key != WEB, rerouted=()
    )
    manager: Any = SimpleNamespace(client=None, cache=None, clock=None, recorder=None)
    options: Any = None
    controller = RoutingController(manager, world(), publisher, options, options)
    assert controller._concerned(NAMESPACE) == []
    publisher.rerouted = ("Sandbox n/a",)
    assert controller._concerned(NAMESPACE) == [WEB]
    publisher.rerouted = ()
    controller._waiting = {WEB, Key("elsewhere", "web")}
    assert controller._concerned(NAMESPACE) == [WEB]
    refused.append(("router", Refusal(ROUTES, "n/eta:80", "1", "bad")))
    assert set(controller._concerned(NAMESPACE)) == {ETA, WEB}
    assert controller._concerned(NAMESPACE) == [WEB]
    refused.clear()
    assert set(controller._concerned(NAMESPACE)) == {ETA, WEB}
