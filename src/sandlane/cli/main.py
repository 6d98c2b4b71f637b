"""The entry point of the `sandlane` script. The manager is started without the command line's own packages: it is the
one long-lived process among the commands."""

from __future__ import annotations

import sys


def main() -> None:
    """Run a command and exit; with 130 and no more words when Ctrl-C comes, however early."""
    try:
        _run()
    except KeyboardInterrupt:
        sys.exit(130)


def _run() -> None:
    if sys.argv[1:2] == ["manager"]:
        import sandlane.slim  # noqa: F401 - first
        from sandlane.cli.manager import main as run_manager

        sys.exit(run_manager(sys.argv[2:]))
    from sandlane.cli.app import app

    app(prog_name="sandlane")
