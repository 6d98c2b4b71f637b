"""What the CEL rules of a definition must be: they compile, fit their values, and cannot cost too much. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sandlane.kube.resource import Object
from sandlane.local.apiserver.cel.syntax import CompileError
from sandlane.local.apiserver.crd import cel_cost
from sandlane.local.apiserver.crd.cel_rules import REASONS, compiled, resolve_path
from sandlane.local.apiserver.kinds.field_errors import Faults
from sandlane.local.apiserver.schema import Schema
from sandlane.local.apiserver.wire.bodies import MAX_BODY_BYTES

MOST_NAMED = 4
TOLERANCE = 2
"""Estimates are not upstream's to the last step: what is refused here is certainly refused there."""


class Place:
    """Where in a schema a rule stands: how often its value may occur in an object, and whether its old value is known."""

    def __init__(self, often: int | None = 1, lost: str = "") -> None:
        self.often = often
        """None where there is no limit."""
        self.lost = lost
        """The list without keys that it lies in."""

    def below(self, raw: Mapping[str, Any], at: str) -> Place:
        """The place of the items of a list or the values of a map."""
        listed = raw.get("type") == "array"
        limit = raw.get("maxItems" if listed else "maxProperties")
        often = self.often * limit if self.often is not None and limit is not None else None
        lost = self.lost or (at if listed and raw.get("x-kubernetes-list-type") != "map" else "")
        return Place(often, lost)


def _whole(rule: Object) -> Object:
    """A rule as kube-apiserver shows it in a fault: by the names of its Go fields."""
    fields = (("rule", ""), ("message", ""), ("messageExpression", ""), ("reason", None), ("fieldPath", ""))
    shown = {name[0].upper() + name[1:]: rule.get(name, default) for name, default in fields}
    return shown | {"OptionalOldSelf": rule.get("optionalOldSelf")}


class Rules:
    """Checks the rules of one version's schema, and adds up what they cost."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._total = 0
        self._dearest: list[tuple[int, str]] = []

    def check(self, raw: Object, at: str, place: Place, *, root: bool = False) -> None:
        """The rules of one node."""
        rules = raw.get("x-kubernetes-validations") or ()
        if not rules:
            return
        schema = Schema.from_crd(raw) if root else Schema(raw)
        for index, rule in enumerate(rules):
            where = f"{at}.x-kubernetes-validations[{index}]"
            self._check_texts(rule, where, schema)
            self._check_rule(rule, where, schema, place)

    def finish(self, at: str) -> None:
        """The sum of all costs."""
        name = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema"
        if self._total > cel_cost.TOTAL_LIMIT * TOLERANCE:
            for _, where in self._dearest:
                why = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
                self._faults.forbidden(where, why)
        self._refuse(at, name, self._total, cel_cost.TOTAL_LIMIT)

    def _refuse(self, at: str, name: str, cost: int, limit: int) -> None:
        if cost > limit * TOLERANCE and (why := cel_cost.too_much(name, cost, limit)):
            self._faults.forbidden(at, why)

    def _check_texts(self, rule: Object, at: str, schema: Schema) -> None:
        faults, text, message = self._faults, rule.get("rule", ""), rule.get("message", "")
        if not text.strip():
            faults.required(f"{at}.rule", "rule is not specified")
        elif message and not message.strip():
            faults.invalid(f"{at}.message", message, "must be non-empty if specified")
        elif "\n" in message.strip():
            faults.invalid(f"{at}.message", message, "must not contain line breaks")
        elif "\n" in text.strip() and not message.strip():
            faults.required(f"{at}.message", "message must be specified if rule contains line breaks")
        if rule.get("messageExpression") and not rule["messageExpression"].strip():
            faults.required(f"{at}.messageExpression", "messageExpression must be non-empty if specified")
        if "reason" in rule and rule["reason"] not in REASONS:
            faults.not_supported(f"{at}.reason", rule["reason"], sorted(REASONS))
        if "optionalOldSelf" in rule and "oldSelf" not in text:
            why = "may not be set if oldSelf is not used in rule"
            faults.invalid(f"{at}.optionalOldSelf", rule["optionalOldSelf"], why)
        if path := rule.get("fieldPath"):
            if "\n" in path:
                faults.invalid(f"{at}.fieldPath", path, "must not contain line breaks")
            try:
                resolve_path(path, schema)
            except ValueError:
                faults.invalid(f"{at}.fieldPath", path, "must be a valid path")

    def _check_rule(self, rule: Object, at: str, schema: Schema, place: Place) -> None:
        optional = bool(rule.get("optionalOldSelf"))
        for field, wanted, what in (("rule", "bool", "rule"), ("messageExpression", "string", "messageExpression")):
            text = rule.get(field) or ""
            if not text.strip():
                continue
            try:
                program = compiled(text, schema, optional_old=optional)
            except CompileError as error:
                prefix = "" if field == "rule" else "messageExpression "
                self._faults.invalid(f"{at}.{field}", _whole(rule), f"{prefix}compilation failed: {error}")
                continue
            if program.type.name != wanted:
                prefix = "cel expression" if field == "rule" else "messageExpression"
                self._faults.invalid(f"{at}.{field}", _whole(rule), f"{prefix} must evaluate to a {wanted}")
                continue
            cost = cel_cost.estimate(program.node, {"self": schema, "oldSelf": schema})
            often = place.often if place.often is not None else MAX_BODY_BYTES // (cel_cost.smallest(schema) + 1)
            self._refuse(f"{at}.{field}", f"estimated {what} cost", cost * often, cel_cost.RULE_LIMIT)
            self._total += cost * often
            self._dearest = sorted([*self._dearest, (-cost * often, f"{at}.{field}")])[:MOST_NAMED]
            if field == "rule" and place.lost and "oldSelf" in text and not optional:
                why = f"oldSelf cannot be used on the uncorrelatable portion of the schema within {place.lost}"
                self._faults.invalid(f"{at}.rule", text, why)
