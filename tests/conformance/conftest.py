"""One cluster for all scenarios of a test worker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.conformance.cluster import Cluster, running


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running API server with the controllers that scenarios wait for."""
    with running(tmp_path_factory.mktemp("conformance") / "data") as cluster:
        yield cluster
