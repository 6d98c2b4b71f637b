"""What is reported of a sandbox's routes when some of what it replaces cannot be routed by key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sandlane.kube.resource import Key
from sandlane.routing.build import build, overrides
from sandlane.routing.envoy.delta import ROUTES, Refusal
from sandlane.routing.report import RouteReport, RouteReports
from sandlane.routing.table import Door, Override
from sandlane.world.world import World
from support.routed import NAMESPACE, baseline, group, sandbox, service


class Served:
    """A publisher whose routers serve the table that the world asks for."""

    def __init__(self, world: World) -> None:
        self.table = build(world)
        self._overrides = overrides(world)
        self.late: list[str] = []
        self.obstacles: dict[str, str] = {}
        self.contested: dict[Key, str] = {}
        self.barred: dict[Key, str] = {}
        self.refused: list[tuple[str, Refusal]] = []

    def routes(self, key: str) -> dict[Door, Override]:
        found = {door: keys.get(key) for door, keys in self._overrides.items()}
        return {door: override for door, override in found.items() if override is not None}

    def held(self) -> dict[str, Any]:
        return {}

    def routers(self, namespace: str) -> list[str]:
        return ["router"]

    def behind(self, namespace: str) -> list[str]:
        return self.late

    def refusals(self, namespace: str) -> list[tuple[str, Refusal]]:
        return self.refused

    rerouted: frozenset[str] = frozenset()

    def subscribe(self, callback: Callable[[str], None]) -> None:
        self.tell = callback


def report(*objects: dict[str, Any]) -> RouteReport:
    """The report of sandbox `a`."""
    world = World.of(objects)
    told = RouteReports(world, Served(world)).sandbox(Key(NAMESPACE, "a"))  # type: ignore[arg-type]
    assert told is not None
    return told


def replacing(*services: str) -> Any:
    """A sandbox whose fork stands in for these Services."""
    made = [{"from": name, "to": f"{name}-a", "ports": [{"port": 80, "name": "http"}]} for name in services]
    return sandbox("a", fork={"services": made})


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"clusterIP": "None"}, "headless"),
        ({"internalTrafficPolicy": "Local"}, "Local"),
        ({"externalTrafficPolicy": "Local", "type": "NodePort"}, "Local"),
        ({"selector": None}, "no selector"),
        ({"type": "ExternalName", "externalName": "x.test"}, "ExternalName"),
    ],
)
def test_what_cannot_be_routed_harms_nothing_else(spec: dict[str, Any], why: str) -> None:
    """The routes of the other Services are programmed, and the report says of which Service they are not, and why."""
    other = service("other", turned=False)
    other[0]["spec"] |= spec
    told = report(*baseline(), *other, *replacing("eta", "other"))
    assert told.programmed
    assert told.reason == "ServiceNotRoutable"
    assert told.message.startswith("Service other cannot be routed by key: ")
    assert why in told.message


def test_nothing_that_can_be_routed_is_no_success() -> None:
    """Where no Service of the sandbox can be routed, its routes are not programmed."""
    other = service("other", turned=False)
    other[0]["spec"]["clusterIP"] = "None"
    told = report(*other, *replacing("other"))
    assert not told.programmed
    assert told.reason == "ServiceNotRoutable"


@pytest.mark.parametrize("port", [{"name": "dns", "protocol": "UDP"}, {"name": "tcp-db"}, {"appProtocol": "tls"}])
def test_ports_without_a_key_are_named(port: dict[str, str]) -> None:
    """A port whose protocol carries no key is programmed as it can be, and said to stay on the baseline."""
    told = report(*baseline(port=port), *replacing("eta"))
    assert told.programmed
    assert told.reason == "ServiceNotRoutable"
    assert "port 80 of Service eta" in told.message
    assert "the baseline answers there" in told.message


def test_one_service_before_two_of_the_forks() -> None:
    """The first one has its requests, and the report, which is good, says that the other one has not."""
    obj = replacing("eta")
    other = {**obj[0]["status"]["forks"][0], "workload": "eta2-a"}
    other |= {"baseline": {**other["baseline"], "name": "eta2"}, "services": [{**other["services"][0], "to": "eta2-a"}]}
    obj[0]["status"]["forks"].append(other)
    obj[0]["spec"]["forks"].append({"forkOf": {"kind": "Deployment", "name": "eta2"}})
    told = report(*baseline(), *obj)
    assert (told.programmed, told.reason) == (True, "ServiceShared")
    assert told.message == "Service eta leads to eta2-a, too: its requests go to eta-a"


def test_routes_that_go_away_are_confirmed_too() -> None:
    """A group that matches nobody (any more) is programmed when the routers serve that, also after a restart that forgets."""
    world = World.of([*baseline(), *service("eta"), *sandbox("a"), group("g", team="nobody")])
    publisher = Served(world)
    reports = RouteReports(world, publisher)  # type: ignore[arg-type]
    publisher.late = ["router r does not serve the last change yet"]
    told = reports.route_group(Key(NAMESPACE, "g"))
    assert told is not None
    assert not told.programmed
    publisher.late = []
    told = reports.route_group(Key(NAMESPACE, "g"))
    assert told is not None
    assert told.programmed


def test_what_a_router_refuses_is_told_to_those_who_need_it() -> None:
    """The object whose route was refused is not programmed, with the router's words; others are."""
    world = World.of([*baseline(), *service("eta"), *sandbox("a"), group("g", team="nobody")])
    publisher = Served(world)
    publisher.refused = [("r-1", Refusal(ROUTES, f"{NAMESPACE}/eta:80", "v", "no such thing"))]
    reports = RouteReports(world, publisher)  # type: ignore[arg-type]
    told = reports.sandbox(Key(NAMESPACE, "a"))
    assert told is not None
    assert (told.programmed, told.reason) == (False, "RoutesRejected")
    assert told.message == f"router r-1 refuses {NAMESPACE}/eta:80: no such thing"
    other = reports.route_group(Key(NAMESPACE, "g"))
    assert other is not None
    assert other.programmed


def test_a_service_that_policies_keep_from_the_router_is_told() -> None:
    """A policy that the controller found in the way is the reason, in its words."""
    world = World.of([*baseline(), *replacing("eta")])
    publisher = Served(world)
    publisher.barred[Key(NAMESPACE, "eta")] = "NetworkPolicy p"
    told = RouteReports(world, publisher).sandbox(Key(NAMESPACE, "a"))  # type: ignore[arg-type]
    assert told is not None
    assert (told.programmed, told.reason, told.message) == (False, "PolicyBlocksTraffic", "NetworkPolicy p")


def test_an_answer_of_a_router_without_news_costs_nothing() -> None:
    """Who waits is looked at again when routers say something new, and only told when that changes their report."""
    world = World.of([*baseline(), *sandbox("a")])
    publisher = Served(world)
    publisher.late = ["router r does not serve the last change yet"]
    reports = RouteReports(world, publisher)  # type: ignore[arg-type]
    told: list[Key] = []
    reports.subscribe(lambda kind, key: told.append(key))
    waiting, asked = reports.sandbox(Key(NAMESPACE, "a")), []
    assert waiting is not None
    assert not waiting.programmed
    look = reports.sandbox
    reports.sandbox = lambda key: asked.append(key) or look(key)  # type: ignore[method-assign, func-returns-value]
    for _ in range(3):
        publisher.tell(NAMESPACE)
    assert (len(asked), told) == (1, [])
    publisher.late = []
    publisher.tell(NAMESPACE)
    assert (len(asked), told) == (2, [Key(NAMESPACE, "a")])
