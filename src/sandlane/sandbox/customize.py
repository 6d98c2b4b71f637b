"""A fork's customizations, applied to the copy of the baseline: images, env, patch, resources. Pure, in place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import msgspec

from sandlane.api.limits import Limits
from sandlane.api.reasons import CONTAINER_NOT_FOUND, LIMIT_EXCEEDED, PATCH_FAILED
from sandlane.api.types import Customizations, EnvOverride, ForkValue, ImageOverride, Patch
from sandlane.kube.patch.errors import PatchError
from sandlane.kube.patch.json_patch import json_patch
from sandlane.kube.patch.merge_patch import merge_patch
from sandlane.kube.patch.strategic import strategic_merge_patch
from sandlane.kube.patch.workloads import DEPLOYMENT
from sandlane.kube.quantity import QuantityError, parse_quantity
from sandlane.kube.resource import Object
from sandlane.sandbox.copying import containers
from sandlane.sandbox.errors import PlanError

Resolve = Callable[[ForkValue, str], str]
"""The value of a `valueFrom.fork`; the second argument is the field's path, for the error."""


def check_containers(spec: Object, custom: Customizations, path: str) -> None:
    """Raises `PlanError` with all images and variables whose containers are not there."""
    images = ((each.container, f"{path}.images[{n}].container", True) for n, each in enumerate(custom.images))
    env = ((each.container, f"{path}.env[{n}].container", False) for n, each in enumerate(custom.env))
    problems = []
    for name, where, only_one in (*images, *env):
        try:
            _chosen(spec, name, where, only_one=only_one)
        except PlanError as error:
            problems.append(error.message)
    if problems:
        raise PlanError(CONTAINER_NOT_FOUND, "; ".join(problems))


def set_images(spec: Object, images: tuple[ImageOverride, ...], path: str) -> None:
    """Give containers other images. Raises `PlanError` for a container that is not there."""
    for index, image in enumerate(images):
        for container in _chosen(spec, image.container, f"{path}.images[{index}].container", only_one=True):
            container["image"] = image.image


def set_env(spec: Object, env: tuple[EnvOverride, ...], path: str, resolve: Resolve) -> None:
    """Set and delete environment variables. Raises `PlanError`."""
    for index, variable in enumerate(env):
        where = f"{path}.env[{index}]"
        entry = _entry(variable, where, resolve)
        for container in _chosen(spec, variable.container, f"{where}.container"):
            known: list[Object] = container.get("env") or []
            at = next((i for i, each in enumerate(known) if each.get("name") == variable.name), None)
            if entry is None:
                container["env"] = [each for each in known if each.get("name") != variable.name]
            elif at is None:
                container["env"] = [*known, dict(entry)]
            else:
                container["env"] = [*known[:at], dict(entry), *known[at + 1 :]]
            if not container["env"]:
                del container["env"]


def put_first(spec: Object, variables: Mapping[str, str]) -> None:
    """Give every container these variables, before its own, so that those can refer to them."""
    first = [{"name": name, "value": value} for name, value in variables.items()]
    for container in containers(spec):
        own = [each for each in container.get("env") or () if each.get("name") not in variables]
        container["env"] = [*(dict(each) for each in first), *own]


def apply_patch(deployment: Object, patch: Patch, path: str) -> Object:
    """The patched Deployment. Raises `PlanError`."""
    try:
        match patch.type:
            case "strategic":
                patched = strategic_merge_patch(deployment, patch.value, DEPLOYMENT)
            case "merge":
                patched = merge_patch(deployment, patch.value)
            case _:
                patched = json_patch(deployment, patch.value)
    except PatchError as error:
        raise PlanError(PATCH_FAILED, f"{path}.patch: {error}") from error
    problem = _shape_problem(patched)
    if problem:
        raise PlanError(PATCH_FAILED, f"{path}.patch: {problem}")
    result: Object = patched
    return result


def fill_resources(spec: Object, *levels: Mapping[str, Mapping[str, str | int]]) -> None:
    """Requests and limits for what containers leave unset; earlier levels go before later ones."""
    for container in containers(spec):
        resources: dict[str, dict[str, Any]] = container.get("resources") or {}
        for level in levels:
            for kind in ("limits", "requests"):
                for name, amount in level.get(kind, {}).items():
                    if _fits(resources, kind, name, amount):
                        resources.setdefault(kind, {}).setdefault(name, amount)
        if resources:
            container["resources"] = resources


