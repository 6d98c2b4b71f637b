"""The last requests that came in, from the access log of the local Envoy.

Under load only the end of each piece of the log is decoded: what the screen can show, not what has happened.
"""

from __future__ import annotations

from collections import deque

import msgspec

from sandlane.laptop.inbound import Seen

SHOWN = 20
_decode = msgspec.json.Decoder(Seen).decode


class RequestLog:
    """`feed` takes the log as it comes; `count` is how many requests there were, `last` the newest ones, oldest first."""

    def __init__(self) -> None:
        self.count = 0
        self.last: deque[Seen] = deque(maxlen=SHOWN)
        self._rest = b""

    def feed(self, chunk: bytes) -> list[Seen]:
        """Take a piece of the log; the newest of the requests in it (at most `SHOWN`)."""
        data = self._rest + chunk
        end = data.rfind(b"\n") + 1
        self._rest = data[end:]
        whole = data[:end]
        self.count += whole.count(b"\n")
        newest = whole.rstrip(b"\n").rsplit(b"\n", SHOWN)[-SHOWN:]
        seen = [found for line in newest if (found := _decoded(line)) is not None]
        self.last += seen
        return seen


def _decoded(line: bytes) -> Seen | None:
    """One line; None for one that is not ours (Envoy's own words)."""
    try:
        return _decode(line)
    except msgspec.DecodeError:
        return None
