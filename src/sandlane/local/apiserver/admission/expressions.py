"""CEL in admission: match conditions of webhooks, and the variables that policies see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sandlane.kube.resource import Object
from sandlane.local.apiserver.admission.attributes import Attributes, user_info
from sandlane.local.apiserver.crd.cel_rules import run


class ExpressionFailed(Exception):
    """An expression did not give an answer; the message says which and why."""


def evaluate(expression: str, scope: Mapping[str, Any]) -> Any:
    """The value of an expression. Raises `ExpressionFailed`."""
    try:
        return run(expression, scope)
    except Exception as error:  # the library raises many types for a value that does not fit an expression
        raise ExpressionFailed(f"expression '{expression}' resulted in error: {error}") from error


def scope_of(at: Attributes, namespace: Object | None = None) -> dict[str, Any]:
    """`object`, `oldObject`, `request` and `namespaceObject` for a write."""
    resource = at.type_.resource
    kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    named = {"group": resource.group, "version": resource.version, "resource": resource.plural}
    request = {
        "kind": kind,
        "resource": named,
        "subResource": at.write.subresource,
        "requestKind": kind,
        "requestResource": named,
        "requestSubResource": at.write.subresource,
        "name": at.name,
        "namespace": at.write.namespace,
        "operation": at.operation,
        "userInfo": user_info(at.write.user),
        "dryRun": at.write.dry_run,
        "options": at.options(),
    }
    return {"object": at.new, "oldObject": at.old, "request": request, "namespaceObject": namespace}


def conditions_hold(conditions: Iterable[Object], scope: Mapping[str, Any]) -> bool:
    """Whether all match conditions are true. Raises `ExpressionFailed` when none is false and one has no answer."""
    failed: ExpressionFailed | None = None
    for condition in conditions:
        try:
            if evaluate(condition["expression"], scope) is not True:
                return False
        except ExpressionFailed as error:
            failed = failed or error
    if failed is not None:
        raise failed
    return True
