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
        raise RegexError(f"error parsing regexp: {text}") from error
    except (UnicodeError, ValueError) as error:
        raise RegexError(f"error parsing regexp: {error}") from error
