"""The routes API over gRPC, as `routes.proto` describes it. Each call is a task of the gRPC server's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio

from sandlane.routesapi import routes_pb2 as pb
from sandlane.routesapi.feed import Digest, Event, Feed, Filter, TooSlow
from sandlane.routing.workloads import WorkloadRule

SERVICE = "sandlane.routes.v1.Routes"
_OPTIONS = [
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
]
_STATUS = {401: grpc.StatusCode.UNAUTHENTICATED, 403: grpc.StatusCode.PERMISSION_DENIED}

Authenticate = Callable[[str], Awaitable[int]]
"""The HTTP status for the value of an Authorization header: 200, 401, 403, or 500 when nobody can say."""


class RoutesServicer:
    """Answers calls from a feed."""

    def __init__(self, feed: Feed, authenticate: Authenticate | None = None) -> None:
        self._feed = feed
        self._authenticate = authenticate

    async def list_rules(self, request: Any, context: Any) -> Any:
        """`ListRules`."""
        await self._let_in(context)
        if not self._feed.synced.is_set():
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the cluster has not been listed yet")
        rules = self._feed.rules(_filter(request.filter))
        return pb.ListRulesResponse(rules=[_rule(rule) for rule in rules], digest=str(Digest(rules)))

    async def watch_rules(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """`WatchRules`."""
        await self._let_in(context)
        try:
            async for event in self._feed.watch(_filter(request.filter), "grpc"):
                yield _event(event)
        except TooSlow as error:
            await context.abort(grpc.StatusCode.OUT_OF_RANGE, f"{error}: connect again")

    async def _let_in(self, context: Any) -> None:
        if self._authenticate is None:
            return
        sent = dict(context.invocation_metadata() or ())
        status = await self._authenticate(str(sent.get("authorization", "")))
        if status != 200:
            await context.abort(_STATUS.get(status, grpc.StatusCode.UNAVAILABLE), "a bearer token that may read routes")


@asynccontextmanager
async def serve_grpc(servicer: RoutesServicer, address: str) -> AsyncIterator[int]:
    """Serve at `host:port`; gives the port. Raises `OSError` when the address cannot be had."""
    server = grpc.aio.server(options=_OPTIONS)
    handlers: dict[str, Any] = {
        "ListRules": grpc.unary_unary_rpc_method_handler(
            servicer.list_rules, pb.ListRulesRequest.FromString, pb.ListRulesResponse.SerializeToString
        ),
        "WatchRules": grpc.unary_stream_rpc_method_handler(
            servicer.watch_rules, pb.WatchRulesRequest.FromString, pb.RuleEvent.SerializeToString
        ),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    try:
        port: int = server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"cannot serve routes at {address}: {error}") from error
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0.2)


def _filter(sent: Any) -> Filter:
    return Filter(sent.key, sent.namespace, sent.kind, sent.name, sent.sandbox)


def _rule(rule: WorkloadRule) -> pb.Rule:
    return pb.Rule(
        key=rule.key,
        baseline=pb.Workload(namespace=rule.namespace, kind=rule.kind, name=rule.name),
        sandbox=rule.sandbox,
        via=rule.via,
        workload=rule.workload,
        local=rule.local,
        routes=[pb.ServiceRoute(service=each.service, port=each.port, host=each.host) for each in rule.routes],
    )


def _event(event: Event) -> pb.RuleEvent:
    rule = _rule(event.rule) if event.rule is not None else None
    return pb.RuleEvent(op=event.op, rule=rule, digest=event.digest)
