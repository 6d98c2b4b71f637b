"""The manager's options of routing: flags become what applies at every door, and mistakes are told."""

from __future__ import annotations

import pytest

from sandlane.cli.manager import door_options, parse
from sandlane.routing.envoy.listeners import DoorOptions
from sandlane.routing.key import KeySources
from sandlane.runtime.options import OptionsError


def test_flags_choose_where_keys_are_looked_for() -> None:
    """Members, headers, a query parameter and the access log are set by flags; the defaults are those of the contract."""
    assert door_options(parse([])) == DoorOptions()
    flags = ["--routing-key-members", "sandlane-routing-key,sd-routing-key", "--routing-key-headers", "X-Key"]
    flags += ["--routing-key-query-parameter", "key", "--router-access-log", "all"]
    sources = KeySources(("sandlane-routing-key", "sd-routing-key"), ("X-Key",), "key")
    assert door_options(parse(flags)) == DoorOptions(sources, "all")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--routing-key-headers", "Host"], "Host cannot carry"),
        (["--router-access-log", "some"], "none, failures, overrides, all"),
    ],
)
def test_mistakes_are_told(flags: list[str], said: str) -> None:
    """What cannot be is refused before anything runs, with what may be."""
    with pytest.raises(OptionsError, match=said):
        door_options(parse(flags))
