"""What the write pipeline asks of admission."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sandlane.kube.resource import Object

if TYPE_CHECKING:
    from sandlane.local.apiserver.writer import Write


class Admission(Protocol):
    """Admission webhooks and policies, and built-in admission."""

    async def mutate(self, write: Write, operation: str, new: Object | None, old: Object | None) -> Object | None:
        """The object as the mutating webhooks leave it. Raises `StatusError`."""

    async def validate(self, write: Write, operation: str, new: Object | None, old: Object | None) -> None:
        """Raises `StatusError` when somebody refuses."""


class NoAdmission:
    """Nobody objects."""

    async def mutate(self, write: Write, operation: str, new: Object | None, old: Object | None) -> Object | None:
        """As it is."""
        return new

    async def validate(self, write: Write, operation: str, new: Object | None, old: Object | None) -> None:
        """Fine."""
