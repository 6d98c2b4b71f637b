"""Calls of webhooks over the network: how long they may take, and what goes wrong."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sandlane.local.apiserver.store.objects import ObjectStore
from sandlane.local.apiserver.webhook_calls import Caller, CallFailed


async def failure(client: dict[str, Any], within: float = 30.0) -> str:
    """Why a call fails."""
    store = ObjectStore()
    caller = Caller(store)
    try:
        with pytest.raises(CallFailed) as caught:
            await caller.post(client, b"{}", within)
        return str(caught.value)
    finally:
        await caller.close()
        store.close()


async def test_a_webhook_that_does_not_answer_is_given_up() -> None:
    """The time of a call is bounded, also where the connection is open and nothing comes."""
    open_: list[asyncio.StreamWriter] = []

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_.append(writer)

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with asyncio.timeout(10):
        why = await failure({"url": f"https://127.0.0.1:{port}/x"}, 0.2)
    server.close()
    for writer in open_:
        writer.close()
    assert why == f'failed to call webhook: Post "https://127.0.0.1:{port}/x": context deadline exceeded'


@pytest.mark.parametrize(
    ("client", "why"),
    [
        ({"url": "https://127.0.0.1:1/x"}, 'Post "https://127.0.0.1:1/x": Cannot connect'),
        ({"service": {"namespace": "d", "name": "s"}}, 'service "s" not found'),
        ({"url": "https://127.0.0.1:1/x", "caBundle": "bm90aGluZw=="}, "Post"),
    ],
)
async def test_what_cannot_be_reached(client: dict[str, Any], why: str) -> None:
    """The reason says where it was tried."""
    assert why in await failure(client)
