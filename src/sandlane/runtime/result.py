"""What a reconcile can answer: done, again, again after a delay; everything else is an exception."""

from __future__ import annotations

import msgspec

from sandlane.kube.resource import Key

Request = Key
"""The key of the object to reconcile."""


class Result(msgspec.Struct, frozen=True):
    """The outcome of a reconcile. Make it by `done`, `requeue` or `requeue_after`."""

    again: bool = False
    after: float | None = None

    @classmethod
    def done(cls) -> Result:
        """Nothing more to do until something changes."""
        return cls()

    @classmethod
    def requeue(cls) -> Result:
        """Again, with the key's back-off."""
        return cls(again=True)

    @classmethod
    def requeue_after(cls, seconds: float) -> Result:
        """Again after `seconds`, unless something changes before."""
        return cls(after=max(0.0, seconds))


class TransientError(Exception):
    """The reconcile should be tried again with back-off."""


class PermanentError(Exception):
    """Trying again cannot help before something changes; `reason` and the message go into a condition."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
