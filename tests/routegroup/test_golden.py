"""The status of a RouteGroup in each golden case is as written down."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sandlane.api.limits import Settings
from sandlane.kube.resource import Object
from sandlane.routegroup.plan import compile_group
from sandlane.routegroup.status import observe
from sandlane.routing.report import RouteReport
from sandlane.world.world import World
from support import golden

CASES = golden.cases("routegroup")
NOW = datetime(2026, 2, 1, tzinfo=UTC)


def status_of(objects: list[Object], name: str) -> dict[str, Any]:
    """The status that a group gets. A `Report` in the case is what the routers say, otherwise they serve everything."""
    told = next((each["report"] for each in objects if each.get("kind") == "Report"), {"programmed": True})
    settings = next((each["settings"] for each in objects if each.get("kind") == "Settings"), {})
    world = World.of(objects)
    group = next(each for each in world.route_groups if each.metadata.name == name)
    report = msgspec.convert(told, RouteReport) if told else None
    compiled = compile_group(world, group)
    status = observe(group, compiled, report, now=NOW, settings=msgspec.convert(settings, Settings))
    group = msgspec.structs.replace(group, status=status)
    again = observe(
        group,
        compile_group(world, group),
        report,
        now=NOW.replace(year=2027),
        settings=msgspec.convert(settings, Settings),
    )
    settled = msgspec.structs.replace(group, status=again)
    last = observe(settled, compiled, report, now=NOW.replace(year=2028), settings=msgspec.convert(settings, Settings))
    assert last == again, "a status that nothing changes must stay as it is"
    made: dict[str, Any] = msgspec.to_builtins(again)
    made["conditions"] = {
        each["type"]: " ".join(filter(None, (each["status"], each["reason"], each["message"])))
        for each in made["conditions"]
    }
    return made


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_status_is_as_written_down(case: Path, update_golden: bool) -> None:
    """The status of the case's first group is what its `out.yaml` says, whatever the order of objects."""
    objects = golden.read(case)
    name = next(each["metadata"]["name"] for each in objects if each.get("kind") == "RouteGroup")
    first = status_of(objects, name)
    assert status_of(list(reversed(objects)), name) == first, "it depends on the order of objects"
    golden.check(case, first, update=update_golden)


def test_there_are_enough_cases() -> None:
    """The golden cases are found."""
    assert len(CASES) >= 18
