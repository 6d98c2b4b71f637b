"""What Kubernetes' dialect of CEL writes and the library does not read: optional fields, and functions with a namespace. Pure.

`a.?b.c` and `a[?"b"]` become a test for the fields and `optional.of`; `optMap` and `optFlatMap` a `map` over a list of one;
`sets.contains(` becomes `sets_contains(`. Texts in quotes are left alone.
"""

from __future__ import annotations

import re
from functools import lru_cache

_TEXT = r"""[rRbB]{0,2}(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
_KEY = rf"(?:{_TEXT}|\d+)"
_CHAIN = re.compile(
    rf"(?<![\w.)\]])(?P<base>[A-Za-z_]\w*+)(?P<steps>(?:\s*\.\s*\??[A-Za-z_]\w*+(?!\s*\()|\[\s*\??\s*{_KEY}\s*\])+)|(?P<text>{_TEXT})"
)
_STEP = re.compile(rf"\s*\.\s*(?P<maybe>\?)?(?P<name>[A-Za-z_]\w*)|\[\s*(?P<maybe_key>\?)?\s*(?P<key>{_KEY})\s*\]")
_NAMESPACED = re.compile(rf"(?<![\w.])(?P<space>sets)\s*\.\s*(?P<name>\w+)\s*\(|(?P<text>{_TEXT})")
_OLD = re.compile(
    rf"(?<![\w.])oldSelf\b(?P<next>\s*[.\[])?(?P<call>\s*(?:hasValue|value|or|orValue|optMap|optFlatMap)\s*\()?|(?P<text>{_TEXT})"
)
_BINDS = re.compile(rf"\.\s*(?P<name>optMap|optFlatMap)\s*\(|(?P<text>{_TEXT})")
_NAMES = re.compile(rf"(?<![\w])(?P<name>[A-Za-z_]\w*)\s*\(|(?P<text>{_TEXT})")
_BRACKETS = re.compile(rf"{_TEXT}|[()\[\]{{}},]")
_OF_TWO = ("all", "exists", "exists_one", "existsOne")
MOST = 64 * 1024
"""Characters that an expression may grow to."""
HAS_OLD = "hasOldSelf__"
"""The variable that says whether there is an `oldSelf`, for rules with `optionalOldSelf`."""


class Unreadable(ValueError):
    """An expression in a form that is not supported here."""


@lru_cache(maxsize=4096)
def plain(expression: str, optional_old: bool = False) -> str:
    """An expression in the library's words. Raises `Unreadable`."""
    made = _NAMESPACED.sub(lambda m: m["text"] or f"{m['space']}_{m['name']}(", expression)
    if optional_old:
        made = _OLD.sub(_old, made)
    made = _CHAIN.sub(lambda m: m["text"] or _chain(m["base"], m["steps"]), made)
    while (found := next((m for m in _BINDS.finditer(made) if not m["text"]), None)) is not None:
        made = _bound(made, found)
        if len(made) > MOST:
            raise Unreadable("too many optMap in one another")
    for call in _NAMES.finditer(made):
        if call["name"] in _OF_TWO and _commas(made, call.end() - 1) > 1:
            raise Unreadable(f"{call['name']} with two variables is not supported")
    return made


def called(expression: str) -> frozenset[str]:
    """The names of the functions and methods that an expression calls."""
    return frozenset(m["name"] for m in _NAMES.finditer(expression) if m["name"])


def _old(match: re.Match[str]) -> str:
    """`oldSelf` as an optional value; its fields, which are read with `.?`, stay for `_chain`."""
    if match["text"]:
        return match["text"]
    if match["next"] and not match["call"]:
        return match[0]
    value = f"({HAS_OLD} ? optional.of(oldSelf) : optional.none())"
    return value + (match["next"] or "") + (match["call"] or "")


def _chain(base: str, steps: str) -> str:
    """Fields and keys, some of them optional, as a test and a value; those without any stay."""
    if "?" not in re.sub(_TEXT, "", steps):
        return base + steps
    tests = [HAS_OLD] if base == "oldSelf" else []
    value, optional = base, False
    for step in _STEP.finditer(steps):
        optional = optional or bool(step["maybe"] or step["maybe_key"])
        before = value
        value += f".{step['name']}" if step["name"] else f"[{step['key']}]"
        if optional:
            key = step["key"]
            tests.append(
                f"has({value})"
                if key is None
                else f"size({before}) > {key}"
                if key.isdecimal()
                else f"{key} in {before}"
            )
    return f"({' && '.join(tests)} ? optional.of({value}) : optional.none())"


def _bound(expression: str, found: re.Match[str]) -> str:
    """One `X.optMap(name, body)`, X in brackets as `_chain` and `_old` leave it: `body` for the one value that there may be."""
    start = _opening(expression, found.start())
    receiver = expression[start : found.start()].rstrip()
    end = _closing(expression, found.end() - 1)
    name, comma, body = expression[found.end() : end].partition(",")
    if not comma or not name.strip().isidentifier():
        raise Unreadable(f"{found['name']} takes a name and an expression")
    if found["name"] == "optMap":
        made = f"optional.of([{receiver}.value()].map({name.strip()}, {body.strip()})[0])"
    else:  # what is optional itself cannot lie in a list
        made = re.sub(rf"(?<![\w.]){name.strip()}\b", lambda _: f"{receiver}.value()", body).strip()
    return f"{expression[:start]}({receiver}.hasValue() ? {made} : optional.none()){expression[end + 1 :]}"


def _commas(text: str, opening: int) -> int:
    """How many commas separate what stands in the brackets at `opening`."""
    depth, commas = 0, 0
    for match in _BRACKETS.finditer(text, opening):
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(match[0], 0)
        commas += match[0] == "," and depth == 1
        if depth == 0:
            break
    return commas


def _closing(text: str, opening: int) -> int:
    """Where the bracket at `opening` is closed."""
    depth = 0
    for match in _BRACKETS.finditer(text, opening):
        depth += {"(": 1, ")": -1}.get(match[0], 0)
        if depth == 0:
            return match.start()
    raise Unreadable("a bracket is not closed")


def _opening(text: str, end: int) -> int:
    """Where the receiver that ends before `end` starts: a bracket, with the call or `optional.of` before it."""
    last = len(text[:end].rstrip()) - 1
    open_: list[int] = []
    for match in _BRACKETS.finditer(text, 0, end):
        if match[0] == "(":
            open_.append(match.start())
        elif match[0] == ")" and open_:
            start = open_.pop()
            if match.start() == last:
                before = re.search(r"[\w.]*$", text[:start])
                return before.start() if before else start
    raise Unreadable("optMap and optFlatMap are read after an optional field only")
