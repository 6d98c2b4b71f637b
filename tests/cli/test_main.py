"""The entry point of the `sandlane` script."""

from __future__ import annotations

import pytest

from sandlane.cli import main


def test_an_early_ctrl_c_ends_it_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while packages are still loaded: exit code 130, as shells expect it, and no traceback."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "_run", interrupted)
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 130
