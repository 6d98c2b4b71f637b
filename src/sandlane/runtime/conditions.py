"""Conditions of a status (`metav1.Condition`): set and found by type."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sandlane.api.ttl import format_time
from sandlane.api.types import Condition


def find_condition(conditions: Iterable[Condition], kind: str) -> Condition | None:
    """The condition of a type, if it is there."""
    return next((condition for condition in conditions if condition.type == kind), None)


def is_true(conditions: Iterable[Condition], kind: str) -> bool:
    """Whether the condition of a type is there and `True`."""
    found = find_condition(conditions, kind)
    return found is not None and found.status == "True"


def set_condition(
    conditions: tuple[Condition, ...],
    kind: str,
    status: bool | None,
    reason: str,
    message: str,
    generation: int,
    now: datetime,
) -> tuple[Condition, ...]:
    """The conditions with one set; `status` None is `Unknown`. `lastTransitionTime` changes only with the status."""
    text = "Unknown" if status is None else str(status)
    old = find_condition(conditions, kind)
    since = old.last_transition_time if old is not None and old.status == text else format_time(now)
    new = Condition(
        type=kind,
        status=text,
        reason=reason,
        message=message,
        last_transition_time=since,
        observed_generation=generation,
    )
    if old is None:
        return (*conditions, new)
    return tuple(new if condition.type == kind else condition for condition in conditions)
