"""A command that goes on in the background: it is run again as another process, and imports nothing before that."""

from __future__ import annotations

import os
import subprocess
import sys

DETACHED = "SANDLANE_DETACHED"
"""Set for the process that goes on in the background."""


def start_detached(*, with_input: bool) -> int:
    """Run this command again in the background; its exit code, or 0 when it goes on, with everything that it has said until then."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sandlane", *sys.argv[1:]],
        env=os.environ | {DETACHED: "1"},
        stdin=None if with_input else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:  # it ends when the process goes to the background, or for good
        print(line, end="", flush=True)
    try:
        return process.wait(timeout=0.5)
    except subprocess.TimeoutExpired:
        return 0
