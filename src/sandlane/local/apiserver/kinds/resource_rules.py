"""Validation of what containers ask for: names, amounts, and what may not be promised twice."""

from __future__ import annotations

from fractions import Fraction

from sandlane.kube.quantity import parse_quantity
from sandlane.kube.resource import Object
from sandlane.local.apiserver.kinds.field_errors import MIN_ZERO, Faults
from sandlane.local.apiserver.kinds.names import qualified_name

_STANDARD = ("cpu", "memory", "ephemeral-storage")
_HUGE = "hugepages-"


def check_resources(faults: Faults, resources: Object, at: str, claims: list[str]) -> None:
    """A container's resources. `claims` names the resource claims of its Pod."""
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    for name in _in_order(limits):
        _check_amount(faults, name, limits[name], f"{at}.limits[{name}]")
    for name in _in_order(requests):
        text = requests[name]
        _check_amount(faults, name, text, f"{at}.requests[{name}]")
        if name in limits:
            more = parse_quantity(text) - parse_quantity(limits[name])
            if more and not _shared(name):
                faults.invalid(f"{at}.requests", text, f"must be equal to {name} limit of {limits[name]}")
            elif more > 0:
                faults.invalid(f"{at}.requests", text, f"must be less than or equal to {name} limit of {limits[name]}")
        elif not _shared(name):
            faults.required(f"{at}.limits", "Limit must be set for non overcommitable resources")
    named = {*limits, *requests}
    if any(name.startswith(_HUGE) for name in named) and not named & {"cpu", "memory"}:
        faults.forbidden(at, "HugePages require cpu or memory")
    seen: set[str] = set()
    for index, claim in enumerate(resources.get("claims") or []):
        name, where = claim.get("name", ""), f"{at}.claims[{index}]"
        if not name:
            faults.required(where)
            continue
        if name in seen:
            faults.duplicate(where, name)
        seen.add(name)
        if name not in claims:
            known = "which is empty" if not claims else "{" + ", ".join(claims) + "}"
            faults.not_found(where, name, f"must be one of the names in pod.spec.resourceClaims {known}")


def _in_order(amounts: Object) -> list[str]:
    """Those that every container has first."""
    return sorted(amounts, key=lambda name: (name not in _STANDARD, name))


def _native(name: str) -> bool:
    return "/" not in name or "kubernetes.io/" in name


def _shared(name: str) -> bool:
    """Whether more of it may be used than is asked for."""
    return _native(name) and not name.startswith(_HUGE)


def _check_amount(faults: Faults, name: str, text: str, at: str) -> None:
    for detail in qualified_name(name):
        faults.invalid(at, name, detail)
    if "/" not in name:
        if name not in _STANDARD and not name.startswith(_HUGE):
            faults.invalid(at, name, "must be a standard resource type or fully qualified")
            faults.invalid(at, name, "must be a standard resource for containers")
    elif not _native(name) and (name.startswith("requests.") or qualified_name(f"requests.{name}")):
        faults.invalid(at, name, "doesn't follow extended resource name standard")
    value = parse_quantity(text)
    if value < 0:
        faults.invalid(at, text, MIN_ZERO)
    if not _native(name) and value.denominator != 1:
        faults.invalid(at, text, "must be an integer")
    if name.startswith(_HUGE) and not _whole_pages(name, value):
        faults.invalid(at, text, f"{text} is not positive integer multiple of {name}")


def _whole_pages(name: str, value: Fraction) -> bool:
    try:
        page = parse_quantity(name.removeprefix(_HUGE))
    except ValueError:
        return False
    return value > 0 and page > 0 and value % page == 0
