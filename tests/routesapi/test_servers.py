"""The routes API as its clients see it: over HTTP and over gRPC."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import grpc.aio
import pytest

from sandlane.routesapi import routes_pb2 as pb
from sandlane.routesapi.grpc_server import SERVICE, Authenticate, RoutesServicer, serve_grpc
from sandlane.routesapi.http_server import routes_app
from sandlane.runtime.health import serve
from support.feed import Fed, feeding
from support.routed import sandbox
from support.workloads import DEADLINE


@asynccontextmanager
async def serving(fed: Fed, auth: Authenticate | None = None) -> AsyncIterator[tuple[str, grpc.aio.Channel]]:
    """Both servers: the HTTP one's URL, and a channel to the other."""
    async with AsyncExitStack() as stack:
        host, port = await serve(stack, routes_app(fed.feed, auth), "127.0.0.1:0")
        other = await stack.enter_async_context(serve_grpc(RoutesServicer(fed.feed, auth), "127.0.0.1:0"))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{other}"))
        yield f"http://{host}:{port}", channel


def list_rules(channel: grpc.aio.Channel) -> grpc.aio.UnaryUnaryMultiCallable:
    return channel.unary_unary(
        f"/{SERVICE}/ListRules", pb.ListRulesRequest.SerializeToString, pb.ListRulesResponse.FromString
    )


async def test_lists_and_watches() -> None:
    """Both ways give the same rules and digests, filtered alike, and follow changes."""
    async with feeding(*sandbox("a"), *sandbox("b", of="drivers")) as fed, serving(fed) as (url, channel):
        async with aiohttp.ClientSession() as session, asyncio.timeout(DEADLINE):
            async with session.get(f"{url}/v1/rules?name=eta") as answer:
                listed = await answer.json()
            assert [(rule["key"], rule["workload"]) for rule in listed["rules"]] == [("key-a", "eta-a")]
            wanted = pb.Filter(name="eta")
            told = await list_rules(channel)(pb.ListRulesRequest(filter=wanted))
            assert told.digest == listed["digest"]
            assert told.rules[0].baseline == pb.Workload(namespace="n", kind="Deployment", name="eta")
            assert told.rules[0].routes[0] == pb.ServiceRoute(service="eta", port=80, host="eta-a.n.svc")
            watch = channel.unary_stream(
                f"/{SERVICE}/WatchRules", pb.WatchRulesRequest.SerializeToString, pb.RuleEvent.FromString
            )(pb.WatchRulesRequest(filter=wanted))
            async with session.get(f"{url}/v1/rules?name=eta&watch=true") as stream:
                for op in ("ADD", "SYNCED"):
                    line = json.loads(await stream.content.readline())
                    event = await watch.read()
                    assert line["op"] == pb.RuleEvent.Op.Name(event.op) == op
                    assert line["digest"] == event.digest == listed["digest"]
                await fed.delete("Sandbox", "a")
                assert json.loads(await stream.content.readline())["op"] == "REMOVE"
                assert (await watch.read()).op == pb.RuleEvent.REMOVE
            watch.cancel()


async def test_before_everything_is_known() -> None:
    """A replica that has not listed the cluster says so instead of answering a part."""
    async with feeding() as fed, serving(fed) as (url, channel), aiohttp.ClientSession() as session:
        fed.feed.synced.clear()
        for path in ("/v1/rules", "/healthz"):
            async with session.get(url + path) as answer:
                assert answer.status == 503
        with pytest.raises(grpc.aio.AioRpcError, match="not been listed"):
            await list_rules(channel)(pb.ListRulesRequest())


@pytest.mark.parametrize(("query", "words"), [("sandbx=a", "unknown parameter 'sandbx'"), ("watch=1", "watch='1'")])
async def test_a_wrong_question(query: str, words: str) -> None:
    """A misspelt parameter is an error that says what there is."""
    async with feeding() as fed, serving(fed) as (url, _), aiohttp.ClientSession() as session:
        async with session.get(f"{url}/v1/rules?{query}") as answer:
            assert answer.status == 400
            assert words in (await answer.json())["error"]


async def test_only_who_may() -> None:
    """With authentication on, a wrong token is refused on both ways, a right one is let in."""

    async def auth(authorization: str) -> int:
        return {"Bearer right": 200, "Bearer other": 403}.get(authorization, 401)

    async with feeding() as fed, serving(fed, auth) as (url, channel), aiohttp.ClientSession() as session:
        for token, status in (("", 401), ("Bearer other", 403), ("Bearer right", 200)):
            async with session.get(f"{url}/v1/rules", headers={"authorization": token}) as answer:
                assert answer.status == status
        call = list_rules(channel)
        assert not (await call(pb.ListRulesRequest(), metadata=[("authorization", "Bearer right")])).rules
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(pb.ListRulesRequest())
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
