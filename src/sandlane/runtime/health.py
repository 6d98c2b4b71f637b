"""The manager's HTTP endpoints: `/metrics`, and `/healthz` and `/readyz` for the kubelet."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from ssl import SSLContext

from aiohttp import web

from sandlane.kube.client import Client
from sandlane.kube.clock import Clock
from sandlane.kube.errors import KubeError
from sandlane.kube.resource import SUBJECT_ACCESS_REVIEWS, TOKEN_REVIEWS, Object, Resource
from sandlane.runtime.metrics import Metrics
from sandlane.runtime.options import split_address

Check = Callable[[], Iterable[str]]
"""Gives what is wrong, in words; nothing when all is well."""
REMEMBERED_SECONDS = 60.0
REMEMBERED = 256


def health_app(live: Check, ready: Check) -> web.Application:
    """`/healthz` and `/livez` fail when one of our own tasks is dead or stuck; `/readyz` until caches are synced."""

    def answer(check: Check) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            problems = list(check())
            text = "\n".join(problems) if problems else "ok"
            return web.Response(text=text + "\n", status=500 if problems else 200)

        return handle

    app = web.Application()
    app.router.add_get("/healthz", answer(live))
    app.router.add_get("/livez", answer(live))
    app.router.add_get("/readyz", answer(ready))
    return app


class PathAuth:
    """Lets in whoever the API server knows (TokenReview) and allows `get` on a path (SubjectAccessReview)."""

    def __init__(self, client: Client, clock: Clock, path: str) -> None:
        self._path = path
        self._client = client.unguarded()
        self._clock = clock
        self._known: dict[str, tuple[float, int]] = {}

    async def status(self, authorization: str) -> int:
        """200, 401, 403, or 500 when the API server cannot say."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            return 401
        now = self._clock.monotonic()
        until, status = self._known.get(token, (0.0, 0))
        if now < until:
            return status
        try:
            status = await self._ask(token)
        except KubeError:
            return 500
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        self._known[token] = (now + REMEMBERED_SECONDS, status)
        return status

    async def _ask(self, token: str) -> int:
        review: Object = {"metadata": {}, "spec": {"token": token}}
        told = (await self._client.create(TOKEN_REVIEWS, _typed(TOKEN_REVIEWS, review))).get("status") or {}
        if not told.get("authenticated"):
            return 401
        user = told.get("user") or {}
        spec = {
            "user": user.get("username", ""),
            "groups": user.get("groups") or [],
            "uid": user.get("uid", ""),
            "nonResourceAttributes": {"path": self._path, "verb": "get"},
        }
        access: Object = {"metadata": {}, "spec": spec}
        answer = await self._client.create(SUBJECT_ACCESS_REVIEWS, _typed(SUBJECT_ACCESS_REVIEWS, access))
        return 200 if (answer.get("status") or {}).get("allowed") else 403


def metrics_app(metrics: Metrics, auth: PathAuth | None = None) -> web.Application:
    """`/metrics`, for everybody or for those that `auth` lets in."""

    async def handle(request: web.Request) -> web.Response:
        if auth is not None:
            status = await auth.status(request.headers.get("authorization", ""))
            if status != 200:
                return web.Response(status=status)
        return web.Response(body=metrics.text(), content_type="text/plain", charset="utf-8")

    app = web.Application()
    app.router.add_get("/metrics", handle)
    return app


async def serve(
    stack: AsyncExitStack, app: web.Application, address: str, *, tls: SSLContext | None = None
) -> tuple[str, int]:
    """Serve an application until the stack ends; the address it is served at. Raises `OSError` when it is taken."""
    host, port = split_address(address)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, host, port, ssl_context=tls)
    await site.start()
    bound: tuple[str, int] = runner.addresses[0][:2]
    return bound


def _typed(resource: Resource, body: Object) -> Object:
    return {"apiVersion": resource.api_version, "kind": resource.kind} | body
