"""The demo, run as a user runs it. (`demo_local.py` runs with the other tests of the laptop.)"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

RIDES = Path(__file__).resolve().parents[2] / "examples" / "rides"


def test_the_demo_ends_well() -> None:
    """From an empty folder to the last check, every answer is right and nothing is left running."""
    done = subprocess.run(
        [sys.executable, str(RIDES / "demo.py")],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Every request went where its key says." in done.stdout
