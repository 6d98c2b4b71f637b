"""Warnings for legal but suspicious sandboxes, from what the world knows of their baselines. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sandlane.api.limits import Limits
from sandlane.api.types import EnvOverride, Fork, Local
from sandlane.kube.resource import Key, Object
from sandlane.kube.selectors import SelectorError, matches, selector_of
from sandlane.routing.build import not_routable
from sandlane.sandbox import copying, traffic
from sandlane.sandbox.plan import Plan, PlannedFork, make_plan
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
        spec = baseline.object()["spec"]["template"].get("spec") or {}
        warnings += _images(path, fork, spec)
        warnings += _env(path, fork, spec)
        warnings += _ignored(f"{path}.customizations.patch", fork)
        if planned.deployment is not None:
            warnings += _services(path, planned, baseline)
            warnings += _pods(world, path, planned, baseline, spec)
    warnings += _shared(world, sandbox)
    for index, local in enumerate(sandbox.spec.local):
        warnings += _local(world, sandbox, f"spec.local[{index}]", local)
    problem = (
        traffic.blocked(world, sandbox, plan) or traffic.barred(world, plan) or traffic.cut_off(world, sandbox, plan)
    )
    if problem is not None:
        warnings.append(f"spec.forks: {problem.message}")
    return plan, warnings


def _shared(world: World, sandbox: Sandbox) -> Iterator[str]:
    """Services that lead to several of the workloads that the sandbox replaces: one of them gets the requests."""
    namespace = sandbox.metadata.namespace
    replaced = [(f"spec.forks[{index}].forkOf", fork.fork_of) for index, fork in enumerate(sandbox.spec.forks)]
    replaced += [(f"spec.local[{index}].from", local.from_) for index, local in enumerate(sandbox.spec.local)]
    first: dict[str, str] = {}
    for path, reference in replaced:
        baseline = world.baseline(namespace, reference)
        for service in world.services_selecting(namespace, baseline.pod_labels) if baseline is not None else ():
            name = service.metadata.name
            if (other := first.setdefault(name, path)) != path:
                yield f"{path}: Service {name} leads to the workload of {other}, too, which gets its requests"


def _services(path: str, planned: PlannedFork, baseline: Deployment) -> Iterator[str]:
    """Requests that cannot reach the fork, and ports of it that nothing leads to."""
    if not planned.overrides:
        yield f"{path}: no Service selects {baseline.metadata.name}, so no request can be routed to the fork"
    for override in planned.overrides:
        name = override.service.metadata.name
        for port in override.missing:
            yield f"{path}: the fork does not serve port {port.port} of Service {name}"
        if why := not_routable(override.service):
            yield f"{path}: Service {name} cannot be routed by key: {why}"
    led_to = {(port.protocol, target) for override in planned.overrides for port, target in override.ports}
    known = {(port.protocol, port.container_port) for port in baseline.spec.template.spec.ports()}
    for added in planned.ports:
        names = {(added.protocol, added.container_port), (added.protocol, added.name)}
        if (added.protocol, added.container_port) not in known and not names & led_to:
            yield f"{path}.customizations.patch: no Service exposes container port {added.container_port}"


def _pods(world: World, path: str, planned: PlannedFork, baseline: Deployment, spec: Object) -> Iterator[str]:
    """What the fork's Pods and those of the baseline would share or take from each other."""
    name = baseline.metadata.name
    deployment: Object = planned.deployment or {}
    if _selects(baseline.object()["spec"].get("selector"), deployment["spec"]["template"]["metadata"]["labels"]):
        counted = "autoscalers and disruption budgets would count them"
        yield f"{path}: the fork's Pods match the selector of Deployment {name}: {counted} among the baseline's"
    if spec.get("hostNetwork"):
        yield f"{path}: {name} uses its node's network, so no Pod of the fork can run on the same node with the same ports"
    for volume in spec.get("volumes") or ():
        claimed = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        if claimed:
            claim = world.claims.get(Key(baseline.metadata.namespace, claimed))
            modes = (claim.spec.access_modes or ()) if claim is not None else ()
            if "ReadWriteOncePod" in modes:
                yield f"{path}: claim {claimed} allows one Pod at a time, which the baseline's has: the fork cannot start"
            else:
                yield f"{path}: the fork works on the baseline's own data: both mount claim {claimed}"


def _selects(selector: Any, labels: dict[str, str]) -> bool:
    try:
        parsed = selector_of(selector)
    except (SelectorError, KeyError):
        return False
    return bool(parsed) and matches(parsed or (), labels)


def _images(path: str, fork: Fork, spec: Object) -> Iterator[str]:
    """Images that are the baseline's already."""
    running = copying.containers(spec, init=False)
    for index, image in enumerate(fork.customizations.images):
        chosen = [each for each in copying.containers(spec) if each.get("name") == image.container]
        if any(each.get("image") == image.image for each in chosen if image.container) or (
            not image.container and len(running) == 1 and running[0].get("image") == image.image
        ):
            yield f"{path}.customizations.images[{index}]: the baseline runs {image.image} too: nothing changes"


IGNORED = {
    "/metadata/name": "its name is derived",
    "/metadata/namespace": "it is in the sandbox's namespace",
    "/metadata/ownerReferences": "the sandbox owns it",
    "/spec/selector": "its selector is its own",
    "/spec/paused": "it is never paused",
    "/spec/replicas": "customizations.replicas says how many Pods it has",
}
"""What a patch cannot change of a fork, and why."""


def _ignored(path: str, fork: Fork) -> Iterator[str]:
    """Fields that a patch sets in vain."""
    patch = fork.customizations.patch
    if patch is None:
        return
    for pointer, why in IGNORED.items():
        if patch.type == "json":
            operations = [each for each in patch.value if isinstance(each, dict) and each.get("op") != "test"]
            there = any(f"{each.get('path')}/".startswith(f"{pointer}/") for each in operations)
        else:
            part, field = pointer.strip("/").split("/")
            there = isinstance(patch.value.get(part), dict) and field in patch.value[part]
        if there:
            yield f"{path}: {pointer.strip('/').replace('/', '.')} does not count: {why}"


def _env(path: str, fork: Fork, spec: Object) -> Iterator[str]:
    """Variables whose override changes nothing."""
    containers = copying.containers(spec)
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
        elif entries and all(entry is not None and _same(entry, variable) for entry in entries):
            yield f"{where}: the baseline has the same value for {variable.name}: nothing changes"


def _same(entry: Object, variable: EnvOverride) -> bool:
    """Whether a variable has what an override gives it."""
    source = variable.value_from
    if source is None:
        return not entry.get("valueFrom") and entry.get("value", "") == variable.value
    given = {
        "secretKeyRef": source.secret_key_ref,
        "configMapKeyRef": source.config_map_key_ref,
        "fieldRef": source.field_ref,
    }
    wanted = {name: reference for name, reference in given.items() if reference is not None}
    has = {
        kind: {name: value for name, value in reference.items() if (name, value) != ("apiVersion", "v1")}
        for kind, reference in (entry.get("valueFrom") or {}).items()
    }
    return bool(wanted) and has == wanted


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
