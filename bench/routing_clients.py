"""Stand-ins for routers: `python -m bench.routing_clients PORT GROUP...` keeps a delta ADS stream for each group and confirms all it gets."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import grpc.aio

from sandlane.routing.envoy.delta import CLUSTER, ENDPOINTS, LISTENER, MARK, ROUTES, SCOPED_ROUTES
from support.xds import channel, stream


async def client(over: Any, group: str) -> None:
    """One router: asks for what it hears of, as Envoy does."""
    made = stream(over)
    asked: dict[str, set[str]] = {ENDPOINTS: set(), ROUTES: set(), SCOPED_ROUTES: set()}

    async def also(type_url: str, names: list[str]) -> None:
        new = [name for name in names if name not in asked[type_url]]
        asked[type_url].update(new)
        if new:
            await made.ask(type_url, new)

    await made.ask(CLUSTER, node=("stand-in", group))
    await made.ask(LISTENER)
    while (response := await made.call.read()) is not grpc.aio.EOF:
        await made.ack(response)
        names = [each.name for each in response.resources]
        if response.type_url == CLUSTER:
            await also(ENDPOINTS, [name for name in names if not name.startswith("forks/")])
        elif response.type_url == LISTENER:
            await also(SCOPED_ROUTES, ["*"])
            await also(ROUTES, [MARK])
        elif response.type_url == SCOPED_ROUTES:
            await also(ROUTES, names)  # shards are named as their scopes


async def main(port: int, groups: list[str]) -> None:
    """All of them."""
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        for group in groups:
            tasks.create_task(client(await stack.enter_async_context(channel(port)), group))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2:]))
