"""The routes API over HTTP: `GET /v1/rules` as one JSON document, or with `watch=true` as one JSON object per line."""

from __future__ import annotations

import msgspec
from aiohttp import web

from sandlane.routesapi.feed import Digest, Event, Feed, Filter, TooSlow
from sandlane.routesapi.grpc_server import Authenticate
from sandlane.routing.workloads import WorkloadRule

PATH = "/v1/rules"
_FILTERS = Filter.__struct_fields__


class _Listed(msgspec.Struct):
    digest: str
    rules: list[WorkloadRule]


def routes_app(feed: Feed, authenticate: Authenticate | None = None) -> web.Application:
    """The application."""

    async def rules(request: web.Request) -> web.StreamResponse:
        if authenticate is not None:
            status = await authenticate(request.headers.get("authorization", ""))
            if status != 200:
                return _refusal(status, "a bearer token that may `get` the path /v1/rules is needed")
        query = dict(request.query)
        watch = query.pop("watch", "false")
        unknown = sorted(query.keys() - set(_FILTERS))
        if unknown or watch not in ("true", "false"):
            wrong = f"unknown parameter {unknown[0]!r}" if unknown else f"watch={watch!r}: it must be true or false"
            return _refusal(400, f"{wrong}; there are: {', '.join([*_FILTERS, 'watch'])}")
        wanted = msgspec.convert(query, Filter)
        if watch == "true":
            return await _watch(request, feed, wanted)
        if not feed.synced.is_set():
            return _refusal(503, "the cluster has not been listed yet: ask again")
        found = feed.rules(wanted)
        body = msgspec.json.encode(_Listed(str(Digest(found)), found))
        return web.Response(body=body, content_type="application/json")

    async def healthz(request: web.Request) -> web.Response:
        ready = feed.synced.is_set()
        return web.Response(text="ok\n" if ready else "not listed yet\n", status=200 if ready else 503)

    app = web.Application()
    app.router.add_get(PATH, rules)
    app.router.add_get("/healthz", healthz)
    return app


async def _watch(request: web.Request, feed: Feed, wanted: Filter) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"})
    await response.prepare(request)
    try:
        async for event in feed.watch(wanted, "http"):
            await response.write(_line(event))
    except (TooSlow, ConnectionError):
        pass  # the client sees the stream end, and connects again
    return response


def _line(event: Event) -> bytes:
    return msgspec.json.encode(event) + b"\n"


def _refusal(status: int, message: str) -> web.Response:
    return web.json_response({"error": message}, status=status)
