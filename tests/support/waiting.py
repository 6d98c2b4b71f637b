"""Waiting for what must come to be so."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from sandlane.kube.errors import KubeError, NotFound
from sandlane.kube.resource import Resource


async def until(check: Callable[[], Awaitable[Any]], what: str, *, within: float = 20.0, pause: float = 0.01) -> Any:
    """Wait until a check gives something true, and give that; errors of the API and missing files count as false.

    Raises `AssertionError` after `within` seconds.
    """
    last: object = None
    try:
        async with asyncio.timeout(within):
            while True:
                try:
                    last = found = await check()
                except (KubeError, FileNotFoundError) as error:
                    last, found = error, None
                if found:
                    return found
                await asyncio.sleep(pause)
    except TimeoutError:
        raise AssertionError(f"not so after {within:.0f} s: {what}; last: {last}") from None


async def until_gone(client: Any, resource: Resource, name: str, namespace: str | None = None) -> None:
    """Wait until an object does not exist."""

    async def check() -> bool:
        try:
            await client.get(resource, name, namespace)
        except NotFound:
            return True
        return False

    await until(check, f"{resource.plural} {name} is gone")
