"""Warnings for legal but suspicious sandboxes, from what the world knows of their baselines. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from sandlane.api.limits import Limits
from sandlane.api.types import Fork, Local
from sandlane.sandbox import copying
from sandlane.sandbox.plan import Plan, make_plan
from sandlane.world.records import Deployment, Sandbox
from sandlane.world.world import World


def advise(world: World, sandbox: Sandbox, limits: Limits) -> tuple[Plan, list[str]]:
    """The plan as it would be now, and what the user should look at again."""
    plan = make_plan(world, sandbox, limits)
    warnings: list[str] = []
    for index, (fork, planned) in enumerate(zip(sandbox.spec.forks, plan.forks, strict=True)):
        if planned.problem is not None:
            warnings.append(planned.problem.message)
        baseline = planned.baseline
        if baseline is None:
            continue
        path = f"spec.forks[{index}]"
        warnings += _env(path, fork, baseline)
        if planned.problem is None and not planned.overrides:
            text = f"{path}: no Service selects {baseline.metadata.name}, so no request can be routed to the fork"
            warnings.append(text)
        for override in planned.overrides:
            for port in override.missing:
                name = override.service.metadata.name
                warnings.append(f"{path}: the fork does not serve port {port.port} of Service {name}")
    for index, local in enumerate(sandbox.spec.local):
        warnings += _local(world, sandbox, f"spec.local[{index}]", local)
    return plan, warnings


def _env(path: str, fork: Fork, baseline: Deployment) -> Iterator[str]:
    """Variables whose override changes nothing."""
    if not fork.customizations.env:
        return
    containers = copying.containers(baseline.object()["spec"]["template"].get("spec") or {})
    for index, variable in enumerate(fork.customizations.env):
        chosen = [each for each in containers if variable.container in ("", each.get("name"))]
        entries = [
            next((entry for entry in each.get("env") or () if entry.get("name") == variable.name), None)
            for each in chosen
        ]
        where = f"{path}.customizations.env[{index}]"
        if variable.operation == "delete":
            if chosen and not any(entries):
                yield f"{where}: the baseline has no variable {variable.name} to delete"
        elif variable.value is not None and entries:
            same = {"name": variable.name, "value": variable.value}
            plain = {"name": variable.name}
            if all(entry == same or (entry == plain and not variable.value) for entry in entries):
                yield f"{where}: the baseline has the same value for {variable.name}: nothing changes"


def _local(world: World, sandbox: Sandbox, path: str, local: Local) -> Iterator[str]:
    """Ports of a laptop that no Service leads to."""
    namespace = sandbox.metadata.namespace
    baseline = world.baseline(namespace, local.from_)
    if baseline is None:
        yield f"{path}.from: {local.from_.kind} {namespace}/{local.from_.name} does not exist"
        return
    declared = {port.name: port.container_port for port in baseline.spec.template.spec.ports() if port.name}
    exposed: set[int | str | None] = {
        declared.get(port.target) if isinstance(port.target, str) else port.target
        for service in world.services_selecting(namespace, baseline.pod_labels)
        for port in service.spec.ports
    }
    for index, mapping in enumerate(local.mappings):
        if mapping.port not in exposed:
            yield f"{path}.mappings[{index}].port: no Service leads to container port {mapping.port}"
