"""Imported first by long-lived processes: keeps packages out that are only for people at a terminal.

structlog imports rich when it is there, for tracebacks in colour; that costs 9 MiB and 0.15 s in every process. The
package `cel` imports its own command line with prompt_toolkit, which costs 0.34 s.
"""

import sys
import types

sys.modules.setdefault("rich", None)  # type: ignore[arg-type]
sys.modules.setdefault("cel.cli", types.ModuleType("cel.cli"))
