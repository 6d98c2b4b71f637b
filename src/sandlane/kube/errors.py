"""What can go wrong when talking to an API server.

KubeError
├── TransportError          no (whole) answer: connection refused, reset, timed out
└── ApiError                the server answered with a Status
    ├── BadRequest 400      ├── NotFound 404           ├── Gone 410 (Expired)
    ├── Unauthorized 401    ├── MethodNotAllowed 405   ├── Invalid 422
    ├── Forbidden 403       ├── AlreadyExists 409      ├── TooManyRequests 429
    └── ServerError 5xx     └── Conflict 409
ConfigError                 how to reach a server, or who to be there, cannot be found out
"""

from __future__ import annotations

from typing import Any

import msgspec

from sandlane.kube.transport import Response


class ConfigError(Exception):
    """There is no usable configuration; the message says where it was looked for and what is wrong."""


class KubeError(Exception):
    """Talking to the API server failed."""


class TransportError(KubeError):
    """There was no whole answer. The request may or may not have taken effect."""


class ApiError(KubeError):
    """The API server refused or failed a request; the attributes are those of `metav1.Status`."""

    def __init__(
        self, status: int, reason: str, message: str, details: dict[str, Any], retry_after: float | None = None
    ) -> None:
        super().__init__(message or f"{status} {reason}")
        self.status = status
        self.reason = reason
        self.message = message
        self.details = details
        self.retry_after = retry_after


class BadRequest(ApiError):
    """400."""


class Unauthorized(ApiError):
    """401: no valid credentials."""


class Forbidden(ApiError):
    """403: not allowed."""


class NotFound(ApiError):
    """404: no such object, or no such resource."""


class MethodNotAllowed(ApiError):
    """405."""


class AlreadyExists(ApiError):
    """409 on create."""


class Conflict(ApiError):
    """409: the object has changed, or another field manager owns a field."""


class Gone(ApiError):
    """410: the resourceVersion is too old."""


class Invalid(ApiError):
    """422: the object breaks a rule; `details.causes` lists fields."""


class TooManyRequests(ApiError):
    """429."""


class ServerError(ApiError):
    """5xx."""


_BY_STATUS: dict[int, type[ApiError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    405: MethodNotAllowed,
    410: Gone,
    422: Invalid,
    429: TooManyRequests,
}


_UNFIT = ("failed to create typed patch object", "failed to convert new object")
"""Begin the answer, a 500 without a reason, to a server-side apply of what does not fit its kind's schema: no failure of the server."""


def error_from_status(code: int, status: dict[str, Any], retry_after: float | None = None) -> ApiError:
    """The error for a decoded `metav1.Status` (or anything else that an error answer held)."""
    reason = str(status.get("reason") or "")
    message = str(status.get("message") or "")
    details = status.get("details") or {}
    if code == 409:
        kind: type[ApiError] = AlreadyExists if reason == "AlreadyExists" else Conflict
    elif code >= 500:
        kind = BadRequest if message.startswith(_UNFIT) else ServerError
    else:
        kind = _BY_STATUS.get(code, ApiError)
    return kind(code, reason, message, details, retry_after or details.get("retryAfterSeconds"))


def error_from_response(response: Response) -> ApiError:
    """The error that an answer with status >= 400 stands for."""
    try:
        status = msgspec.json.decode(response.body)
    except msgspec.DecodeError:
        status = {"message": response.body[:500].decode(errors="replace")}
    if not isinstance(status, dict):
        status = {"message": str(status)}
    after = response.header("retry-after")
    return error_from_status(response.status, status, float(after) if after and after.isdigit() else None)
