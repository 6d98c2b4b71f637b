"""The plan of each golden case is as written down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from sandlane.api.labels import PLAN
from sandlane.api.limits import Limits
from sandlane.kube.resource import Object
from sandlane.sandbox.plan import make_plan
from sandlane.world.world import World
from support import golden

CASES = golden.cases("sandbox")


def shown(obj: Object) -> Object:
    """An object without what is the same in all cases."""
    metadata = {key: value for key, value in obj["metadata"].items() if key != "ownerReferences"}
    metadata["annotations"] = {key: value for key, value in metadata.get("annotations", {}).items() if key != PLAN}
    if not metadata["annotations"]:
        del metadata["annotations"]
    return obj | {"metadata": metadata}


def first_sandbox(objects: list[Object]) -> str:
    """The Sandbox that a case is about."""
    return next(each["metadata"]["name"] for each in objects if each.get("kind") == "Sandbox")


def plan_of(objects: list[Object], name: str) -> dict[str, Any]:
    """The plan of a Sandbox, as it is written down."""
    limits = next((each["limits"] for each in objects if each.get("kind") == "Settings"), {})
    world = World.of(objects)
    sandbox = next(each for each in world.sandboxes if each.metadata.name == name)
    plan = make_plan(world, sandbox, msgspec.convert(limits, Limits))
    told: dict[str, Any] = {"objects": [shown(obj) for _, obj in plan.objects]}
    for field in ("refused", "exceeded"):
        problem = getattr(plan, field)
        if problem is not None:
            told[field] = msgspec.to_builtins(problem)
    for fork in plan.forks:
        facts: dict[str, Any] = {}
        if fork.problem is not None:
            facts["problem"] = msgspec.to_builtins(fork.problem)
        if fork.overrides:
            facts["services"] = [msgspec.to_builtins(each.status) for each in fork.overrides]
        told.setdefault("forks", {})[fork.reference.name] = facts
    superfluous = [f"{resource.kind} {key}" for resource, key in plan.superfluous(world, sandbox)]
    if superfluous:
        told["superfluous"] = superfluous
    return told


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_plan_is_as_written_down(case: Path, update_golden: bool) -> None:
    """The plan of the case's Sandbox is what its `out.yaml` says, and the same when it is made again."""
    objects = golden.read(case)
    name = first_sandbox(objects)
    first = plan_of(objects, name)
    assert plan_of(list(reversed(objects)), name) == first, "it depends on the order of objects"
    golden.check(case, first, update=update_golden)


def test_there_are_enough_cases() -> None:
    """The golden cases are found."""
    assert len(CASES) >= 80
