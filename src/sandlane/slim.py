"""Imported first by long-lived processes: keeps packages out that are only for people at a terminal.

structlog imports rich when it is there, for tracebacks in colour; that costs 9 MiB and 0.15 s in every process.
"""

import sys

sys.modules.setdefault("rich", None)  # type: ignore[arg-type]
