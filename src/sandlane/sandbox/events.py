"""Which Events a sandbox's story is told by: one for each transition, none repeated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from sandlane.api.types import Condition, SandboxStatus
from sandlane.kube.metadata import ObjectMeta
from sandlane.kube.resource import SANDBOXES, Resource
from sandlane.runtime.conditions import find_condition, is_true
from sandlane.world.records import Sandbox

WARNING = "Warning"


class Recorder(Protocol):
    """`sandlane.runtime.recorder.EventRecorder`."""

    def event(
        self, resource: Resource, about: ObjectMeta, reason: str, message: str, *, kind: str = ..., action: str = ...
    ) -> None:
        """Record that something happened."""


class Announcer:
    """Tells what changed."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def changes(self, sandbox: Sandbox, changes: Mapping[str, list[str]]) -> None:
        """Objects that were written, by the Event's reason; one Event for each reason."""
        for reason, objects in changes.items():
            kind = WARNING if reason == "DriftCorrected" else "Normal"
            self._say(sandbox, reason, f"{_VERBS[reason]} {', '.join(objects)}", kind)

    def transitions(self, sandbox: Sandbox, new: SandboxStatus) -> None:
        """What a new status says that the old one did not.

        A sandbox that becomes ready has its routes programmed: that is one Event, as it is one moment.
        """
        old = sandbox.status
        was_ready, is_ready = is_true(old.conditions, "Ready"), is_true(new.conditions, "Ready")
        ready = find_condition(new.conditions, "Ready")
        if is_ready and not was_ready:
            self._say(sandbox, "SandboxReady", f"{ready.message if ready else ''}; key {new.routing_key}")
        elif was_ready and ready is not None and not is_ready:
            self._say(sandbox, "SandboxNotReady", f"{ready.reason}: {ready.message}", WARNING)
        if not is_ready and not was_ready:
            routed = is_true(new.conditions, "RoutesProgrammed")
            if routed and find_condition(old.conditions, "RoutesProgrammed") and not _routed(old):
                self._say(sandbox, "RoutesProgrammed", "every ready router serves its routes")
        for kind in ("Accepted", "WithinLimits"):
            before, after = find_condition(old.conditions, kind), find_condition(new.conditions, kind)
            if after is not None and after.status == "False" and not _same(before, after):
                self._say(sandbox, "Refused", f"{after.reason}: {after.message}", WARNING)

    def removed(self, sandbox: Sandbox) -> None:
        """It is gone, with its routes and objects."""
        if sandbox.status.forks or sandbox.spec.local:
            self._say(sandbox, "RoutesRemoved", "no router serves its routes, and its objects are deleted")

    def _say(self, sandbox: Sandbox, reason: str, message: str, kind: str = "Normal") -> None:
        self._recorder.event(SANDBOXES, sandbox.metadata, reason, message, kind=kind)


_VERBS = {
    "Created": "made",
    "Updated": "changed",
    "Deleted": "deleted",
    "DriftCorrected": "somebody else had changed or deleted what is put back now:",
}


def _routed(status: SandboxStatus) -> bool:
    return is_true(status.conditions, "RoutesProgrammed")


def _same(before: Condition | None, after: Condition) -> bool:
    return before is not None and (before.status, before.reason) == (after.status, after.reason)
