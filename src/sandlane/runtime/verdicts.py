"""All conditions of a kind, made from verdicts. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

import msgspec

from sandlane.api.reasons import PENDING
from sandlane.api.types import Condition
from sandlane.runtime.conditions import find_condition, set_condition


class Verdict(msgspec.Struct, frozen=True):
    """What a condition says; `status` None is Unknown."""

    status: bool | None
    reason: str
    message: str = ""


def with_verdicts(
    old: tuple[Condition, ...], kinds: Iterable[str], verdicts: Mapping[str, Verdict], generation: int, now: datetime
) -> tuple[Condition, ...]:
    """All conditions of a kind, in their order; those without a verdict are Unknown."""
    made: list[Condition] = []
    for kind in kinds:
        verdict = verdicts.get(kind, Verdict(None, PENDING))
        kept = find_condition(old, kind)
        before = (kept,) if kept else ()
        made += set_condition(before, kind, verdict.status, verdict.reason, verdict.message, generation, now)
    return tuple(made)


def verdict_of(condition: Condition) -> Verdict:
    """What a condition says."""
    flag = {"True": True, "False": False}.get(condition.status)
    return Verdict(flag, condition.reason, condition.message)
