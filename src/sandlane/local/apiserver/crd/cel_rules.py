"""`x-kubernetes-validations`: CEL rules of custom resources, compiled once, run with bounded size."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import cel
import structlog

from sandlane.kube.patch.values import equal_json
from sandlane.local.apiserver.crd.cel_cost import Budget, TooExpensive, rounds_of
from sandlane.local.apiserver.crd.cel_library import BUILTIN, FUNCTIONS, functions_in
from sandlane.local.apiserver.crd.cel_syntax import HAS_OLD, called, plain
from sandlane.local.apiserver.kinds.field_errors import OMITTED, FieldError
from sandlane.local.apiserver.schema import Schema

log = structlog.get_logger(__name__)

MAX_EXPRESSION = 16 * 1024
_REASONS = ("FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired", "FieldValueDuplicate")


class UnsupportedExpression(ValueError):
    """An expression that does not compile here."""


@lru_cache(maxsize=4096)
def compile_rule(expression: str, optional_old: bool = False) -> Any:
    """A compiled expression; `optional_old`: its `oldSelf` is an optional value. Raises `UnsupportedExpression`."""
    if len(expression) > MAX_EXPRESSION:
        raise UnsupportedExpression(f"longer than {MAX_EXPRESSION} characters")
    try:
        words = plain(expression, optional_old)
        unknown = called(words) - BUILTIN - FUNCTIONS.keys()
        if unknown:
            raise UnsupportedExpression(f"undeclared reference to '{min(unknown)}' (in container '')")
        return cel.compile(words)
    except ValueError as error:
        raise UnsupportedExpression(str(error)) from error


def run(expression: str, scope: Mapping[str, Any], budget: Budget | None = None) -> Any:
    """The value of an expression, with Kubernetes' functions. Raises `TooExpensive`, and whatever the library raises."""
    program = compile_rule(expression, HAS_OLD in scope)
    rounds = rounds_of(expression, scope.values())
    if budget is not None and not budget.spend(rounds):
        raise TooExpensive("the rules of this object take too long together")
    functions = functions_in(expression)
    if not functions:
        return program.execute(dict(scope))
    context = cel.Context()
    for name, function in functions:
        context.add_function(name, function)
    for name, value in scope.items():
        context.add_variable(name, value)
    return program.execute(context)


_CHAIN = re.compile(r"\b(?:self|oldSelf)((?:\.[A-Za-z_]\w*)+)(\s*\()?")
_TEXT = re.compile(r"""r?(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')""")
_ESCAPES = (("__dot__", "."), ("__dash__", "-"), ("__slash__", "/"), ("__underscores__", "__"))


def undeclared_field(expression: str, raw: Mapping[str, Any], *, root: bool = False) -> str | None:
    """The first field that a rule on `self` reads although the schema has no such field."""
    for chain, call in _CHAIN.findall(_TEXT.sub('""', expression)):
        names = chain[1:].split(".")
        node: Any = raw
        for depth, name in enumerate(names[:-1] if call else names):
            if node.get("type") != "object":
                break  # what a list or a scalar gives is not known here
            whole = (root and depth == 0) or node.get("x-kubernetes-embedded-resource")
            if whole and name in ("apiVersion", "kind", "metadata"):
                break
            found = (node.get("properties") or {}).get(_unescaped(name))
            if found is None:
                if node.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in node:
                    break
                return str(name)
            node = found
    return None


def _unescaped(name: str) -> str:
    for escape, text in _ESCAPES:
        name = name.replace(escape, text)
    return name[2:-2] if name.startswith("__") and name.endswith("__") and len(name) > 4 else name


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
    budget = budget or Budget()
    unchanged = updating and old is not None and equal_json(value, old)
    for rule in rules_of(schema):
        if is_transition(rule) and not rule.get("optionalOldSelf") and (not updating or old is None):
            continue
        if unchanged and not is_transition(rule):
            continue  # ratcheting: what was stored stays good
        if budget.left < 0:
            return
        fault = _run(rule, value, old, path, budget)
        if fault is not None:
            errors.append(fault)
    if isinstance(value, dict):
        before = old if isinstance(old, dict) else {}
        for name, below in value.items():
            if not path and name == "metadata":
                continue
            child = schema.properties.get(name) or schema.additional
            if child is not None:
                check(below, child, f"{path}.{name}" if path else name, errors, before.get(name), updating, budget)
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


def _run(rule: Mapping[str, Any], value: Any, old: Any, path: str, budget: Budget) -> FieldError | None:
    scope: dict[str, Any] = {"self": value}
    if is_transition(rule):
        scope["oldSelf"] = old
        if rule.get("optionalOldSelf"):
            scope[HAS_OLD] = old is not None
    shown: Any = OMITTED if isinstance(value, (dict, list)) else value
    try:
        passed = run(rule["rule"], scope, budget)
    except TooExpensive as error:
        if budget.left < 0:
            why = "validation failed due to running out of cost budget, no further validation rules will be run"
            return FieldError("FieldValueForbidden", path, None, why)
        return FieldError(
            "FieldValueInvalid", path, shown, f"call cost exceeds limit for rule: {rule['rule']}: {error}"
        )
    except Exception as error:  # the library raises many types for a value that does not fit an expression
        detail = f"rule evaluation error: {error}"
        return FieldError("FieldValueInvalid", path, shown, detail)
    if passed is True:
        return None
    message = _message(rule, scope)
    reason = rule.get("reason") or "FieldValueInvalid"
    at = path
    if field := rule.get("fieldPath"):
        at = f"{path}{field}" if path else str(field).lstrip(".")
    kind = reason if reason in _REASONS else "FieldValueInvalid"
    return FieldError(kind, at, shown, message)


def _message(rule: Mapping[str, Any], scope: dict[str, Any]) -> str:
    if expression := rule.get("messageExpression"):
        try:
            made = run(expression, scope)
            if isinstance(made, str) and made.strip() and "\n" not in made:
                return made.strip()
        except Exception as error:  # falls back to the plain message, as the API says
            log.debug("message_expression_failed", error=str(error))
    if rule.get("message"):
        return str(rule["message"])
    return f"failed rule: {rule['rule']}"
