"""The demos, run as a user runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

RIDES = Path(__file__).resolve().parents[2] / "examples" / "rides"


@pytest.mark.parametrize(
    ("script", "last_words"),
    [
        ("demo.py", "Every request went where its key says."),
        ("demo_local.py", "The laptop answered what its key sent, and nothing else."),
    ],
)
def test_a_demo_ends_well(script: str, last_words: str) -> None:
    """From an empty folder to the last check, every answer is right and nothing is left running."""
    done = subprocess.run(
        [sys.executable, str(RIDES / script)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert last_words in done.stdout
