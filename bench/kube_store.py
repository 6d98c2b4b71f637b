"""A stand-in API server for benchmarks of controllers: Guestbooks and Deployments in a dict, from its own process.

`python -m bench.kube_store BOOKS` prints its port. It does just what a controller needs (discovery, lists, watches, merge
patches, server-side apply without conflicts) and as cheaply as Python can, so that the controller is what is measured.
`GET /left` says how many Guestbooks have no status yet.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import msgspec
from aiohttp import web

GROUPS = {"guestbooks": ("example.com/v1", "Guestbook"), "deployments": ("apps/v1", "Deployment")}
VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]


class Store:
    """Objects and watchers."""

    def __init__(self, books: int) -> None:
        self.version = 0
        self.left = books
        self.objects: dict[str, dict[str, dict[str, Any]]] = {"guestbooks": {}, "deployments": {}}
        self.watchers: dict[str, set[asyncio.Queue[bytes]]] = {"guestbooks": set(), "deployments": set()}
        for n in range(books):
            self.put("guestbooks", f"book-{n}", {"metadata": {"name": f"book-{n}"}, "spec": {"image": "i", "size": 1}})

    def put(self, plural: str, name: str, body: dict[str, Any]) -> dict[str, Any]:
        """Merge a body into an object, or make it, and tell the watchers."""
        self.version += 1
        known = self.objects[plural].get(name)
        api_version, kind = GROUPS[plural]
        fresh = {
            "namespace": "default",
            "uid": f"{plural}-{name}",
            "generation": 1,
            "creationTimestamp": "2026-01-01T00:00:00Z",
        }
        old = known or {"metadata": fresh}
        metadata = old["metadata"] | body.get("metadata", {}) | {"resourceVersion": str(self.version)}
        obj = old | body | {"apiVersion": api_version, "kind": kind, "metadata": metadata}
        self.objects[plural][name] = obj
        line = msgspec.json.encode({"type": "MODIFIED" if known else "ADDED", "object": obj}) + b"\n"
        for watcher in self.watchers[plural]:
            watcher.put_nowait(line)
        return obj

    async def collection(self, request: web.Request) -> web.StreamResponse:
        """List or watch."""
        plural = request.match_info["plural"]
        if plural not in GROUPS:
            return answer({"kind": "Status", "code": 404, "reason": "NotFound"}, 404)
        if request.query.get("watch") not in ("true", "1", "True"):
            items = list(self.objects[plural].values())
            api_version, kind = GROUPS[plural]
            head = {"apiVersion": api_version, "kind": f"{kind}List"}
            return answer(head | {"metadata": {"resourceVersion": str(self.version)}, "items": items})
        if request.query.get("sendInitialEvents"):
            return answer({"kind": "Status", "code": 422, "reason": "Invalid"}, 422)
        response = web.StreamResponse(headers={"content-type": "application/json"})
        await response.prepare(request)
        lines: asyncio.Queue[bytes] = asyncio.Queue()
        since = int(request.query.get("resourceVersion") or 0)
        for obj in self.objects[plural].values():
            if int(obj["metadata"]["resourceVersion"]) > since:
                lines.put_nowait(msgspec.json.encode({"type": "ADDED", "object": obj}) + b"\n")
        self.watchers[plural].add(lines)
        try:
            while True:
                piece = await lines.get()
                while not lines.empty():
                    piece += lines.get_nowait()
                await response.write(piece)
        finally:
            self.watchers[plural].discard(lines)

    async def single(self, request: web.Request) -> web.StreamResponse:
        """Get or patch."""
        plural, name = request.match_info["plural"], request.match_info["name"]
        known = self.objects[plural].get(name)
        if request.method == "GET":
            missing = {"kind": "Status", "code": 404, "reason": "NotFound"}
            return answer(known) if known else answer(missing, 404)
        body = msgspec.json.decode(await request.read())
        if plural == "guestbooks" and body.get("status", {}).get("ready") and "status" not in (known or {}):
            self.left -= 1
        return answer(self.put(plural, name, body))


def answer(body: Any, status: int = 200) -> web.Response:
    """JSON."""
    return web.Response(body=msgspec.json.encode(body), content_type="application/json", status=status)


def discovery(app: web.Application) -> None:
    """What clients ask before they begin."""

    def resources(plural: str) -> dict[str, Any]:
        group, kind = GROUPS[plural]
        names = [(plural, ["list", *VERBS]), (f"{plural}/status", ["get", "patch", "update"])]
        return {
            "kind": "APIResourceList",
            "groupVersion": group,
            "resources": [
                {"name": n, "kind": kind, "namespaced": True, "singularName": "", "verbs": v} for n, v in names
            ],
        }

    versions = [group for group, _ in GROUPS.values()] + ["apiextensions.k8s.io/v1"]
    groups = [
        {
            "name": version.split("/")[0],
            "versions": [{"groupVersion": version, "version": "v1"}],
            "preferredVersion": {"groupVersion": version, "version": "v1"},
        }
        for version in versions
    ]
    kinds = (
        ("namespaces", "Namespace", False),
        ("events", "Event", True),
        ("customresourcedefinitions", "CustomResourceDefinition", False),
    )
    core = [
        {"name": plural, "kind": kind, "namespaced": namespaced, "singularName": "", "verbs": VERBS}
        for plural, kind, namespaced in kinds
    ]
    answers = {
        "/version": {"major": "1", "minor": "36", "gitVersion": "v1.36.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": core[:2]},
        "/apis/apiextensions.k8s.io/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": core[2:]},
        "/apis": {"kind": "APIGroupList", "groups": groups},
        "/apis/example.com/v1": resources("guestbooks"),
        "/apis/apps/v1": resources("deployments"),
    }
    for path, body in answers.items():
        app.router.add_get(path, _constant(body))


def _constant(body: Any) -> Any:
    async def handle(request: web.Request) -> web.Response:
        return answer(body)

    return handle


async def main(books: int) -> None:
    """Serve until the process is ended."""
    store = Store(books)
    app = web.Application()

    async def left(request: web.Request) -> web.Response:
        return web.Response(text=str(store.left))

    async def event(request: web.Request) -> web.Response:
        return answer(msgspec.json.decode(await request.read()), 201)

    app.router.add_get("/left", left)
    for path in ("/apis/events.k8s.io/v1", "/api/v1"):
        app.router.add_post(f"{path}/namespaces/default/events", event)
    discovery(app)
    for prefix in ("/apis/{group}/v1", "/apis/{group}/v1/namespaces/default"):
        app.router.add_get(f"{prefix}/{{plural}}", store.collection)
        app.router.add_route("*", f"{prefix}/{{plural}}/{{name}}", store.single)
        app.router.add_route("*", f"{prefix}/{{plural}}/{{name}}/status", store.single)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
