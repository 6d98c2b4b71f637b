"""Validation of where Pods may run: affinity and topology spread."""

from __future__ import annotations

from typing import Any

from sandlane.kube.resource import Object
from sandlane.local.apiserver.kinds.field_errors import Faults
from sandlane.local.apiserver.kinds.names import check_selector, dns_label, label_value, qualified_name

_REQUIRED, _PREFERRED = (
    "requiredDuringSchedulingIgnoredDuringExecution",
    "preferredDuringSchedulingIgnoredDuringExecution",
)
_NODE_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt")


def check_affinity(faults: Faults, spec: Object, field: str) -> None:
    """A pod spec's affinity."""
    affinity = spec.get("affinity") or {}
    at = f"{field}.affinity"
    if affinity.get("nodeAffinity"):
        _check_nodes(faults, affinity["nodeAffinity"], f"{at}.nodeAffinity")
    for kind in ("podAffinity", "podAntiAffinity"):
        if affinity.get(kind):
            _check_pods(faults, affinity[kind], f"{at}.{kind}")


def check_spread(faults: Faults, spec: Object, field: str) -> None:
    """A pod spec's topology spread."""
    spreads = spec.get("topologySpreadConstraints") or []
    pairs = [(each.get("topologyKey", ""), each.get("whenUnsatisfiable", "")) for each in spreads]
    for index, spread in enumerate(spreads):
        _check_spread(faults, spread, f"{field}.topologySpreadConstraints[{index}]", pairs[index + 1 :])


def _check_nodes(faults: Faults, affinity: Object, at: str) -> None:
    required = affinity.get(_REQUIRED)
    if required is not None:
        terms = required.get("nodeSelectorTerms") or []
        where = f"{at}.{_REQUIRED}.nodeSelectorTerms"
        if not terms:
            faults.required(where, "must have at least one node selector term")
        for index, term in enumerate(terms):
            _check_node_term(faults, term, f"{where}[{index}]")
    for index, preferred in enumerate(affinity.get(_PREFERRED) or []):
        where = f"{at}.{_PREFERRED}[{index}]"
        _check_weight(faults, preferred, where)
        _check_node_term(faults, preferred.get("preference") or {}, f"{where}.preference")


def _check_weight(faults: Faults, preferred: Object, at: str) -> None:
    weight = preferred.get("weight", 0)
    if not 1 <= weight <= 100:
        faults.invalid(f"{at}.weight", weight, "must be in the range 1-100")


def _check_node_term(faults: Faults, term: Object, at: str) -> None:
    for index, requirement in enumerate(term.get("matchExpressions") or []):
        where, operator = f"{at}.matchExpressions[{index}]", requirement.get("operator", "")
        values = requirement.get("values") or []
        if operator in ("In", "NotIn") and not values:
            faults.required(f"{where}.values", "must be specified when `operator` is 'In' or 'NotIn'")
        elif operator in ("Exists", "DoesNotExist") and values:
            faults.forbidden(f"{where}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
        elif operator in ("Gt", "Lt") and len(values) != 1:
            text = "must be specified single value when `operator` is 'Lt' or 'Gt'"
            faults.required(f"{where}.values", text)
        elif operator not in _NODE_OPERATORS:
            faults.invalid(f"{where}.operator", operator, "not a valid selector operator")
        for detail in qualified_name(requirement.get("key", "")):
            faults.invalid(f"{where}.key", requirement.get("key", ""), detail)
        for place, value in enumerate(values if operator not in ("Gt", "Lt") else ()):
            for detail in label_value(value):
                faults.invalid(f"{where}.values[{place}]", value, detail)
    for index, requirement in enumerate(term.get("matchFields") or []):
        where, values = f"{at}.matchFields[{index}]", requirement.get("values") or []
        if requirement.get("operator") not in ("In", "NotIn"):
            faults.invalid(f"{where}.operator", requirement.get("operator", ""), "not a valid selector operator")
        elif len(values) != 1:
            text = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
            faults.required(f"{where}.values", text)
        if requirement.get("key") != "metadata.name":
            faults.invalid(f"{where}.key", requirement.get("key", ""), "not a valid field selector key")


def _check_pods(faults: Faults, affinity: Object, at: str) -> None:
    for index, term in enumerate(affinity.get(_REQUIRED) or []):
        _check_pod_term(faults, term, f"{at}.{_REQUIRED}[{index}]")
    for index, preferred in enumerate(affinity.get(_PREFERRED) or []):
        where = f"{at}.{_PREFERRED}[{index}]"
        _check_weight(faults, preferred, where)
        _check_pod_term(faults, preferred.get("podAffinityTerm") or {}, f"{where}.podAffinityTerm")


def _check_pod_term(faults: Faults, term: Object, at: str) -> None:
    check_selector(faults, term.get("labelSelector"), f"{at}.labelSelector")
    check_selector(faults, term.get("namespaceSelector"), f"{at}.namespaceSelector")
    for name in term.get("namespaces") or []:
        for detail in dns_label(name):
            faults.invalid(f"{at}.namespace", name, detail)
    if term.get("labelSelector") is None and term.get("matchLabelKeys"):
        faults.forbidden(f"{at}.matchLabelKeys", "must not be specified when labelSelector is not set")
    if not term.get("topologyKey"):
        faults.required(f"{at}.topologyKey", "can not be empty")
    for detail in qualified_name(term.get("topologyKey", "")):
        faults.invalid(f"{at}.topologyKey", term.get("topologyKey", ""), detail)


def _check_spread(faults: Faults, spread: Object, at: str, pairs: list[tuple[Any, Any]]) -> None:
    if spread.get("maxSkew", 0) <= 0:
        faults.invalid(f"{at}.maxSkew", spread.get("maxSkew", 0), "must be greater than zero")
    if not spread.get("topologyKey"):
        faults.required(f"{at}.topologyKey", "can not be empty")
    policies = ("DoNotSchedule", "ScheduleAnyway")
    if spread.get("whenUnsatisfiable") not in policies:
        faults.not_supported(f"{at}.whenUnsatisfiable", spread.get("whenUnsatisfiable", ""), policies)
    pair = spread.get("topologyKey", ""), spread.get("whenUnsatisfiable", "")
    if pair in pairs:
        faults.duplicate(f"{at}.{{topologyKey, whenUnsatisfiable}}", f"{{{pair[0]}, {pair[1]}}}")
    least = spread.get("minDomains")
    if least is not None and least <= 0:
        faults.invalid(f"{at}.minDomains", least, "must be greater than zero")
    elif least is not None and spread.get("whenUnsatisfiable") == "ScheduleAnyway":
        text = "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway"
        faults.invalid(f"{at}.minDomains", least, text)
    for key in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
        faults.one_of(f"{at}.{key}", spread.get(key), ("Honor", "Ignore"))
    for index, key in enumerate(spread.get("matchLabelKeys") or []):
        for detail in qualified_name(key):
            faults.invalid(f"{at}.matchLabelKeys[{index}]", key, detail)
    check_selector(faults, spread.get("labelSelector"), f"{at}.labelSelector")
