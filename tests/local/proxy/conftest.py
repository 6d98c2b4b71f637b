"""A real Envoy as the Service proxy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandlane.routing.envoy.server import XdsServer
from support.service_proxy import HOST, Proxy, envoy


@pytest.fixture
async def proxy(tmp_path: Path) -> AsyncIterator[Proxy]:
    """A running proxy that serves nothing yet."""
    xds = XdsServer()
    async with xds.listen(f"{HOST}:0") as port, envoy(tmp_path, port):
        yield Proxy(xds)
