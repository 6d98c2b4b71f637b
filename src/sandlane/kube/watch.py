"""A watch as a state machine: `step(state, input)` says what to do next. Pure; `sandlane.kube.informer` does it.

STREAM --Synced--> WATCH        the streaming list (KEP-3157): initial events, a bookmark, then the watch goes on
   |                 |  ^
   | Unsupported     |  +-- Ended, Broke: watch again from the last version seen, without a list
   v                 v
 LIST  --Listed--> WATCH --Expired--> STREAM or LIST    410, as an HTTP status or as an ERROR event

After a failure comes a pause. What counts as success is a watch that lasted (`LASTED` seconds): a server that answers
each list but ends each watch at once is asked less and less often.
"""

from __future__ import annotations

from enum import Enum
from typing import TypeAlias

import msgspec

LASTED = 5.0
"""Seconds after which a watch counts as having worked."""
STREAM_ATTEMPTS = 3
"""Streaming lists that fail in a row before plain lists are tried."""


class Phase(Enum):
    """What is under way."""

    STREAM = "stream"
    LIST = "list"
    WATCH = "watch"


class State(msgspec.Struct, frozen=True):
    """Where a watch stands: `resource_version` is the last one seen, `failures` counts those in a row."""

    phase: Phase
    resource_version: str = ""
    failures: int = 0
    streaming: bool = True


class Listed(msgspec.Struct, frozen=True):
    """A whole list has arrived."""

    resource_version: str


class Synced(msgspec.Struct, frozen=True):
    """The initial events of a streaming list have all arrived; its watch goes on."""

    resource_version: str


class Seen(msgspec.Struct, frozen=True):
    """Events or a bookmark have arrived."""

    resource_version: str


class Ended(msgspec.Struct, frozen=True):
    """The server ended the watch in good order after `lasted` seconds."""

    lasted: float = 0.0


class Broke(msgspec.Struct, frozen=True):
    """The request failed, or the connection broke or was silent for too long. `wait`: seconds the server asks for."""

    lasted: float = 0.0
    wait: float = 0.0


class Expired(msgspec.Struct, frozen=True):
    """The server no longer knows the version, or the pages of the list (410)."""

    lasted: float = 0.0


class Unsupported(msgspec.Struct, frozen=True):
    """The server has no streaming lists."""


Input: TypeAlias = Listed | Synced | Seen | Ended | Broke | Expired | Unsupported


class StartStream(msgspec.Struct, frozen=True):
    """Start a streaming list."""


class StartList(msgspec.Struct, frozen=True):
    """List everything; `whole`: in one page, because pages expired before."""

    whole: bool = False


class StartWatch(msgspec.Struct, frozen=True):
    """Watch from a version."""

    resource_version: str


class Pause(msgspec.Struct, frozen=True):
    """Wait as long as `failures` in a row deserve and at least `seconds`, then go on with the next output."""

    failures: int
    seconds: float = 0.0


Output: TypeAlias = StartStream | StartList | StartWatch | Pause


def begin(*, streaming: bool = True) -> tuple[State, tuple[Output, ...]]:
    """The first state, and what to do in it."""
    first = Phase.STREAM if streaming else Phase.LIST
    return State(first, streaming=streaming), (_start(first),)


def step(state: State, event: Input) -> tuple[State, tuple[Output, ...]]:
    """The next state, and what to do in it (nothing while a watch goes on)."""
    match event:
        case Listed(version):
            return State(Phase.WATCH, version, state.failures, state.streaming), (StartWatch(version),)
        case Synced(version):
            return State(Phase.WATCH, version, state.failures, state.streaming), ()
        case Seen(version):
            if state.phase is Phase.WATCH:
                return msgspec.structs.replace(state, resource_version=version), ()
            return state, ()  # a version counts once all initial events are there
        case Unsupported():
            return State(Phase.LIST, "", state.failures, streaming=False), (StartList(),)
        case Ended(lasted) if state.phase is Phase.WATCH and lasted >= LASTED:
            return State(Phase.WATCH, state.resource_version, 0, state.streaming), (StartWatch(state.resource_version),)
        case Ended(lasted):
            return _again(state, _failures(state, lasted), 0.0)
        case Broke(lasted, wait):
            return _again(state, _failures(state, lasted), wait)
        case Expired(lasted):
            failures = _failures(state, lasted)
            phase = Phase.STREAM if state.streaming and state.phase is not Phase.LIST else Phase.LIST
            return State(phase, "", failures, state.streaming), (
                Pause(failures),
                _start(phase, whole=state.phase is Phase.LIST),
            )


def _failures(state: State, lasted: float) -> int:
    return 1 if state.phase is Phase.WATCH and lasted >= LASTED else state.failures + 1


def _again(state: State, failures: int, wait: float) -> tuple[State, tuple[Output, ...]]:
    pause = Pause(failures, wait)
    if state.phase is Phase.WATCH:
        version = state.resource_version
        return State(Phase.WATCH, version, failures, state.streaming), (pause, StartWatch(version))
    phase = Phase.LIST if failures >= STREAM_ATTEMPTS else state.phase
    return State(phase, "", failures, state.streaming), (pause, _start(phase))


def _start(phase: Phase, *, whole: bool = False) -> Output:
    return StartStream() if phase is Phase.STREAM else StartList(whole)
