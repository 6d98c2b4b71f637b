"""How many generated cases a test tries: `SANDLANE_THOROUGH=20 make test` tries twenty times as many as usual."""

from __future__ import annotations

import os


def cases(usual: int) -> int:
    """The number of cases where one run of the suite usually tries this many."""
    return usual * int(os.environ.get("SANDLANE_THOROUGH", "1"))
