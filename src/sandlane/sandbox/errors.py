"""Why a fork or a whole sandbox cannot be planned."""

from __future__ import annotations


class PlanError(Exception):
    """A fork cannot be made; `reason` is one of `sandlane.api.reasons`, the message names object and field."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
