"""The webhooks of our three kinds: defaults, rules, and whether the requester may run what is asked for.

The rules are those of `sandlane.api.validation` and of the planner, as the controllers apply them. Handlers run in the
webhook server's requests.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any, TypeVar

import msgspec

from sandlane.admission import access
from sandlane.admission.advice import advise
from sandlane.admission.hooks import DEFAULTING, TURNED_SERVICES, VALIDATING
from sandlane.admission.services import keep_turned
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
from sandlane.routing.groups import consents
from sandlane.runtime.admission_review import AdmissionRequest, Cause, Denied
from sandlane.runtime.webhook import WebhookServer
from sandlane.world.records import LocalWorkload, RouteGroup, Sandbox
from sandlane.world.world import World, decode

R = TypeVar("R", bound=Record)


class Admission:
    """Answers for all three kinds."""

    def __init__(self, client: Client, world: World, limits: Limits, watched: Collection[str] = ()) -> None:
        """`watched`: the only namespaces that the manager looks after; none: all."""
        self._client = client
        self._world = world
        self._limits = limits
        self._watched = watched

    def register(self, webhooks: WebhookServer) -> None:
        """Serve all handlers."""
        for hook in DEFAULTING.values():
            webhooks.add(hook, mutate=self.default)
        webhooks.add(TURNED_SERVICES, mutate=turned_service)
        webhooks.add(VALIDATING[SANDBOXES], validate=self.sandbox)
        webhooks.add(VALIDATING[ROUTE_GROUPS], validate=self.route_group)
        webhooks.add(VALIDATING[LOCAL_WORKLOADS], validate=self.local_workload)

    def default(self, obj: Object, request: AdmissionRequest) -> None:
        """Set what we set. Raises `Denied`: before the schema is checked, so that all errors are told at once."""
        set_defaults(obj, request)
        findings: dict[str, Callable[[AdmissionRequest], Findings]] = {
            SANDBOXES.kind: self._sandbox_findings,
            ROUTE_GROUPS.kind: self._route_group_findings,
            LOCAL_WORKLOADS.kind: self._local_workload_findings,
        }
        try:
            found = findings[obj["kind"]](request)
        except msgspec.ValidationError:
            return  # a value of a wrong type: the schema names all of them
        _refuse(obj["kind"], request, found)

    async def sandbox(self, request: AdmissionRequest) -> list[str]:
        """The rules of a Sandbox, and the rights of its requester; warnings. Raises `Denied`."""
        new, old = _checked(request, Sandbox)
        if _same(new, old):
            return []
        findings = self._sandbox_findings(request)
        _refuse("Sandbox", request, findings)
        plan, warnings = advise(self._world, new, self._limits)
        changed = old is None or old.spec.forks != new.spec.forks
        if changed:
            parts = (each.message.partition(": ") for each in plan.contradictions)
            errors = tuple(FieldError(path, what, "FieldValueNotFound") for path, _, what in parts)
            _refuse("Sandbox", request, Findings(errors))
        told, causes = [], []
        for problem in (plan.refused, plan.exceeded):
            if problem is not None and problem.reason != reasons.ROUTING_KEY_TAKEN:
                told.append(f"{problem.reason}: {reasons.explained(problem.reason, problem.message)}")
                causes.append(Cause(problem.message.partition(":")[0], problem.message))
        if changed:
            forbidden = await access.check(self._client, request, access.needed(new, plan))
            if forbidden:
                lacks = "; ".join(f"{cause.field}: {cause.message}" for cause in forbidden)
                told.append(f"a fork runs with what its requester may run: {lacks}")
                causes += forbidden
        if told:
            raise Denied("; ".join(told), causes=causes)
        return [*self._unwatched(request), *findings.warnings, *warnings]

    def route_group(self, request: AdmissionRequest) -> list[str]:
        """The rules of a RouteGroup; warnings. Raises `Denied`."""
        if _same(*_checked(request, RouteGroup)):
            return []
        findings = self._route_group_findings(request)
        _refuse("RouteGroup", request, findings)
        new = _records(request, RouteGroup)[0]
        return [*self._unwatched(request), *findings.warnings, *self._not_consenting(new)]

    def local_workload(self, request: AdmissionRequest) -> list[str]:
        """The rules of a LocalWorkload; warnings. Raises `Denied`."""
        new, old = _checked(request, LocalWorkload)
        if _same(new, old):
            return []
        findings = self._local_workload_findings(request)
        _refuse("LocalWorkload", request, findings)
        warnings = [*self._unwatched(request), *findings.warnings]
        if self._world.sandboxes.get(Key(request.key.namespace, new.spec.sandbox)) is None:
            warnings.append(f"spec.sandbox: Sandbox {new.spec.sandbox} does not exist yet")
        return warnings

    def _unwatched(self, request: AdmissionRequest) -> Iterator[str]:
        """A warning where nobody would follow the object."""
        namespace = request.key.namespace
        if self._watched and namespace not in self._watched:
            yield f"metadata.namespace: nothing is made in {namespace}: the manager looks after {', '.join(self._watched)} only"

    def _sandbox_findings(self, request: AdmissionRequest) -> Findings:
        new, old = _records(request, Sandbox)
        if _same(new, old):
            return Findings()
        name, namespace = request.key.name or new.metadata.name, request.key.namespace
        findings = check_sandbox(name, namespace, new.spec, self._limits)
        if old is not None:
            findings += check_sandbox_update(old.spec, new.spec)
        return findings + self._key(new)

    def _route_group_findings(self, request: AdmissionRequest) -> Findings:
        new, old = _records(request, RouteGroup)
        if _same(new, old):
            return Findings()
        findings = check_route_group(request.key.namespace, new.spec) + self._key(new)
        if old is not None:
            findings += check_route_group_update(old.spec, new.spec)
        return findings

    def _not_consenting(self, group: RouteGroup) -> Iterator[str]:
        """Warnings about namespaces whose sandboxes the group will not see yet."""
        for index, name in enumerate(group.spec.namespaces):
            if not consents(self._world, group, name):
                what = f"spec.namespaces[{index}]: Namespace {name} does not consent"
                yield reasons.explained(reasons.NAMESPACE_NOT_CONSENTED, what)

    def _local_workload_findings(self, request: AdmissionRequest) -> Findings:
        new, old = _records(request, LocalWorkload)
        if _same(new, old):
            return Findings()
        findings = check_local_workload(request.key.namespace, new.spec)
        if old is not None:
            findings += check_local_workload_update(old.spec, new.spec)
        return findings + self._baseline_free(request.key.namespace, new)

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
    """Our finalizer on new objects, and who asked for the forks: an annotation that nobody else can set.

    What a Sandbox controls (its LocalWorkloads) was asked for by whoever asked for the Sandbox, and has none.
    """
    metadata: Object = obj["metadata"]
    owners = [each["kind"] for each in metadata.get("ownerReferences") or () if each.get("controller")]
    if obj["kind"] == LOCAL_WORKLOADS.kind and SANDBOXES.kind in owners:
        _annotate(metadata, None)
        return
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


def turned_service(obj: Object, request: AdmissionRequest) -> Object | None:
    """An update of a turned Service goes into what was saved of it."""
    return keep_turned(obj, request.old) if request.old is not None else None


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


def _checked(request: AdmissionRequest, record_type: type[R]) -> tuple[R, R | None]:
    """The new and the old object. Raises `Denied` when the new one is not of the kind at all."""
    try:
        return _records(request, record_type)
    except msgspec.ValidationError as error:
        raise Denied(str(error), reason="Invalid", code=422) from error


def _records(request: AdmissionRequest, record_type: type[R]) -> tuple[R, R | None]:
    """The new and the old object. Raises `msgspec.ValidationError` when the new one is not of the kind at all."""
    new = decode(record_type, msgspec.json.encode(_named(request.object or {}, request)))
    if request.old is None:
        return new, None
    try:
        return new, decode(record_type, msgspec.json.encode(request.old))
    except msgspec.ValidationError:
        return new, None  # written past the schema: everything is checked


def _same(new: Any, old: Any) -> bool:
    """Whether there is nothing to check: the spec does not change, or nothing comes of it any more."""
    return old is not None and (old.spec == new.spec or new.metadata.deleting)


def _named(obj: Object, request: AdmissionRequest) -> Object:
    return obj | {"metadata": {"namespace": request.key.namespace} | obj.get("metadata", {})}


def _refuse(kind: str, request: AdmissionRequest, findings: Findings) -> None:
    """Raises `Denied` with all errors at once, if there are any."""
    if not findings.errors:
        return
    causes = [Cause(error.path, error.message, error.kind) for error in findings.errors]
    told = f'{kind}.sandlane.dev "{request.key.name}" is invalid: {findings.message}'
    about = {"group": SANDBOXES.group, "kind": kind, "name": request.key.name}
    raise Denied(told, reason="Invalid", code=422, causes=causes, about=about)
