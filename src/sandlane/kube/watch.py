"""A watch as a state machine: `step(state, input)` says what to do next. Pure; `sandlane.kube.cache` does it.

LIST --Listed--> WATCH --Ended, Broke--> WATCH again from the last version (after a pause if it broke)
  ^                |
  +----Expired-----+     410, as an HTTP status or as an ERROR event: list again, and compare with what is known
"""

from __future__ import annotations

from enum import Enum
from typing import TypeAlias

import msgspec


class Phase(Enum):
    """What is under way."""

    LIST = "list"
    WATCH = "watch"


class State(msgspec.Struct, frozen=True):
    """Where a watch stands: `resource_version` is the last one seen, `failures` counts those in a row."""

    phase: Phase = Phase.LIST
    resource_version: str = ""
    failures: int = 0


class Listed(msgspec.Struct, frozen=True):
    """A whole list has arrived."""

    resource_version: str


class Seen(msgspec.Struct, frozen=True):
    """An event or a bookmark has arrived."""

    resource_version: str


class Ended(msgspec.Struct, frozen=True):
    """The server ended the watch in good order."""


class Broke(msgspec.Struct, frozen=True):
    """The request failed, the connection broke, or it was silent for too long."""


class Expired(msgspec.Struct, frozen=True):
    """The server no longer knows the version (410)."""


Input: TypeAlias = Listed | Seen | Ended | Broke | Expired


class StartList(msgspec.Struct, frozen=True):
    """List everything."""


class StartWatch(msgspec.Struct, frozen=True):
    """Watch from a version."""

    resource_version: str


class Pause(msgspec.Struct, frozen=True):
    """Wait as long as `failures` in a row deserve, then go on with the next output."""

    failures: int


Output: TypeAlias = StartList | StartWatch | Pause


def begin() -> tuple[State, tuple[Output, ...]]:
    """The first state, and what to do in it."""
    return State(), (StartList(),)


def step(state: State, event: Input) -> tuple[State, tuple[Output, ...]]:
    """The next state, and what to do in it (nothing while a watch goes on)."""
    match event:
        case Listed(version):
            return State(Phase.WATCH, version), (StartWatch(version),)
        case Seen(version):
            return State(state.phase, version), ()
        case Ended():
            return State(Phase.WATCH, state.resource_version), (StartWatch(state.resource_version),)
        case Expired():
            # One failure counts: a server that answers every watch with 410 must not be listed in a loop.
            failed = State(Phase.LIST, "", state.failures + 1)
            return failed, (Pause(failed.failures), StartList())
        case Broke():
            failed = State(state.phase, state.resource_version, state.failures + 1)
            again: Output = StartList() if state.phase is Phase.LIST else StartWatch(state.resource_version)
            return failed, (Pause(failed.failures), again)
