"""Types of objects in the expressions of policies: faults that they show are warnings in a policy's status.

As the controller of kube-controller-manager does it:
https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/#type-checking.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from sandlane.kube.resource import Object
from sandlane.local.apiserver.admission.expressions import type_of
from sandlane.local.apiserver.admission.policies import POLICIES
from sandlane.local.apiserver.cel.program import compile_expression
from sandlane.local.apiserver.cel.scopes import of_policy
from sandlane.local.apiserver.cel.syntax import CompileError
from sandlane.local.apiserver.cel.types import Type
from sandlane.local.apiserver.crd.cel_types import whole_type
from sandlane.local.apiserver.registry import Registry
from sandlane.local.apiserver.resource_type import ResourceType, StorageKey
from sandlane.local.apiserver.status import StatusError
from sandlane.local.apiserver.store.objects import Event, ObjectStore
from sandlane.local.apiserver.writer import Write, Writer

MANAGER = "validatingadmissionpolicy-status-controller"
MOST_TYPES = 10


class TypeChecks:
    """Checks each policy once for each of its generations."""

    def __init__(self, store: ObjectStore, registry: Registry, writer: Writer) -> None:
        self._registry = registry
        self._writer = writer
        self.pending: set[str] = set()
        """Policies that were not checked yet."""
        store.on_write.append(self._written)
        for key, stored in store.list(POLICIES):
            self._note(key.name, stored.data)

    def _written(self, storage: StorageKey, event: Event) -> None:
        if storage == POLICIES and event.after is not None:
            self._note(event.key.name, event.after)

    def _note(self, name: str, data: bytes) -> None:
        policy = msgspec.json.decode(data)
        if policy["metadata"].get("generation", 0) > (policy.get("status") or {}).get("observedGeneration", 0):
            self.pending.add(name)

    async def run(self) -> None:
        """Check what was not checked, and say so in the status."""
        type_ = self._registry.by_storage(POLICIES)
        assert type_ is not None
        while self.pending:
            name = self.pending.pop()

            async def checked(policy: Object) -> Object:
                warnings = list(expression_warnings(policy, self._registry))
                found: Object = {"expressionWarnings": warnings} if warnings else {}
                seen = {"observedGeneration": policy["metadata"].get("generation", 0), "typeChecking": found}
                return policy | {"status": (policy.get("status") or {}) | seen}

            try:
                await self._writer.modify(Write(type_, "", name, "status", "update", MANAGER), checked)
            except StatusError as error:
                if error.reason != "NotFound":
                    raise


def expression_warnings(policy: Object, registry: Registry) -> Iterator[Object]:
    """`ExpressionWarning`s: which expression, and what is wrong with it for which kind."""
    spec = policy["spec"]
    params = _params(spec.get("paramKind"), registry)
    scopes: list[tuple[ResourceType, Any]] = []
    for type_ in _matched_types(spec, registry):
        assert type_.schema is not None
        of, named = whole_type(type_.schema), dict[str, Type]()
        for variable in spec.get("variables") or ():
            known = of_policy(params=params, variables=named, of=of)
            named[variable["name"]] = type_of(variable["expression"], known)
        scopes.append((type_, of_policy(params=params, variables=named, of=of)))
    for index, validation in enumerate(spec.get("validations") or ()):
        for field in ("expression", "messageExpression"):
            found = [_fault(validation[field], type_, known) for type_, known in scopes if validation.get(field)]
            if text := "\n".join(fault for fault in found if fault):
                yield {"fieldRef": f"spec.validations[{index}].{field}", "warning": text}


def _fault(expression: str, type_: ResourceType, known: Any) -> str:
    try:
        compile_expression(expression, known)
    except CompileError as error:
        resource = type_.resource
        kind = f"{resource.group}/{resource.version}, Kind={resource.kind}"
        return f"{kind}: {error}\n"
    return ""


def _params(kind: Object | None, registry: Registry) -> Type | bool:
    """The type of parameters; False where there are none, or nobody knows the kind."""
    type_ = registry.by_kind(kind.get("apiVersion", ""), kind.get("kind", "")) if kind else None
    return whole_type(type_.schema) if type_ is not None and type_.schema is not None else False


def _matched_types(spec: Object, registry: Registry) -> list[ResourceType]:
    """The types that a policy's rules name in full, without `*` and subresources; the first few."""
    found: dict[tuple[str, str, str], ResourceType] = {}
    for rule in (spec.get("matchConstraints") or {}).get("resourceRules") or ():
        groups, versions = sorted(rule.get("apiGroups") or ()), sorted(rule.get("apiVersions") or ())
        if "*" in (*groups, *versions):
            continue
        plurals = sorted(each for each in rule.get("resources") or () if not set("*/") & set(each))
        for group in groups:
            for version in versions:
                for plural in plurals:
                    type_ = registry.get(group, version, plural)
                    if type_ is not None and type_.schema is not None and len(found) < MOST_TYPES:
                        found[group, version, type_.resource.kind] = type_
    return [found[key] for key in sorted(found)]
