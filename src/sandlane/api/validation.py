"""The rules of the three kinds as pure functions: all errors at once, with exact field paths, and warnings.

The same rules serve the webhooks and the controllers, which cannot rely on webhooks being installed. What CEL and the
schema can say is in the CRDs too; here it is said again for objects that were written past them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from sandlane.api import fields
from sandlane.api.limits import MAX_SANDBOX_NAME, Limits
from sandlane.api.ttl import parse_duration
from sandlane.api.types import (
    Endpoint,
    EnvOverride,
    Fork,
    ForkValue,
    LocalWorkloadSpec,
    Match,
    PortMapping,
    RouteGroupSpec,
    SandboxSpec,
    Ttl,
    WorkloadReference,
)

RESERVED_ENV = ("SANDLANE_SANDBOX", "SANDLANE_ROUTING_KEY", "SANDLANE_BASELINE")
NESTED_MATCHES = 3
_RE2_UNKNOWN = re.compile(r"\(\?(?:[=!]|<[=!]|P=|\(|>)|\\[1-9]|[*+?}]\+")


class FieldError(msgspec.Struct, frozen=True):
    """A broken rule: where, and what is wrong there."""

    path: str
    message: str
    kind: str = "FieldValueInvalid"  # a `metav1.CauseType`

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class Findings(msgspec.Struct, frozen=True):
    """What a check found. Without errors the object is legal."""

    errors: tuple[FieldError, ...] = ()
    warnings: tuple[str, ...] = ()

    def __add__(self, other: Findings) -> Findings:
        return Findings(self.errors + other.errors, self.warnings + other.warnings)

    @property
    def message(self) -> str:
        """All errors in one sentence."""
        return "; ".join(map(str, self.errors))


def check_sandbox(name: str, namespace: str, spec: SandboxSpec, limits: Limits | None = None) -> Findings:
    """The rules of a Sandbox that can be checked without looking at the cluster."""
    errors: list[FieldError] = []
    warnings: list[str] = []
    if len(name) > MAX_SANDBOX_NAME:
        problem = f"must have no more than {MAX_SANDBOX_NAME} characters"
        errors.append(FieldError("metadata.name", problem, "FieldValueTooLong"))
    errors += _key(spec.routing_key)
    errors += _ttl(spec.ttl, ("creation", "lastUpdate"))
    if limits and limits.forks_per_sandbox and len(spec.forks) > limits.forks_per_sandbox:
        problem = f"must have at most {limits.forks_per_sandbox} items"
        errors.append(FieldError("spec.forks", problem, "FieldValueTooMany"))
    replaced: dict[tuple[str, str], str] = {}
    for index, fork in enumerate(spec.forks):
        path = f"spec.forks[{index}]"
        errors += _reference(f"{path}.forkOf", fork.fork_of, namespace)
        errors += _once(replaced, f"{path}.forkOf", fork.fork_of)
        errors += _fork(path, fork, spec)
        warnings += _fork_warnings(path, fork)
    names: set[str] = set()
    for index, local in enumerate(spec.local):
        path = f"spec.local[{index}]"
        if local.name in names:
            errors.append(FieldError(f"{path}.name", f"duplicate value {local.name!r}", "FieldValueDuplicate"))
        names.add(local.name)
        errors += _pattern(f"{path}.name", local.name, fields.DNS_LABEL, "must be a lower-case DNS label")
        errors += _reference(f"{path}.from", local.from_, namespace)
        errors += _once(replaced, f"{path}.from", local.from_)
        errors += _mappings(path, local.mappings)
        errors += _hold(path, local.hold_seconds)
    if spec.default_route_group:
        errors += _endpoints("spec.defaultRouteGroup.endpoints", spec.default_route_group.endpoints)
    if not spec.forks and not spec.local:
        warnings.append("spec: no forks and no local workloads: the routing key leads to the baseline everywhere")
    return Findings(tuple(errors), tuple(warnings))


def check_sandbox_update(old: SandboxSpec, new: SandboxSpec) -> Findings:
    """What may not change in a Sandbox."""
    errors = list(_fixed("spec.routingKey", old.routing_key, new.routing_key, "make another sandbox"))
    before = [_identity(fork.fork_of) for fork in old.forks]
    after = [_identity(fork.fork_of) for fork in new.forks]
    if len(before) == len(after):
        for index, identity in enumerate(after):
            if identity not in before:
                problem = "cannot be changed: remove the fork, then add another one"
                errors.append(FieldError(f"spec.forks[{index}].forkOf", problem))
    sources = {local.name: local.from_ for local in old.local}
    for index, local in enumerate(new.local):
        errors += _fixed(f"spec.local[{index}].from", sources.get(local.name, local.from_), local.from_, "add another")
    return Findings(tuple(errors))


def check_route_group(namespace: str, spec: RouteGroupSpec) -> Findings:
    """The rules of a RouteGroup."""
    errors = [*_key(spec.routing_key), *_ttl(spec.ttl, ("creation", "lastUpdate", "noMatchedSandboxes"))]
    errors += _match("spec.match", spec.match, NESTED_MATCHES)
    errors += _endpoints("spec.endpoints", spec.endpoints)
    for index, name in enumerate(spec.namespaces):
        path = f"spec.namespaces[{index}]"
        errors += _pattern(path, name, fields.DNS_LABEL, "must be the name of a namespace")
        if name in spec.namespaces[:index]:
            errors.append(FieldError(path, f"duplicate value {name!r}", "FieldValueDuplicate"))
    warnings = []
    if spec.namespaces and namespace not in spec.namespaces:
        warnings.append(f"spec.namespaces: the group's own namespace {namespace!r} is not among them")
    return Findings(tuple(errors), tuple(warnings))


def check_route_group_update(old: RouteGroupSpec, new: RouteGroupSpec) -> Findings:
    """What may not change in a RouteGroup."""
    return Findings(tuple(_fixed("spec.routingKey", old.routing_key, new.routing_key, "make another group")))


def check_local_workload(namespace: str, spec: LocalWorkloadSpec) -> Findings:
    """The rules of a LocalWorkload that can be checked without looking at the cluster."""
    errors = [*_reference("spec.from", spec.from_, namespace), *_mappings("spec", spec.mappings)]
    if not spec.sandbox:
        errors.append(FieldError("spec.sandbox", "a sandbox is needed", "FieldValueRequired"))
    errors += _hold("spec", spec.hold_seconds)
    return Findings(tuple(errors))


def check_local_workload_update(old: LocalWorkloadSpec, new: LocalWorkloadSpec) -> Findings:
    """What may not change in a LocalWorkload."""
    step = "make another local workload"
    return Findings(
        (*_fixed("spec.sandbox", old.sandbox, new.sandbox, step), *_fixed("spec.from", old.from_, new.from_, step))
    )


# -- parts --------------------------------------------------------------------------------------------------


def _identity(reference: WorkloadReference) -> tuple[str, str]:
    return reference.kind, reference.name


def _once(replaced: dict[tuple[str, str], str], path: str, reference: WorkloadReference) -> Iterator[FieldError]:
    first = replaced.setdefault(_identity(reference), path)
    if first != path:
        problem = f"{reference.kind} {reference.name} is replaced by {first} already"
        yield FieldError(path, problem, "FieldValueDuplicate")


def _reference(path: str, reference: WorkloadReference, namespace: str) -> Iterator[FieldError]:
    if reference.kind != "Deployment":
        problem = f"unsupported value {reference.kind!r}: Deployment is supported"
        yield FieldError(f"{path}.kind", problem, "FieldValueNotSupported")
    if reference.api_group != "apps":
        problem = f"unsupported value {reference.api_group!r}: apps is supported"
        yield FieldError(f"{path}.apiGroup", problem, "FieldValueNotSupported")
    if reference.namespace not in ("", namespace):
        yield FieldError(f"{path}.namespace", f"only the object's own namespace {namespace!r} is accepted")
    yield from _pattern(f"{path}.name", reference.name, fields.DNS_SUBDOMAIN, "must be the name of a workload")


def _fork(path: str, fork: Fork, spec: SandboxSpec) -> Iterator[FieldError]:
    custom = fork.customizations
    containers: set[str] = set()
    for index, image in enumerate(custom.images):
        if image.container in containers:
            where = f"{path}.customizations.images[{index}].container"
            yield FieldError(where, f"duplicate value {image.container!r}", "FieldValueDuplicate")
        containers.add(image.container)
    variables: set[tuple[str, str]] = set()
    for index, variable in enumerate(custom.env):
        where = f"{path}.customizations.env[{index}]"
        yield from _variable(where, variable, spec)
        if (variable.name, variable.container) in variables:
            yield FieldError(f"{where}.name", f"duplicate value {variable.name!r}", "FieldValueDuplicate")
        variables.add((variable.name, variable.container))
    if custom.patch:
        where, value = f"{path}.customizations.patch", custom.patch.value
        wanted: type = list if custom.patch.type == "json" else dict
        if custom.patch.type not in ("strategic", "merge", "json"):
            problem = f"unsupported value {custom.patch.type!r}: strategic, merge, json are supported"
            yield FieldError(f"{where}.type", problem, "FieldValueNotSupported")
        elif not isinstance(value, wanted):
            kind = "a list of operations" if wanted is list else "an object"
            yield FieldError(f"{where}.value", f"a patch of type {custom.patch.type} is {kind}")
    if custom.replicas < 0:
        yield FieldError(f"{path}.customizations.replicas", "must be zero or more")
    for index, label_pattern in enumerate(fork.preserved_labels):
        where = f"{path}.preservedLabels[{index}]"
        if (wrong := pattern_problem(label_pattern)) is not None:
            yield FieldError(where, wrong)
    yield from _resources(f"{path}.resources", fork.resources or {})


def pattern_problem(pattern: str) -> str | None:
    """Why a text is no RE2 pattern, or None."""
    if _RE2_UNKNOWN.search(pattern):
        return "look-around, back references and possessive repeats are not part of RE2"
    try:
        re.compile(pattern, re.ASCII)
    except (re.error, OverflowError, RecursionError) as error:
        return f"not a regular expression: {error}"
    return None


def _variable(path: str, variable: EnvOverride, spec: SandboxSpec) -> Iterator[FieldError]:
    if not variable.name or "=" in variable.name:
        yield FieldError(f"{path}.name", "must be a name without =")
    if variable.name in RESERVED_ENV:
        yield FieldError(f"{path}.name", f"{variable.name} is set for every fork by itself", "FieldValueForbidden")
    source = variable.value_from
    given = (variable.value is not None) + (source is not None)
    if variable.operation == "delete":
        if given:
            yield FieldError(path, "delete takes neither value nor valueFrom", "FieldValueForbidden")
        return
    if variable.operation != "upsert":
        problem = f"unsupported value {variable.operation!r}: upsert, delete are supported"
        yield FieldError(f"{path}.operation", problem, "FieldValueNotSupported")
    if given != 1:
        kind = "FieldValueRequired" if not given else "FieldValueForbidden"
        yield FieldError(path, "upsert needs exactly one of value and valueFrom", kind)
    if source is None:
        return
    sources = [source.secret_key_ref, source.config_map_key_ref, source.field_ref, source.fork]
    if sum(each is not None for each in sources) != 1:
        problem = "exactly one of secretKeyRef, configMapKeyRef, fieldRef, fork is needed"
        yield FieldError(f"{path}.valueFrom", problem)
    if source.fork is not None:
        yield from _fork_value(f"{path}.valueFrom.fork", source.fork, spec)


def _fork_value(path: str, value: ForkValue, spec: SandboxSpec) -> Iterator[FieldError]:
    if value.field not in ("host", "port", "address"):
        problem = f"unsupported value {value.field!r}: host, port, address are supported"
        yield FieldError(f"{path}.field", problem, "FieldValueNotSupported")
    if _identity(value.fork_of) not in [_identity(fork.fork_of) for fork in spec.forks]:
        problem = f"this sandbox does not fork {value.fork_of.kind} {value.fork_of.name}"
        yield FieldError(f"{path}.forkOf", problem, "FieldValueNotFound")


def _resources(path: str, resources: dict[str, dict[str, str | int]]) -> Iterator[FieldError]:
    quantity = re.compile(fields.QUANTITIES["additionalProperties"]["pattern"])
    for kind, amounts in resources.items():
        if kind not in ("limits", "requests"):
            yield FieldError(f"{path}.{kind}", "limits and requests are supported", "FieldValueNotSupported")
            continue
        for name, amount in amounts.items():
            if not quantity.fullmatch(str(amount)):
                yield FieldError(f"{path}.{kind}[{name}]", f"{amount!r} is not a quantity")


def _fork_warnings(path: str, fork: Fork) -> Iterator[str]:
    if fork.customizations.replicas == 0:
        yield f"{path}.customizations.replicas: 0: the fork never becomes ready, so its requests stay on the baseline"


def _mappings(path: str, mappings: Iterable[PortMapping]) -> Iterator[FieldError]:
    ports: set[int] = set()
    for index, mapping in enumerate(mappings):
        where = f"{path}.mappings[{index}]"
        if not 1 <= mapping.port <= 65535:
            yield FieldError(f"{where}.port", "must be between 1 and 65535")
        if mapping.port in ports:
            yield FieldError(f"{where}.port", f"duplicate value {mapping.port}", "FieldValueDuplicate")
        ports.add(mapping.port)
        if not re.fullmatch(fields.LOCAL_ADDRESS, mapping.to) or not _is_port(mapping.to.rpartition(":")[2]):
            yield FieldError(f"{where}.to", f"{mapping.to!r} is not HOST:PORT")
    if not ports:
        yield FieldError(f"{path}.mappings", "at least one port is needed", "FieldValueRequired")


def _hold(path: str, seconds: int) -> Iterator[FieldError]:
    if not 1 <= seconds <= 300:
        yield FieldError(f"{path}.holdSeconds", "must be between 1 and 300")


def _endpoints(path: str, endpoints: Iterable[Endpoint]) -> Iterator[FieldError]:
    names: set[str] = set()
    for index, endpoint in enumerate(endpoints):
        where = f"{path}[{index}]"
        if not re.fullmatch(fields.ENDPOINT_NAME, endpoint.name) or "--" in endpoint.name:
            yield FieldError(f"{where}.name", "must be at most 20 lower-case letters, digits and single hyphens")
        if endpoint.name in names:
            yield FieldError(f"{where}.name", f"duplicate value {endpoint.name!r}", "FieldValueDuplicate")
        names.add(endpoint.name)
        if not re.fullmatch(fields.ENDPOINT_TARGET, endpoint.target) or not _is_port(
            endpoint.target.rpartition(":")[2]
        ):
            yield FieldError(f"{where}.target", f"{endpoint.target!r} is not http://SERVICE[.NAMESPACE]:PORT")


def _match(path: str, match: Match, depth: int) -> Iterator[FieldError]:
    given = [name for name in ("any", "all", "label") if getattr(match, name) is not None]
    if len(given) != 1:
        yield FieldError(path, f"exactly one of any, all, label is needed, {' and '.join(given) or 'none'} given")
    if match.label is not None and not re.fullmatch(fields.LABEL_KEY, match.label.key):
        yield FieldError(f"{path}.label.key", f"{match.label.key!r} is not the key of a label")
    for name in ("any", "all"):
        nested: tuple[Match, ...] | None = getattr(match, name)
        if nested is None:
            continue
        if depth <= 1:
            yield FieldError(f"{path}.{name}", f"matches nest at most {NESTED_MATCHES} levels deep")
            continue
        if not nested:
            yield FieldError(f"{path}.{name}", "at least one match is needed", "FieldValueRequired")
        for index, each in enumerate(nested):
            yield from _match(f"{path}.{name}[{index}]", each, depth - 1)


def _ttl(ttl: Ttl | None, since: tuple[str, ...]) -> Iterator[FieldError]:
    if ttl is None:
        return
    try:
        parse_duration(ttl.duration)
    except ValueError as error:
        yield FieldError("spec.ttl.duration", str(error))
    if ttl.from_ not in since:
        problem = f"unsupported value {ttl.from_!r}: {', '.join(since)} are supported"
        yield FieldError("spec.ttl.from", problem, "FieldValueNotSupported")


def _key(key: str) -> Iterator[FieldError]:
    if not re.fullmatch(fields.ROUTING_KEY, key):
        yield FieldError("spec.routingKey", "must be at most 40 lower-case letters, digits and hyphens")


def _pattern(path: str, value: str, pattern: str, problem: str) -> Iterator[FieldError]:
    if not re.fullmatch(pattern, value):
        yield FieldError(path, f"{value!r} {problem}")


def _fixed(path: str, old: Any, new: Any, step: str) -> Iterator[FieldError]:
    if old != new:
        yield FieldError(path, f"cannot be changed: {step}", "FieldValueInvalid")


def _is_port(text: str) -> bool:
    return 1 <= int(text) <= 65535
