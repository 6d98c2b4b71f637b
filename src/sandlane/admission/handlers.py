"""The webhooks of our three kinds: defaults, rules, and whether the requester may run what is asked for.

The rules are those of `sandlane.api.validation` and of the planner, as the controllers apply them. Handlers run in the
webhook server's requests.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from sandlane.admission import access
from sandlane.admission.advice import advise
from sandlane.api import reasons
from sandlane.api.keys import routing_key
from sandlane.api.labels import REQUESTED_BY
from sandlane.api.limits import Limits
from sandlane.api.types import FINALIZER
from sandlane.api.validation import (
    FieldError,
    Findings,
    check_local_workload,
    check_local_workload_update,
    check_route_group,
    check_route_group_update,
    check_sandbox,
    check_sandbox_update,
)
from sandlane.kube.client import Client
from sandlane.kube.resource import LOCAL_WORKLOADS, ROUTE_GROUPS, SANDBOXES, Key, Object
from sandlane.kube.store import Record
from sandlane.runtime.admission_review import AdmissionRequest, Cause, Denied
from sandlane.runtime.webhook import WebhookServer
from sandlane.sandbox.plan import Problem
from sandlane.world.records import LocalWorkload, RouteGroup, Sandbox
from sandlane.world.world import World, decode

R = TypeVar("R", bound=Record)


class Admission:
    """Answers for all three kinds."""

    def __init__(self, client: Client, world: World, limits: Limits) -> None:
        self._client = client
        self._world = world
        self._limits = limits

    def register(self, webhooks: WebhookServer) -> None:
        """Serve all handlers."""
        for resource in (SANDBOXES, ROUTE_GROUPS, LOCAL_WORKLOADS):
            webhooks.default(resource, set_defaults)
        webhooks.validate(SANDBOXES, self.sandbox)
        webhooks.validate(ROUTE_GROUPS, self.route_group)
        webhooks.validate(LOCAL_WORKLOADS, self.local_workload)

    async def sandbox(self, request: AdmissionRequest) -> list[str]:
        """The rules of a Sandbox. Raises `Denied`."""
        new, old = _records(request, Sandbox)
        if old is not None and (old.spec == new.spec or new.metadata.deleting):
            return []
        name, namespace = request.key.name or new.metadata.name, request.key.namespace
        findings = check_sandbox(name, namespace, new.spec, self._limits)
        if old is not None:
            findings += check_sandbox_update(old.spec, new.spec)
        findings += self._key(new)
        _refuse("Sandbox", request, findings)
        plan, warnings = advise(self._world, new, self._limits)
        for problem in (plan.refused, plan.exceeded):
            if problem is not None and problem.reason != reasons.ROUTING_KEY_TAKEN:
                raise _refused(problem)
        if old is None or old.spec.forks != new.spec.forks:
            await access.check(self._client, request, access.needed(new, plan))
        return [*findings.warnings, *warnings]

    def route_group(self, request: AdmissionRequest) -> list[str]:
        """The rules of a RouteGroup. Raises `Denied`."""
        new, old = _records(request, RouteGroup)
        if old is not None and (old.spec == new.spec or new.metadata.deleting):
            return []
        findings = check_route_group(request.key.namespace, new.spec) + self._key(new)
        if old is not None:
            findings += check_route_group_update(old.spec, new.spec)
        _refuse("RouteGroup", request, findings)
        return list(findings.warnings)

    def local_workload(self, request: AdmissionRequest) -> list[str]:
        """The rules of a LocalWorkload. Raises `Denied`."""
        new, old = _records(request, LocalWorkload)
        if old is not None and (old.spec == new.spec or new.metadata.deleting):
            return []
        findings = check_local_workload(request.key.namespace, new.spec)
        if old is not None:
            findings += check_local_workload_update(old.spec, new.spec)
        findings += self._baseline_free(request.key.namespace, new)
        _refuse("LocalWorkload", request, findings)
        warnings = list(findings.warnings)
        if self._world.sandboxes.get(Key(request.key.namespace, new.spec.sandbox)) is None:
            warnings.append(f"spec.sandbox: Sandbox {new.spec.sandbox} does not exist yet")
        return warnings

    def _key(self, new: Sandbox | RouteGroup) -> Findings:
        """A routing key belongs to one object."""
        wanted = new.spec.routing_key
        if not wanted:
            return Findings()
        for holder in self._world.with_key(routing_key("", wanted)):
            same = type(holder) is type(new) and holder.metadata.key == new.metadata.key
            if not same:
                problem = f"{type(holder).__name__} {holder.metadata.key} has the key {wanted!r}"
                return Findings((FieldError("spec.routingKey", problem, "FieldValueDuplicate"),))
        return Findings()

    def _baseline_free(self, namespace: str, new: LocalWorkload) -> Findings:
        """A baseline is replaced once in a sandbox."""
        sandbox = self._world.sandboxes.get(Key(namespace, new.spec.sandbox))
        if sandbox is None:
            return Findings()
        name = new.spec.from_.name
        if any(fork.fork_of.name == name for fork in sandbox.spec.forks):
            problem = f"Sandbox {sandbox.metadata.name} forks {new.spec.from_.kind} {name} already"
            return Findings((FieldError("spec.from", problem, "FieldValueDuplicate"),))
        return Findings()


def set_defaults(obj: Object, request: AdmissionRequest) -> None:
    """Our finalizer on new objects, and who asked for the forks: an annotation that nobody else can set."""
    metadata: Object = obj["metadata"]
    if request.operation == "CREATE":
        finalizers = metadata.get("finalizers") or []
        if FINALIZER not in finalizers and obj["kind"] in (SANDBOXES.kind, ROUTE_GROUPS.kind):
            metadata["finalizers"] = [*finalizers, FINALIZER]
        _annotate(metadata, request.user)
        return
    old = request.old or {}
    if _runs(old) != _runs(obj):
        _annotate(metadata, request.user)
    else:
        _annotate(metadata, ((old.get("metadata") or {}).get("annotations") or {}).get(REQUESTED_BY))


def _runs(obj: Object) -> Any:
    """The part of a spec that makes something run."""
    spec = obj.get("spec") or {}
    return {name: spec.get(name) for name in ("forks", "local", "from", "mappings", "sandbox")}


def _annotate(metadata: Object, user: str | None) -> None:
    annotations = dict(metadata.get("annotations") or {})
    if user:
        annotations[REQUESTED_BY] = user
    else:
        annotations.pop(REQUESTED_BY, None)
    if annotations or "annotations" in metadata:
        metadata["annotations"] = annotations


def _records(request: AdmissionRequest, record_type: type[R]) -> tuple[R, R | None]:
    """The new and the old object. Raises `Denied` when the new one is not of the kind at all."""
    try:
        new = decode(record_type, msgspec.json.encode(_named(request.object or {}, request)))
    except msgspec.ValidationError as error:
        raise Denied(str(error), reason="Invalid", code=422) from error
    if request.old is None:
        return new, None
    try:
        return new, decode(record_type, msgspec.json.encode(request.old))
    except msgspec.ValidationError:
        return new, None  # written past the schema: everything is checked


def _named(obj: Object, request: AdmissionRequest) -> Object:
    return obj | {"metadata": {"namespace": request.key.namespace} | obj.get("metadata", {})}


def _refuse(kind: str, request: AdmissionRequest, findings: Findings) -> None:
    """Raises `Denied` with all errors at once, if there are any."""
    if not findings.errors:
        return
    causes = [Cause(error.path, error.message, error.kind) for error in findings.errors]
    told = f'{kind}.sandlane.dev "{request.key.name}" is invalid: {findings.message}'
    raise Denied(told, reason="Invalid", code=422, causes=causes)


def _refused(problem: Problem) -> Denied:
    path = problem.message.partition(":")[0]
    text = f"{problem.reason}: {reasons.explained(problem.reason, problem.message)}"
    return Denied(text, reason="Forbidden", causes=[Cause(path, problem.message)])
