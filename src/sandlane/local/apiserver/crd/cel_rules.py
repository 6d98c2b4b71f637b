"""`x-kubernetes-validations`: CEL rules of custom resources, compiled once, run with a budget. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import structlog

from sandlane.kube.patch.values import equal_json
from sandlane.local.apiserver.cel.frame import Budget, TooExpensive
from sandlane.local.apiserver.cel.program import Program, compile_expression
from sandlane.local.apiserver.cel.types import Type, optional_of
from sandlane.local.apiserver.cel.values import NONE, EvaluationError, Optional
from sandlane.local.apiserver.crd.cel_types import type_of, value_of
from sandlane.local.apiserver.kinds.field_errors import OMITTED, FieldError
from sandlane.local.apiserver.schema import Schema

log = structlog.get_logger(__name__)

STEPS_OF_AN_OBJECT = 5_000_000
"""Steps that all rules of one object may take together."""
MAX_MESSAGE = 5 * 1024
_STEP = re.compile(r"\.([A-Za-z_][\w-]*)|\['((?:[^'\\]|\\.)*)'\]")
REASONS = ("FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired", "FieldValueDuplicate")


def compiled(expression: str, schema: Schema, *, optional_old: bool = False) -> Program:
    """An expression about values of a schema. Raises `CompileError`."""
    own = type_of(schema)
    variables: tuple[tuple[str, Type], ...] = (("self", own),)
    if "oldSelf" in expression:
        variables += (("oldSelf", optional_of(own) if optional_old else own),)
    return compile_expression(expression, variables)


def rules_of(schema: Schema) -> list[Mapping[str, Any]]:
    """The rules of one node."""
    return list(schema.raw.get("x-kubernetes-validations") or ())


def is_transition(rule: Mapping[str, Any]) -> bool:
    """Whether a rule compares with the old value."""
    return "oldSelf" in rule["rule"]


def has_rules(schema: Schema) -> bool:
    """Whether a node or anything below it has rules (cached on the node)."""
    known = schema.__dict__.get("_has_rules")
    if known is None:
        children = [*schema.properties.values(), schema.items, schema.additional]
        raw = schema.raw
        known = bool(raw.get("x-kubernetes-validations")) or any(
            child is not None and "$ref" not in child.raw and child.raw is not raw and has_rules(child)
            for child in children
            if child is not None and not str(child.raw.get("description", "")).startswith("ObjectMeta is")
        )
        schema.__dict__["_has_rules"] = known
    return bool(known)


def check(
    value: Any,
    schema: Schema,
    path: str,
    errors: list[FieldError],
    old: Any,
    updating: bool,
    budget: Budget | None = None,
) -> None:
    """Run the rules of a value and of everything in it, until the budget of the object is used up."""
    if value is None or not has_rules(schema):
        return
    budget = budget or Budget(STEPS_OF_AN_OBJECT)
    unchanged = updating and old is not None and equal_json(value, old)
    for rule in rules_of(schema):
        if is_transition(rule) and not rule.get("optionalOldSelf") and (not updating or old is None):
            continue
        if unchanged and not is_transition(rule):
            continue  # ratcheting: what was stored stays good
        if budget.left < 0:
            return
        fault = _run(rule, schema, value, old, path, budget)
        if fault is not None:
            errors.append(fault)
    if isinstance(value, dict):
        before = old if isinstance(old, dict) else {}
        for name, below in value.items():
            if not path and name == "metadata":
                continue
            child, at = schema.properties.get(name), f"{path}.{name}" if path else name
            if child is None:
                child, at = schema.additional, f"{path}[{name}]"
            if child is not None:
                check(below, child, at, errors, before.get(name), updating, budget)
    elif isinstance(value, list) and schema.items is not None:
        before_items = _correlated(old, schema) if isinstance(old, list) else {}
        for index, item in enumerate(value):
            key = _key(item, schema)
            check(
                item, schema.items, f"{path}[{index}]", errors, before_items.get(key) if key else None, updating, budget
            )


def _key(item: Any, schema: Schema) -> str | None:
    if schema.list_type == "map" and isinstance(item, dict):
        return json.dumps([item.get(key) for key in schema.list_keys])
    return None


def _correlated(items: list[Any], schema: Schema) -> dict[str, Any]:
    return {key: item for item in items if (key := _key(item, schema)) is not None}


def _run(rule: Mapping[str, Any], schema: Schema, value: Any, old: Any, path: str, budget: Budget) -> FieldError | None:
    shown: Any = OMITTED if isinstance(value, (dict, list)) else value
    kind = "integer,string" if schema.int_or_string else schema.type
    told = (rule.get("message") or rule["rule"]).strip()
    try:
        scope = _scope(rule, schema, value, old)
        passed = _evaluate(rule["rule"], rule, schema, scope, budget)
    except TooExpensive as error:
        if budget.left <= 0:
            why = "validation failed due to running out of cost budget, no further validation rules will be run"
            budget.left = -1
            return FieldError("FieldValueForbidden", path, None, why)
        why = f"'{error}': no further validation rules will be run due to call cost exceeds limit for rule: {told}"
        budget.left = -1
        return FieldError("FieldValueInvalid", path, kind, why)
    except EvaluationError as error:
        why = f"{error} evaluating rule: {told}"
        if "no such overload" in str(error):
            why = (
                f"'{error}': call arguments did not match a supported operator, function or macro signature for rule: "
                f"{told}"
            )
        return FieldError("FieldValueInvalid", path, kind, why)
    if passed is True:
        return None
    message = _message(rule, schema, scope, budget)
    reason = rule.get("reason") or "FieldValueInvalid"
    at = path
    if field := rule.get("fieldPath"):
        at = f"{path}{_resolved(field, schema)}".removeprefix(".")
    if reason == "FieldValueDuplicate":
        return FieldError(reason, at, OMITTED)
    return FieldError(reason if reason in REASONS else "FieldValueInvalid", at, shown, message)


def resolve_path(path: str, schema: Schema) -> str:
    """A rule's `fieldPath` (`.a['b']`) as it stands in a fault: `.a.b`, or `.a[b]` for a map. Raises `ValueError`."""
    made, at = "", 0
    node: Schema = schema
    while at < len(path):
        match = _STEP.match(path, at)
        if match is None:
            raise ValueError(f"expected [ or . but got: {path[at:]}")
        name = match[1] if match[1] is not None else re.sub(r"\\(.)", r"\1", match[2])
        if name in node.properties:
            node, made = node.properties[name], f"{made}.{name}"
        elif node.additional is not None:
            node, made = node.additional, f"{made}[{name}]"
        else:
            raise ValueError("does not refer to a valid field")
        at = match.end()
    return made


