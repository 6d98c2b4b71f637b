"""Options of the whole suite."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import settings

from support.thorough import cases

settings.register_profile("usual", max_examples=cases(50), deadline=None)
settings.load_profile("usual")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden/**/out.yaml")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be rewritten."""
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture(autouse=True)
def logs_as_by_default() -> Iterator[None]:
    """No test's logs go where an earlier one wanted them."""
    yield
    structlog.reset_defaults()


HEAVY = (
    "e2e/test_up", "e2e/test_laptop", "e2e/test_uninstall", "conformance/test_scenarios", "e2e/test_route_changes", "e2e/test_rights",
    "faults/test_leaders", "e2e/test_examples", "e2e/test_admission", "faults/test_sandbox_faults", "e2e/test_demo",
    "faults/test_routegroup_faults", "test_guestbook", "store/test_killed", "apiserver/test_killed", "install/test_chart",
    "faults/test_routing_faults", "test_any_request",
)  # fmt: skip
"""Modules that take long, the longest first; with four workers those that share a cluster come to one of them."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Each worker begins with some of the long modules, so that none is left alone with them at the end."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers == 1:
        return

    def heaviness(item: pytest.Item) -> int:
        return next((i for i, name in enumerate(HEAVY) if f"{name}.py" in item.nodeid), len(HEAVY))

    parts: list[list[pytest.Item]] = [[] for _ in range(workers)]
    light = [item for item in items if heaviness(item) == len(HEAVY)]
    for item in sorted(items, key=heaviness):
        if heaviness(item) < len(HEAVY):
            turn = heaviness(item) % (2 * workers)  # there and back again
            parts[min(turn, 2 * workers - 1 - turn)].append(item)
    left = len(items)
    for number, part in enumerate(parts[:-1]):  # xdist gives each worker its share of what is left
        share = left // (workers - number)
        missing = max(0, share - len(part))
        part += light[:missing]
        del light[:missing]
        left -= share
    items[:] = [item for part in [*parts, light] for item in part]