def check_ceilings(spec: Object, limits: Limits, path: str) -> None:
    """Raises `PlanError` for a container that may request or use more than the manager's configuration allows."""
    for container in containers(spec):
        for kind in ("limits", "requests"):
            for name, amount in ((container.get("resources") or {}).get(kind) or {}).items():
                ceiling = limits.container_ceilings.get(name)
                if ceiling is not None and quantity(amount) > quantity(ceiling):
                    what = f"{path}: container {container.get('name')} has {kind}.{name} {amount}"
                    raise PlanError(LIMIT_EXCEEDED, f"{what}, more than {ceiling}")


def requests_of(spec: Object, replicas: int) -> dict[str, Fraction]:
    """What the Pods of a template request together, counted as the scheduler does.

    A limit alone counts as the request; sidecars run beside the containers, other init containers before them; what the
    Pod as a whole requests goes before all that.
    """
    running: dict[str, Fraction] = {}
    most: dict[str, Fraction] = {}
    for container in spec.get("initContainers") or ():
        sidecar = container.get("restartPolicy") == "Always"
        for name, amount in _requests(container).items():
            most[name] = max(most.get(name, Fraction()), running.get(name, Fraction()) + amount)
            if sidecar:
                running[name] = running.get(name, Fraction()) + amount
    for container in containers(spec, init=False):
        for name, amount in _requests(container).items():
            running[name] = running.get(name, Fraction()) + amount
    names = {*most, *running}
    total = {name: max(most.get(name, Fraction()), running.get(name, Fraction())) for name in names} | _requests(spec)
    return {name: amount * replicas for name, amount in total.items()}


def _requests(of: Object) -> dict[str, Fraction]:
    resources = of.get("resources") or {}
    amounts = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return {name: quantity(amount) for name, amount in amounts.items()}


def quantity(amount: Any) -> Fraction:
    """The value of a quantity; what is none counts as nothing (the API server refuses it)."""
    try:
        return parse_quantity(str(amount))
    except QuantityError:
        return Fraction()


def _fits(resources: Mapping[str, Mapping[str, Any]], kind: str, name: str, amount: Any) -> bool:
    """Whether filling in keeps requests <= limits."""
    if kind == "limits":
        requested = resources.get("requests", {}).get(name)
        return requested is None or quantity(requested) <= quantity(amount)
    limit = resources.get("limits", {}).get(name)
    return limit is None or quantity(amount) <= quantity(limit)


def _entry(variable: EnvOverride, path: str, resolve: Resolve) -> Object | None:
    if variable.operation == "delete":
        return None
    source = variable.value_from
    if source is None:
        return {"name": variable.name, "value": variable.value or ""}
    if source.fork is not None:
        return {"name": variable.name, "value": resolve(source.fork, f"{path}.valueFrom.fork")}
    given = {
        "secretKeyRef": source.secret_key_ref,
        "configMapKeyRef": source.config_map_key_ref,
        "fieldRef": source.field_ref,
    }
    return {"name": variable.name, "valueFrom": {name: ref for name, ref in given.items() if ref is not None}}


def _chosen(spec: Object, name: str, path: str, *, only_one: bool = False) -> list[Object]:
    """The containers that a customization means."""
    everyone = containers(spec)
    if name:
        found = [container for container in everyone if container.get("name") == name]
        if not found:
            names = ", ".join(container.get("name", "") for container in everyone)
            raise PlanError(CONTAINER_NOT_FOUND, f"{path}: no container {name!r}; there are {names}")
        return found
    if not only_one:
        return everyone
    running = containers(spec, init=False)
    if len(running) != 1:
        names = ", ".join(container.get("name", "") for container in running)
        raise PlanError(CONTAINER_NOT_FOUND, f"{path}: a name is needed, there are {names}")
    return running


class _Shape(msgspec.Struct):
    """The least that a Deployment must be for the planner to go on."""

    metadata: dict[str, Any]
    spec: dict[str, Any]


class _PodShape(msgspec.Struct, rename="camel"):
    containers: list[dict[str, Any]]
    init_containers: list[dict[str, Any]] | None = None
    volumes: list[dict[str, Any]] | None = None


class _MetaShape(msgspec.Struct):
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class _TemplateShape(msgspec.Struct):
    spec: _PodShape
    metadata: _MetaShape | None = None


def _shape_problem(patched: Any) -> str:
    """Why the result is not even shaped like a Deployment; the API server checks the rest."""
    try:
        shape = msgspec.convert(patched, _Shape)
        msgspec.convert(shape.spec.get("template"), _TemplateShape)
    except msgspec.ValidationError as error:
        return f"the result is no Deployment: {error}"
    return ""
