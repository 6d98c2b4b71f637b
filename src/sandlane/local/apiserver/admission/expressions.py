"""CEL in admission: match conditions of webhooks, and the variables that policies see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sandlane.kube.resource import Object
from sandlane.local.apiserver.admission.attributes import Attributes, user_info
from sandlane.local.apiserver.auth.rbac import Attributes as Wanted
from sandlane.local.apiserver.auth.rbac import Rbac
from sandlane.local.apiserver.cel.authorizer import AUTHORIZER, RESOURCE_CHECK, Authorizer
from sandlane.local.apiserver.cel.program import compile_expression
from sandlane.local.apiserver.cel.scopes import CONDITIONS, Variables
from sandlane.local.apiserver.cel.syntax import CompileError
from sandlane.local.apiserver.cel.types import DYN, Type
from sandlane.local.apiserver.cel.values import EvaluationError


class ExpressionFailed(Exception):
    """An expression did not give an answer; the message says which and why."""


def evaluate(expression: str, scope: Mapping[str, Any], variables: Variables) -> Any:
    """The value of an expression. Raises `ExpressionFailed`."""
    try:
        return compile_expression(expression, variables).run(scope)
    except (EvaluationError, ValueError) as error:
        raise ExpressionFailed(f"expression '{expression}' resulted in error: {error}") from error


def type_of(expression: str, variables: Variables) -> Type:
    """The type of what an expression gives; dyn where it cannot be told."""
    try:
        return compile_expression(expression, variables).type
    except CompileError:
        return DYN


def authorizer_of(at: Attributes, rbac: Rbac) -> Authorizer:
    """Asks for the rights of whoever writes."""
    user, write = at.write.user, at.write

    def decide(name: str, groups: tuple[str, ...], asked: dict[str, str]) -> str | None:
        asked = {key: value for key, value in asked.items() if not key.endswith("Selector")}
        return rbac.allowed(name, groups, Wanted(**asked))

    resource = at.type_.resource
    made = Authorizer(AUTHORIZER.name, decide, user.name, tuple(user.groups))
    here = {"group": resource.group, "resource": resource.plural, "subresource": write.subresource}
    here |= {"namespace": write.namespace, "name": at.name}
    made.fields["requestResource"] = made.of(RESOURCE_CHECK.name, **here)
    return made


def scope_of(at: Attributes, rbac: Rbac, namespace: Object | None = None) -> dict[str, Any]:
    """`object`, `oldObject`, `request`, `authorizer` and `namespaceObject` for a write."""
    resource = at.type_.resource
    kind = at.kind
    named = {"group": resource.group, "version": resource.version, "resource": resource.plural}
    request = {
        "kind": kind,
        "resource": named,
        "subResource": at.write.subresource,
        "requestKind": kind,
        "requestResource": named,
        "requestSubResource": at.write.subresource,
        "name": at.name,
        "namespace": at.namespace,
        "operation": at.operation,
        "userInfo": user_info(at.write.user),
        "dryRun": at.write.dry_run,
        "options": at.options(),
    }
    asked = authorizer_of(at, rbac)
    objects = {"object": at.new, "oldObject": at.old, "namespaceObject": namespace}
    return {**objects, "request": request, "authorizer": asked}


def conditions_hold(conditions: Iterable[Object], scope: Mapping[str, Any], variables: Variables = CONDITIONS) -> bool:
    """Whether all match conditions are true. Raises `ExpressionFailed` when none is false and one has no answer."""
    failed: ExpressionFailed | None = None
    for condition in conditions:
        try:
            if evaluate(condition["expression"], scope, variables) is not True:
                return False
        except ExpressionFailed as error:
            failed = failed or error
    if failed is not None:
        raise failed
    return True
