"""The watch state machine, as a table: what each input leads to in each state."""

from __future__ import annotations

import pytest

from sandlane.kube.watch import (
    Broke,
    Ended,
    Expired,
    Input,
    Listed,
    Output,
    Pause,
    Phase,
    Seen,
    StartList,
    StartStream,
    StartWatch,
    State,
    Synced,
    Unsupported,
    begin,
    step,
)

STREAM = State(Phase.STREAM)
LIST = State(Phase.LIST, streaming=False)
WATCH = State(Phase.WATCH, "7")


def test_it_begins_with_a_streaming_list_or_a_plain_one() -> None:
    """Where streaming lists are not wanted, a plain list comes first."""
    assert begin() == (STREAM, (StartStream(),))
    assert begin(streaming=False) == (LIST, (StartList(),))


@pytest.mark.parametrize(
    ("state", "event", "after", "outputs"),
    [
        # A streaming list becomes a watch without another request; versions before its end do not count.
        (STREAM, Synced("5"), State(Phase.WATCH, "5"), ()),
        (STREAM, Seen("3"), STREAM, ()),
        (STREAM, Unsupported(), State(Phase.LIST, streaming=False), (StartList(),)),
        (STREAM, Broke(), State(Phase.STREAM, failures=1), (Pause(1), StartStream())),
        (State(Phase.STREAM, failures=2), Broke(), State(Phase.LIST, failures=3), (Pause(3), StartList())),
        (STREAM, Ended(60), State(Phase.STREAM, failures=1), (Pause(1), StartStream())),
        (STREAM, Expired(), State(Phase.STREAM, failures=1), (Pause(1), StartStream())),
        # A list leads to a watch from its version; pages that expire lead to a list in one page.
        (LIST, Listed("5"), State(Phase.WATCH, "5", streaming=False), (StartWatch("5"),)),
        (LIST, Broke(wait=9), State(Phase.LIST, failures=1, streaming=False), (Pause(1, 9), StartList())),
        (LIST, Expired(), State(Phase.LIST, failures=1, streaming=False), (Pause(1), StartList(whole=True))),
        # A watch goes on from the last version seen, without a list.
        (WATCH, Seen("8"), State(Phase.WATCH, "8"), ()),
        (WATCH, Ended(300), WATCH, (StartWatch("7"),)),
        (WATCH, Broke(1), State(Phase.WATCH, "7", 1), (Pause(1), StartWatch("7"))),
        (State(Phase.WATCH, "7", 4), Broke(60), State(Phase.WATCH, "7", 1), (Pause(1), StartWatch("7"))),
        # A server that ends each watch at once is asked less and less often.
        (State(Phase.WATCH, "7", 4), Ended(0.1), State(Phase.WATCH, "7", 5), (Pause(5), StartWatch("7"))),
        # 410 means a new list, and it is a failure also right after a list.
        (WATCH, Expired(300), State(Phase.STREAM, failures=1), (Pause(1), StartStream())),
        (State(Phase.WATCH, "7", 2), Expired(), State(Phase.STREAM, failures=3), (Pause(3), StartStream())),
        (
            State(Phase.WATCH, "7", streaming=False),
            Expired(),
            State(Phase.LIST, failures=1, streaming=False),
            (Pause(1), StartList()),
        ),
    ],
)
def test_step(state: State, event: Input, after: State, outputs: tuple[Output, ...]) -> None:
    """Each input has one answer in each state."""
    assert step(state, event) == (after, outputs)


def test_a_server_that_expires_every_watch_is_not_listed_in_a_loop() -> None:
    """Failures add up over list, watch, 410, list, watch, 410."""
    state, failures = LIST, []
    for _ in range(5):
        state, _ = step(state, Listed("5"))
        state, outputs = step(state, Expired(0.1))
        failures.append(outputs[0])
    assert failures == [Pause(n) for n in range(1, 6)]