def _resolved(path: str, schema: Schema) -> str:
    try:
        return resolve_path(path, schema)
    except ValueError:  # of a definition that was written before it was checked so
        return path


def _scope(rule: Mapping[str, Any], schema: Schema, value: Any, old: Any) -> dict[str, Any]:
    scope: dict[str, Any] = {"self": value_of(value, schema)}
    if is_transition(rule):
        before = value_of(old, schema)
        scope["oldSelf"] = before
        if rule.get("optionalOldSelf"):
            scope["oldSelf"] = NONE if old is None else Optional(before)
    return scope


def _evaluate(
    expression: str, rule: Mapping[str, Any], schema: Schema, scope: Mapping[str, Any], budget: Budget
) -> Any:
    try:
        program = compiled(expression, schema, optional_old=bool(rule.get("optionalOldSelf")))
    except ValueError as error:  # of a definition that was written before it was checked so
        raise EvaluationError(f"compilation failed: {error}") from error
    return program.run(scope, budget)


def _message(rule: Mapping[str, Any], schema: Schema, scope: dict[str, Any], budget: Budget) -> str:
    if expression := rule.get("messageExpression"):
        try:
            made = _evaluate(expression, rule, schema, scope, budget)
        except EvaluationError as error:  # falls back to the plain message, as the API says
            log.debug("message_expression_failed", error=str(error))
        else:
            if isinstance(made, str) and made.strip() and "\n" not in made and len(made) <= MAX_MESSAGE:
                return made.strip()
    if rule.get("message"):
        return str(rule["message"]).strip()
    return f"failed rule: {rule['rule'].strip()}"
