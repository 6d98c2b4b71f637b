"""The pure core imports no event loop, no HTTP, no gRPC, no randomness."""

from __future__ import annotations

import subprocess
import sys

PURE = (
    "sandlane.api.crd",
    "sandlane.api.validation",
    "sandlane.world.world",
    "sandlane.world.policies",
    "sandlane.sandbox.plan",
    "sandlane.sandbox.resources",
    "sandlane.sandbox.names",
    "sandlane.sandbox.status",
    "sandlane.routegroup.plan",
    "sandlane.routegroup.status",
    "sandlane.routing.build",
    "sandlane.routing.table",
)
IMPURE = ("asyncio", "aiohttp", "grpc", "random", "socket")


def test_the_core_is_pure() -> None:
    """Importing all of the core loads nothing that can do I/O or roll dice."""
    code = f"import sys, {', '.join(PURE)}\nprint([name for name in {IMPURE} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
