"""The manager's HTTP endpoints: `/metrics`, and `/healthz` and `/readyz` for the kubelet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack

from aiohttp import web

from sandlane.runtime.metrics import Metrics
from sandlane.runtime.options import split_address

Check = Callable[[], Iterable[str]]
"""Gives what is wrong, in words; nothing when all is well."""


def health_app(live: Check, ready: Check) -> web.Application:
    """`/healthz` and `/livez` fail when one of our own tasks is dead or stuck; `/readyz` until caches are synced."""

    def answer(check: Check) -> Callable[[web.Request], asyncio.Future[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            problems = list(check())
            text = "\n".join(problems) if problems else "ok"
            return web.Response(text=text + "\n", status=500 if problems else 200)

        return handle  # type: ignore[return-value]

    app = web.Application()
    app.router.add_get("/healthz", answer(live))
    app.router.add_get("/livez", answer(live))
    app.router.add_get("/readyz", answer(ready))
    return app


def metrics_app(metrics: Metrics) -> web.Application:
    """`/metrics`."""

    async def handle(request: web.Request) -> web.Response:
        return web.Response(body=metrics.text(), content_type="text/plain", charset="utf-8")

    app = web.Application()
    app.router.add_get("/metrics", handle)
    return app


async def serve(stack: AsyncExitStack, app: web.Application, address: str) -> tuple[str, int]:
    """Serve an application until the stack ends; the address it is served at. Raises `OSError` when it is taken."""
    host, port = split_address(address)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, host, port)
    await site.start()
    bound: tuple[str, int] = runner.addresses[0][:2]
    return bound
