"""Label and field selectors: parsed from text or from a `LabelSelector`, matched against labels. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

_NAME = re.compile(r"(?:[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_TOKEN = re.compile(r"\s*(==|!=|=|!|,|\(|\)|<|>|[^\s=!,()<>]+)")
_NO_VALUES = "values set must be empty for exists and does not exist"
_SIGNS = {"in": "=", "notin": "!=", "gt": ">", "lt": "<"}


class SelectorError(ValueError):
    """A selector that cannot be parsed; the message says what was found where."""


class Requirement(msgspec.Struct, frozen=True):
    """One condition on one label. `operator`: in | notin | exists | !exists | gt | lt."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether labels satisfy it."""
        value = labels.get(self.key)
        match self.operator:
            case "in":
                return value is not None and value in self.values
            case "notin":
                return value is None or value not in self.values
            case "exists":
                return value is not None
            case "!exists":
                return value is None
        if value is None or not value.lstrip("-").isdigit():
            return False
        return int(value) > int(self.values[0]) if self.operator == "gt" else int(value) < int(self.values[0])


Selector = tuple[Requirement, ...]
"""All requirements must hold; an empty selector matches everything."""


def matches(selector: Selector, labels: Mapping[str, str]) -> bool:
    """Whether labels satisfy every requirement."""
    return all(requirement.matches(labels) for requirement in selector)


def parse_label_selector(text: str) -> Selector:
    """Parse `a=b,c in (d, e),!f,g`. Raises `SelectorError`."""
    tokens = _tokens(text)
    found: list[Requirement] = []
    while tokens:
        found.append(_requirement(tokens, text))
        if tokens:
            if tokens[0] != ",":
                raise SelectorError(f"found '{tokens[0]}', expected: ',' or 'end of string'")
            tokens.pop(0)
            if not tokens or tokens[0] in _SIGNS_OF_TEXTS:
                raise SelectorError(f"found '{''.join(tokens[:1])}', expected: identifier after ','")
    return tuple(found)


def selector_of(label_selector: Mapping[str, Any] | None) -> Selector | None:
    """A `LabelSelector` object as requirements; None for none (which matches nothing). Raises `SelectorError`."""
    if label_selector is None:
        return None
    found = [Requirement(key, "in", (value,)) for key, value in (label_selector.get("matchLabels") or {}).items()]
    operators = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!exists"}
    for expression in label_selector.get("matchExpressions") or ():
        operator = operators.get(expression.get("operator", ""))
        if operator is None:
            raise SelectorError(f'"{expression.get("operator")}" is not a valid label selector operator')
        values = tuple(expression.get("values") or ())
        if bool(values) != (operator in ("in", "notin")):
            rule = "for 'in', 'notin' operators, values set can't be empty" if not values else _NO_VALUES
            raise SelectorError(f'values: Invalid value: "{",".join(values)}": {rule}')
        found.append(Requirement(expression["key"], operator, values))
    return tuple(found)


def format_selector(selector: Selector) -> str:
    """The text of a selector, as in a query; the inverse of `parse_label_selector`."""
    return ",".join(_format(requirement) for requirement in selector)


def _format(requirement: Requirement) -> str:
    key, values = requirement.key, ",".join(sorted(requirement.values))
    match requirement.operator:
        case "in" | "notin" if len(requirement.values) > 1:
            return f"{key} {requirement.operator} ({values})"
        case "exists":
            return key
        case "!exists":
            return f"!{key}"
    return f"{key}{_SIGNS[requirement.operator]}{values}"


def equality(labels: Mapping[str, str]) -> Selector:
    """A map of labels (a Service's selector) as requirements."""
    return tuple(Requirement(key, "in", (value,)) for key, value in labels.items())


def parse_field_selector(text: str) -> tuple[tuple[str, str, bool], ...]:
    """Parse `a=b,c!=d` into (field, value, equal). Raises `SelectorError`."""
    found = []
    for part in re.split(r"(?<!\\),", text):
        if not part:
            continue
        match = re.fullmatch(r"([^=!]+)(==|!=|=)(.*)", part)
        if match is None:
            raise SelectorError(f"invalid selector: '{part}'; can't understand '{part}'")
        value = re.sub(r"\\(.)", r"\1", match[3])
        found.append((match[1].strip(), value, match[2] != "!="))
    return tuple(found)


_SIGNS_OF_TEXTS = (",", "(", ")", "=", "==", "!=", "<", ">")


def _tokens(text: str) -> list[str]:
    found, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            if text[at:].strip():
                raise SelectorError(f"unable to parse requirement: found '{text[at:].strip()}'")
            break
        found.append(match[1])
        at = match.end()
    return found


def _requirement(tokens: list[str], text: str) -> Requirement:
    token = tokens.pop(0)
    negated = token == "!"
    if negated:
        token = tokens.pop(0) if tokens else ""
    if token in _SIGNS_OF_TEXTS or not token:
        if negated:
            raise SelectorError(f"unable to parse requirement: found '{token}', expected: identifier")
        raise SelectorError(f"found '{token}', expected: !, identifier, or 'end of string'")
    _check(_NAME, token, "a qualified name")
    if negated:
        return Requirement(token, "!exists")
    if not tokens or tokens[0] == ",":
        return Requirement(token, "exists")
    operator = tokens.pop(0)
    if operator in ("=", "==", "!="):
        value = tokens.pop(0) if tokens and tokens[0] not in (",", "(", ")") else ""
        _check(_VALUE, value, "a valid label value")
        return Requirement(token, "notin" if operator == "!=" else "in", (value,))
    if operator in ("in", "notin"):
        return Requirement(token, operator, _values(tokens))
    if operator in ("<", ">"):
        value = tokens.pop(0) if tokens else ""
        if not value.lstrip("-").isdigit():
            why = "for 'Gt', 'Lt' operators, the value must be an integer"
            raise SelectorError(f'unable to parse requirement: values[0]: Invalid value: "{value}": {why}')
        return Requirement(token, "gt" if operator == ">" else "lt", (value,))
    raise SelectorError(f"unable to parse requirement: found '{operator}', expected: in, notin, =, ==, !=, gt, lt")


def _values(tokens: list[str]) -> tuple[str, ...]:
    opened = tokens.pop(0) if tokens else ""
    if opened != "(":
        raise SelectorError(f"unable to parse requirement: found '{opened}' expected: '('")
    if not tokens:
        raise SelectorError("unable to parse requirement: found '', expected: ',', ')' or identifier")
    found: list[str] = []
    expect_value = True
    while tokens:
        token = tokens.pop(0)
        if token == ")":
            if expect_value and found:
                found.append("")
            return tuple(found) if found else ("",)
        if token == ",":
            if expect_value:
                found.append("")
            expect_value = True
            continue
        if not expect_value or token in _SIGNS_OF_TEXTS:
            raise _unexpected(token, expect_value)
        _check(_VALUE, token, "a valid label value")
        found.append(token)
        expect_value = False
    raise _unexpected("", expect_value)


def _unexpected(token: str, expect_value: bool) -> SelectorError:
    wanted = "',', or identifier" if expect_value else "',' or ')'"
    return SelectorError(f"unable to parse requirement: found '{token}', expected: {wanted}")


def _check(pattern: re.Pattern[str], text: str, what: str) -> None:
    if not pattern.fullmatch(text):
        raise SelectorError(f'unable to parse requirement: Invalid value: "{text}": must be {what}')
