"""Functions of CEL on texts, with `format`. Pure. https://pkg.go.dev/github.com/google/cel-go/ext#Strings."""

from __future__ import annotations

import math
from typing import Any

from sandlane.local.apiserver.cel.regexes import RegexError, compiled
from sandlane.local.apiserver.cel.times import Rows, show_duration, show_timestamp
from sandlane.local.apiserver.cel.values import Duration, EvaluationError, Timestamp, TypeValue, UInt


def show_double(value: float) -> str:
    """As Go writes it: `1.5`, `1`, `1e+21`, `NaN`, `+Inf`."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    text = repr(value)
    if "e" not in text and (abs(value) >= 1e-4 or value == 0):
        return text.removesuffix(".0")
    mantissa, _, exponent = f"{text if 'e' in text else format(value, 'e')}".partition("e")
    if -4 <= int(exponent) < 21:
        return str(int(value)) if value == int(value) else format(value, "f").rstrip("0")
    mantissa = mantissa.rstrip("0").removesuffix(".") if "." in mantissa else mantissa
    return f"{mantissa}e{int(exponent):+03}"


def matches(text: str, pattern: str) -> bool:
    """Whether a regular expression is found in a text."""
    return _regex(pattern).search(text) is not None


def _regex(pattern: str) -> Any:
    try:
        return compiled(pattern)
    except RegexError as error:
        raise EvaluationError(str(error)) from error


def find(text: str, pattern: str) -> str:
    """The first match of a regular expression, empty where there is none."""
    found = _regex(pattern).search(text)
    return found.group() if found is not None else ""


def find_all(text: str, pattern: str, limit: int = -1) -> list[str]:
    """All matches of a regular expression, or the first `limit`."""
    found = [match.group() for match in _regex(pattern).finditer(text)]
    return found if limit < 0 else found[:limit]


def _index(text: str, at: int, top: int) -> int:
    if not 0 <= at <= top:
        raise EvaluationError(f"index out of range: {at}")
    return at


def index_of(text: str, part: str, start: int = 0) -> int:
    """Where a part begins, -1 where it is not."""
    return text.find(part, start if part == "" else _index(text, start, len(text)))


def last_index_of(text: str, part: str, end: int | None = None) -> int:
    """Where a part begins last, at `end` or before."""
    if end is None:
        return text.rfind(part)
    return text.rfind(part, 0, _index(text, end, len(text)) + len(part))


def split(text: str, by: str, limit: int = -1) -> list[str]:
    """The parts between separators."""
    if limit == 0:
        return []
    if not by:
        parts = list(text)
        return parts if limit < 0 or len(parts) <= limit else [*parts[: limit - 1], "".join(parts[limit - 1 :])]
    return text.split(by, limit - 1 if limit > 0 else -1)


def substring(text: str, start: int, end: int | None = None) -> str:
    """A part from `start` up to `end`."""
    end = len(text) if end is None else end
    if not 0 <= start <= end <= len(text):
        raise EvaluationError(f"index out of range: {start if not 0 <= start <= len(text) else end}")
    return text[start:end]


def char_at(text: str, at: int) -> str:
    """One character, empty at the end."""
    at = _index(text, at, len(text))
    return text[at : at + 1]


def quote(text: str) -> str:
    """In quotes, with what needs it escaped."""
    escaped = {"\a": r"\a", "\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\v": r"\v", "\\": r"\\", '"': r"\""}  # fmt: skip
    return '"' + "".join(escaped.get(char, char) for char in text) + '"'


def format_text(text: str, values: list[Any]) -> str:
    """`%s`, `%d`, `%.2f`, `%e`, `%b`, `%o`, `%x` and `%X` filled in."""
    made, rest, left = "", text, list(values)
    while rest:
        before, percent, rest = rest.partition("%")
        made += before
        if not percent:
            break
        if rest.startswith("%"):
            made, rest = made + "%", rest[1:]
            continue
        precision, rest = _precision(rest)
        if not rest or rest[0] not in "sdfexXbo":
            raise EvaluationError(f'could not parse formatting clause: unrecognized formatting clause "{rest[:1]}"')
        if not left:
            raise EvaluationError(f"index {len(values)} out of range")
        made += _formatted(rest[0], precision, left.pop(0))
        rest = rest[1:]
    return made


def _precision(rest: str) -> tuple[int, str]:
    if not rest.startswith("."):
        return 6, rest
    digits = len(rest[1:]) - len(rest[1:].lstrip("0123456789"))
    if not 0 < digits < 3:
        raise EvaluationError("error parsing precision")
    return int(rest[1 : digits + 1]), rest[digits + 1 :]


def _formatted(clause: str, precision: int, value: Any) -> str:
    whole = isinstance(value, int) and not isinstance(value, bool)
    match clause:
        case "s":
            return _shown(value)
        case "d" if whole:
            return str(int(value))
        case "d" if isinstance(value, float) and not math.isfinite(value):
            return show_double(value)
        case "f" | "e" if whole or isinstance(value, float):
            return format(float(value), f".{precision}{clause}")
        case "b" if isinstance(value, bool):
            return "1" if value else "0"
        case "b" | "o" | "x" | "X" if whole:
            return format(int(value), clause)
        case "x" | "X" if isinstance(value, (str, bytes)):
            made = (value.encode() if isinstance(value, str) else value).hex()
            return made.upper() if clause == "X" else made
    raise EvaluationError(f"error during formatting: %{clause} does not take such a value")


def _shown(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case float():
            return show_double(value)
        case bytes():
            return value.decode("utf-8", "replace")
        case list():
            return "[" + ", ".join(_shown(item) for item in value) + "]"
        case dict():
            shown = sorted((_shown(key), _shown(item)) for key, item in value.items())
            return "{" + ", ".join(f"{key}: {item}" for key, item in shown) + "}"
        case Timestamp():
            return show_timestamp(value)
        case Duration():
            return show_duration(value)
        case TypeValue():
            return value.name
        case str() | int() | UInt():
            return str(value)
    raise EvaluationError("error during formatting: string clause can only be used on plain values")


def _lower(text: str) -> str:
    return "".join(chr(ord(char) + 32) if "A" <= char <= "Z" else char for char in text)


def _upper(text: str) -> str:
    return "".join(chr(ord(char) - 32) if "a" <= char <= "z" else char for char in text)


ROWS: Rows = [
    ("charAt", "string.(int) string", char_at),
    ("contains", "string.(string) bool", lambda text, part: part in text),
    ("endsWith", "string.(string) bool", lambda text, part: text.endswith(part)),
    ("find", "string.(string) string", find),
    ("findAll", "string.(string) list(string)", find_all),
    ("findAll", "string.(string, int) list(string)", find_all),
    ("format", "string.(list(dyn)) string", format_text),
    ("indexOf", "string.(string) int", index_of),
    ("indexOf", "string.(string, int) int", index_of),
    ("join", "list(string).() string", lambda items: "".join(items)),
    ("join", "list(string).(string) string", lambda items, by: by.join(items)),
    ("lastIndexOf", "string.(string) int", last_index_of),
    ("lastIndexOf", "string.(string, int) int", last_index_of),
    ("lowerAscii", "string.() string", _lower),
    ("matches", "string.(string) bool", matches),
    ("matches", "(string, string) bool", matches),
    ("replace", "string.(string, string) string", lambda text, old, new: text.replace(old, new)),
    ("replace", "string.(string, string, int) string", lambda text, old, new, limit: text.replace(old, new, limit)),
    ("split", "string.(string) list(string)", split),
    ("split", "string.(string, int) list(string)", split),
    ("startsWith", "string.(string) bool", lambda text, part: text.startswith(part)),
    ("strings.quote", "(string) string", quote),
    ("substring", "string.(int) string", substring),
    ("substring", "string.(int, int) string", substring),
    ("trim", "string.() string", lambda text: text.strip()),
    ("upperAscii", "string.() string", _upper),
]
"""Functions: name, signature, what does it."""
