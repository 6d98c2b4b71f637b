"""What routers report about a Sandbox, RouteGroup or LocalWorkload, as those who write statuses ask for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from sandlane.kube.resource import Key


class RouteReport(Protocol):
    """What the routers say about the routes of one object."""

    @property
    def programmed(self) -> bool:
        """Whether every ready router serves its routes as the world wants them now."""

    @property
    def reason(self) -> str:
        """Why not (or, when they are programmed, what is to be said all the same)."""

    @property
    def message(self) -> str:
        """The same in words."""

    @property
    def served(self) -> bool:
        """Whether some router still serves a route of it."""


class Routes(Protocol):
    """Where reports come from (`sandlane.routing.report.RouteReports`)."""

    def sandbox(self, key: Key) -> RouteReport | None:
        """About a Sandbox; None while nothing is known."""

    def route_group(self, key: Key) -> RouteReport | None:
        """About a RouteGroup; None while nothing is known."""

    def subscribe(self, callback: Callable[[str, Key], None]) -> None:
        """Call back with kind (`Sandbox`, `RouteGroup`, ...) and key whenever a report changes."""
