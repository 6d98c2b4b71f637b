"""The forms of answers: JSON, a failure, a stream of lines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, replace

import msgspec

from sandlane.kube.resource import Object
from sandlane.kube.transport import Response
from sandlane.local.apiserver.status import StatusError

JSON = (("content-type", "application/json"),)
TEXT = (("content-type", "text/plain; charset=utf-8"),)
PLAIN = (*TEXT, ("x-content-type-options", "nosniff"))


@dataclass(frozen=True)
class StreamResponse:
    """An answer that comes line by line."""

    lines: AsyncIterator[bytes]
    status: int = 200
    headers: tuple[tuple[str, str], ...] = JSON


Answer = Response | StreamResponse


def no_such_page() -> Response:
    """What the HTTP multiplexer of kube-apiserver answers to paths that nobody knows."""
    return Response(404, PLAIN, b"404 page not found\n")


def json_answer(body: Object, status: int = 200, warnings: list[str] | None = None, content_type: str = "") -> Response:
    """An object, with Warning headers."""
    headers = ((("content-type", content_type),) if content_type else JSON) + _warnings(warnings or ())
    return Response(status, headers, msgspec.json.encode(body))


def _warnings(texts: Iterable[str]) -> tuple[tuple[str, str], ...]:
    return tuple(("warning", '299 - "{}"'.format(text.replace("\\", "\\\\").replace('"', '\\"'))) for text in texts)


def with_warnings(answer: Answer, texts: list[str]) -> Answer:
    """An answer that warns of more."""
    if not texts:
        return answer
    headers = answer.headers + _warnings(texts)
    return (
        msgspec.structs.replace(answer, headers=headers)
        if isinstance(answer, Response)
        else replace(answer, headers=headers)
    )


def failure(error: StatusError) -> Response:
    """A failure as a Status."""
    headers = JSON + _warnings(error.warnings)
    if error.details and error.details.get("retryAfterSeconds"):
        headers = (*headers, ("retry-after", str(error.details["retryAfterSeconds"])))
    return Response(error.code, headers, msgspec.json.encode(error.status()))
