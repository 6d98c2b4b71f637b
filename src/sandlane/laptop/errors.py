"""What can go wrong on the laptop's side, in words for its user."""

from __future__ import annotations


class ConnectError(Exception):
    """The laptop cannot be connected; the message says why and what to do."""
