"""Regular expressions as Kubernetes means them: RE2's dialect, in time that only grows with the text. Pure."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import re2


class RegexError(ValueError):
    """A text that is no regular expression."""


@lru_cache(maxsize=2048)
def compiled(pattern: str) -> Any:
    """A regular expression with `search` and `finditer`. Raises `RegexError`."""
    options = re2.Options()
    options.log_errors = False
    options.max_mem = 8 << 20
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        why = error.args[0]
        text = why.decode("utf-8", "replace") if isinstance(why, bytes) else str(why)
        raise RegexError(f"error parsing regexp: {_as_go(text, pattern)}") from error
    except (UnicodeError, ValueError) as error:
        raise RegexError(f"error parsing regexp: {error}") from error


_WORDS = {
    "missing )": "missing closing )",
    "missing ]": "missing closing ]",
    "no argument for repetition operator": "missing argument to repetition operator",
    "bad repetition operator": "invalid nested repetition operator",
    "invalid repetition size": "invalid repeat count",
    "invalid perl operator": "invalid or unsupported Perl syntax",
}


def _as_go(text: str, pattern: str) -> str:
    """What is wrong with a pattern in the words of Go's package regexp."""
    what, _, where = text.partition(": ")
    return f"{_WORDS.get(what, what)}: `{pattern if what == 'missing )' else where}`" if where else text
