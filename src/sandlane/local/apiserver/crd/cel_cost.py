"""How much work a CEL expression can be: loops within loops over large values are refused before they run. Pure.

An estimate from above: every loop goes over the largest list or map in sight; a loop over a part of another loop's item (a walk down a
tree) is paid for once, with all values in sight.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

MOST_ROUNDS = 1_000_000
"""Rounds of the innermost loop that one evaluation may take."""
MOST_ROUNDS_OF_AN_OBJECT = 2 * MOST_ROUNDS

_TEXT = re.compile(r"""[rRbB]{0,2}(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')""")
_LOOP = re.compile(r"\.\s*(?:all|exists|exists_one|existsOne|map|filter|transformList|transformMap)\s*\(\s*(\w+)\s*,")
_ROOT = re.compile(r"\w+")
_SPLITS = ("split", "findAll")


class TooExpensive(ValueError):
    """An expression whose loops would take too many rounds."""


@dataclass(frozen=True)
class Loops:
    """The loops of an expression at their deepest: `flat` ones and walks down a tree; and its longest literal."""

    flat: int
    walks: int
    literal: int
    splits: bool


class Budget:
    """The rounds that all expressions about one object may take together."""

    def __init__(self, rounds: int = MOST_ROUNDS_OF_AN_OBJECT) -> None:
        self.left = rounds

    def spend(self, rounds: int) -> bool:
        """Take rounds out; whether there were enough."""
        self.left -= rounds
        return self.left >= 0


def rounds_of(expression: str, values: Iterable[Any]) -> int:
    """The rounds that the loops of an expression over these values could take. Raises `TooExpensive` for too many."""
    loops = loops_of(expression)
    if loops.flat + loops.walks == 0:
        return 1
    total, longest = _measure(list(values), loops.splits)
    longest = max(longest, loops.literal, 1)
    total = max(total, longest)
    rounds: int = longest**loops.flat * total**loops.walks
    if rounds > MOST_ROUNDS and loops.flat + loops.walks > 1:
        raise TooExpensive(f"loops over up to {longest} items, {loops.flat + loops.walks} deep, cost too much")
    return rounds


@dataclass
class _Open:
    """A loop that we are in. `chain` is shared by the loops of one walk down."""

    end: int
    variable: str
    chain: int
    above: _Open | None = None
    walked: bool = False


@lru_cache(maxsize=4096)
def loops_of(expression: str) -> Loops:
    """The nesting of loops that is deepest."""
    text = _TEXT.sub('""', expression)
    ends = _closing(text)
    within: list[_Open] = []
    flat = walks = 0
    for number, match in enumerate(_LOOP.finditer(text)):
        while within and within[-1].end < match.start():
            above = within.pop().above
            if above is not None:
                above.walked = False
        root = _root(text, match.start(), ends)
        above = next((each for each in reversed(within) if each.variable == root), None)
        if above is not None and above.walked:
            above = None  # a second walk over the same part: rounds multiply
        if above is not None:
            above.walked = True
        end = ends.get(text.index("(", match.start()), len(text))
        within.append(_Open(end, match[1], above.chain if above is not None else number, above))
        chains = Counter(each.chain for each in within)
        long = sum(count > 1 for count in chains.values())
        if (len(chains), long) > (flat + walks, walks):
            flat, walks = len(chains) - long, long
    return Loops(flat, walks, text.count(",") + 1, any(name in text for name in _SPLITS))


def _closing(text: str) -> dict[int, int]:
    """Where each bracket is closed."""
    found: dict[int, int] = {}
    waiting: list[int] = []
    for index, char in enumerate(text):
        if char in "([{":
            waiting.append(index)
        elif char in ")]}" and waiting:
            found[waiting.pop()] = index
    return found


def _root(text: str, at: int, ends: dict[int, int]) -> str:
    """The variable that `a.b[0].c(x)` before an index begins with; empty where it begins with something else."""
    starts = {end: start for start, end in ends.items()}
    index = at - 1
    while index >= 0:
        if text[index] in ")]" and index in starts:
            index = starts[index] - 1
        elif text[index].isalnum() or text[index] in "_.":
            index -= 1
        else:
            break
    match = _ROOT.match(text, index + 1)
    return match[0] if match else ""


def _measure(values: list[Any], splits: bool) -> tuple[int, int]:
    """How many values there are, and the size of the largest list or map; texts count where they may be split."""
    total = longest = 0
    while values:
        value = values.pop()
        total += 1
        if isinstance(value, (dict, list)):
            longest = max(longest, len(value))
            values.extend(value.values() if isinstance(value, dict) else value)
        elif splits and isinstance(value, str):
            total += len(value)
            longest = max(longest, len(value))
    return total, longest
