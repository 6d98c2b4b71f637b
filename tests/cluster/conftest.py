"""The API server under test: an embedded one for these tests, or the one that SANDLANE_TEST_KUBECONFIG names.

Tests must not care which: they make what they need under names of their own and leave nothing that is in the way of the
next run. Nothing but an API server may be expected: there may be no controllers and no nodes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.conformance.cluster import running


@pytest.fixture(scope="session")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """How to reach the API server under test, as an administrator."""
    if given := os.environ.get("SANDLANE_TEST_KUBECONFIG"):
        yield Path(given)
        return
    with running(tmp_path_factory.mktemp("cluster") / "data", controllers=False) as cluster:
        yield cluster.kubeconfig
