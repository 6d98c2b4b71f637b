"""`sandlane connect`, but its tunnel servers are at another address (`HOST:PORT`): that of a proxy which makes faults.

SIGUSR1 makes its certificate one that has expired, as after a long sleep.
"""

from __future__ import annotations

import signal
import sys
import weakref
from datetime import UTC, datetime, timedelta

import msgspec

from sandlane.cli.main import main
from sandlane.laptop import directory
from sandlane.laptop.credentials import Credentials

everybody: weakref.WeakSet[Credentials] = weakref.WeakSet()


def redirect(address: str) -> None:
    """Dial `address` whatever the cluster says."""
    host, _, port = address.rpartition(":")
    found = directory.directory_of
    directory.directory_of = lambda obj: msgspec.structs.replace(found(obj), host=host, port=int(port))


def age() -> None:
    """Let every certificate have ended an hour ago."""
    for each in everybody:
        each._ends = datetime.now(UTC) - timedelta(hours=1)


def remember() -> None:
    """Keep hold of all certificates there are."""
    made = Credentials.__init__

    def init(self: Credentials, *args: object, **options: object) -> None:
        made(self, *args, **options)  # type: ignore[arg-type]
        everybody.add(self)

    Credentials.__init__ = init  # type: ignore[method-assign]


if __name__ == "__main__":
    redirect(sys.argv[1])
    remember()
    signal.signal(signal.SIGUSR1, lambda number, frame: age())
    sys.argv = ["sandlane", *sys.argv[2:]]
    main()
