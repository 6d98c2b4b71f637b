"""One evaluation: what it knows, and how many steps it may still take. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sandlane.local.apiserver.cel.values import EvaluationError

STEPS = 1_000_000
"""Steps of one evaluation, as upstream."""


class TooExpensive(EvaluationError):
    """An evaluation that takes too many steps."""


class Budget:
    """The steps that are left for several evaluations."""

    def __init__(self, steps: int) -> None:
        self.left = steps


class Frame:
    """What an evaluation knows: the variables, and how many steps are left."""

    __slots__ = ("left", "values")

    def __init__(self, values: Mapping[str, Any], left: int) -> None:
        self.values = dict(values)
        self.left = left

    def spend(self, steps: int) -> None:
        """Take some steps. Raises `TooExpensive`."""
        self.left -= steps
        if self.left < 0:
            raise TooExpensive("operation cancelled: actual cost limit exceeded")


Step = Callable[[Frame], Any]


def work(value: Any) -> int:
    """Steps that looking at a whole value takes."""
    if isinstance(value, (str, bytes)):
        return len(value) // 10
    return len(value) if isinstance(value, (list, dict)) else 0
