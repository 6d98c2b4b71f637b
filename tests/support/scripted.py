"""A transport that answers from a script, for tests of what talks to an API server."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from sandlane.kube.errors import TransportError
from sandlane.kube.transport import Request, Response, Stream

Answer = Response | Exception | Callable[[Request], Any]


class Watch:
    """A stream under a test's control."""

    def __init__(self, status: int = 200, body: bytes = b"") -> None:
        self.status = status
        self.headers: tuple[tuple[str, str], ...] = ()
        self.opened = asyncio.Event()
        self.closed = asyncio.Event()
        self._pieces: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        if status >= 400:
            self._pieces.put_nowait(body)
            self._pieces.put_nowait(None)

    def send(self, kind: str, obj: dict[str, Any]) -> None:
        """One event."""
        self._pieces.put_nowait(msgspec.json.encode({"type": kind, "object": obj}) + b"\n")

    def raw(self, piece: bytes) -> None:
        """Any bytes."""
        self._pieces.put_nowait(piece)

    def end(self) -> None:
        """The server ends it in good order."""
        self._pieces.put_nowait(None)

    def cut(self) -> None:
        """The connection breaks."""
        self._pieces.put_nowait(TransportError("cut"))

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body."""
        while (piece := await self._pieces.get()) is not None:
            if isinstance(piece, Exception):
                raise piece
            yield piece


class ScriptedTransport:
    """Answers requests in the order of the script; a stream that has no answer left waits for one."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.answers: deque[Answer] = deque()
        self.watches: deque[Watch] = deque()
        self._more = asyncio.Event()

    def answer(self, *answers: Answer | dict[str, Any]) -> None:
        """Add answers: responses, errors to raise, functions of the request, or objects."""
        self.answers.extend(json_response(a) if isinstance(a, dict) else a for a in answers)

    def watch(self, status: int = 200, body: dict[str, Any] | None = None) -> Watch:
        """Add the answer of the next stream."""
        watch = Watch(status, msgspec.json.encode(body or {}))
        self.watches.append(watch)
        self._more.set()
        return watch

    async def send(self, request: Request, *, timeout: float) -> Response:
        """The next answer."""
        self.requests.append(request)
        assert self.answers, f"no answer in the script for {request.method} {request.target}"
        answer = self.answers.popleft()
        if callable(answer):
            answer = answer(request)
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, Response)
        return answer

    @asynccontextmanager
    async def stream(self, request: Request, *, timeout: float) -> AsyncIterator[Stream]:
        """The next stream."""
        self.requests.append(request)
        while not self.watches:
            self._more.clear()
            await self._more.wait()
        watch = self.watches.popleft()
        watch.opened.set()
        try:
            yield watch
        finally:
            watch.closed.set()

    async def close(self) -> None:
        """Nothing is open."""


def json_response(body: Any, status: int = 200, **headers: str) -> Response:
    """An answer with a JSON body; header names with underscores for dashes."""
    pairs = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Response(status, (("content-type", "application/json"), *pairs), msgspec.json.encode(body))


def status_response(code: int, reason: str = "", message: str = "", **headers: str) -> Response:
    """A `metav1.Status` as an answer."""
    body = {"kind": "Status", "apiVersion": "v1", "code": code, "reason": reason, "message": message or reason}
    return json_response(body, code, **headers)


def listing(version: int, *items: dict[str, Any], token: str = "") -> dict[str, Any]:
    """A list answer."""
    return {"metadata": {"resourceVersion": str(version), "continue": token}, "items": list(items)}


def pod(name: str, version: int, *, namespace: str = "d", **metadata: Any) -> dict[str, Any]:
    """A Pod with little in it."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "resourceVersion": str(version), "uid": f"u-{name}"}
        | metadata,
    }


def bookmark(version: int, *, initial_end: bool = False) -> dict[str, Any]:
    """A bookmark's object."""
    annotations = {"annotations": {"k8s.io/initial-events-end": "true"}} if initial_end else {}
    return {"kind": "Pod", "apiVersion": "v1", "metadata": {"resourceVersion": str(version)} | annotations}
