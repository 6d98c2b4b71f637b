"""Golden files: every folder `tests/golden/<stage>/<case>` has `in.yaml` and `out.yaml`; `--update-golden` rewrites them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent / "golden"


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


def cases(stage: str) -> list[Path]:
    """The folders of a stage."""
    return sorted(path.parent for path in (ROOT / stage).glob("*/in.yaml"))


def read(case: Path) -> list[dict[str, Any]]:
    """The objects of a case."""
    return [obj for obj in yaml.safe_load_all((case / "in.yaml").read_text()) if obj]


def check(case: Path, result: Any, *, update: bool) -> None:
    """Compare a result with the case's `out.yaml`."""
    text = yaml.dump(result, Dumper=_Dumper, sort_keys=True, width=120, allow_unicode=True)
    path = case / "out.yaml"
    if update:
        path.write_text(text)
        return
    if not path.exists():
        pytest.fail(f"{path} is missing: run with --update-golden and read it")
    assert yaml.safe_load(text) == yaml.safe_load(path.read_text()), f"{path}: see the difference by --update-golden"
