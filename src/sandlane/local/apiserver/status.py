"""Failures as `metav1.Status`, with the reasons and texts of kube-apiserver."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sandlane.kube.resource import Object
from sandlane.local.apiserver.kinds.field_errors import FieldError


class StatusError(Exception):
    """A request that fails; becomes the answer."""

    def __init__(
        self, code: int, reason: str, message: str, details: Object | None = None, metadata: Object | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.metadata = metadata or {}
        self.warnings: list[str] = []

    def status(self) -> Object:
        """The Status object."""
        made: Object = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": self.metadata,
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        if not self.reason:
            del made["reason"]
        if self.details is not None:
            made["details"] = self.details
        return made


def qualified(group: str, name: str) -> str:
    """`deployments.apps`, or the name alone for the core group."""
    return f"{name}.{group}" if group else name


def _details(group: str, kind: str, name: str = "", **more: Any) -> Object:
    details = {"name": name, "group": group, "kind": kind} | more
    return {key: value for key, value in details.items() if value}


def not_found(group: str, plural: str, name: str) -> StatusError:
    """404 for an object."""
    return StatusError(404, "NotFound", f'{qualified(group, plural)} "{name}" not found', _details(group, plural, name))


def no_such_path() -> StatusError:
    """404 for a path that serves nothing."""
    return StatusError(404, "NotFound", "the server could not find the requested resource", {})


def already_exists(group: str, plural: str, name: str) -> StatusError:
    """409 on create."""
    return StatusError(
        409, "AlreadyExists", f'{qualified(group, plural)} "{name}" already exists', _details(group, plural, name)
    )


def conflict(group: str, plural: str, name: str, why: str) -> StatusError:
    """409 on update or delete."""
    message = f'Operation cannot be fulfilled on {qualified(group, plural)} "{name}": {why}'
    return StatusError(409, "Conflict", message, _details(group, plural, name))


MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


def invalid(group: str, kind: str, name: str, errors: Iterable[FieldError]) -> StatusError:
    """422 with a cause for each fault."""
    faults = list(errors)
    causes = [{"reason": e.type, "message": e.message, "field": e.field} for e in faults]
    texts = [f"{e.field}: {e.message}" for e in faults]
    unique = list(dict.fromkeys(texts))
    text = unique[0] if len(unique) == 1 else "[" + ", ".join(unique) + "]"
    return StatusError(
        422,
        "Invalid",
        f'{kind if not group else f"{kind}.{group}"} "{name}" is invalid: {text}' if text else "",
        _details(group, kind, name, causes=causes),
    )


def bad_request(message: str) -> StatusError:
    """400."""
    return StatusError(400, "BadRequest", message)


def forbidden(group: str, plural: str, name: str, why: str) -> StatusError:
    """403."""
    target = f'{qualified(group, plural)} "{name}"' if name else qualified(group, plural)
    return StatusError(403, "Forbidden", f"{target} is forbidden: {why}", _details(group, plural, name))


def method_not_allowed() -> StatusError:
    """405."""
    return StatusError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource", {})


def expired(message: str, continue_token: str = "") -> StatusError:
    """410: a version or a continue token that is too old; `continue_token` goes on from there, inconsistently."""
    return StatusError(410, "Expired", message, metadata={"continue": continue_token} if continue_token else None)


def unsupported_media_type(accepted: Iterable[str]) -> StatusError:
    """415."""
    text = ", ".join(accepted)
    return StatusError(
        415,
        "UnsupportedMediaType",
        f"the body of the request was in an unknown format - accepted media types include: {text}",
    )


def too_large(message: str = "the request is too large") -> StatusError:
    """413."""
    return StatusError(413, "RequestEntityTooLarge", message)


def internal(message: str) -> StatusError:
    """500."""
    return StatusError(500, "InternalError", f"Internal error occurred: {message}", {"causes": [{"message": message}]})


def success(group: str, plural: str, name: str, uid: str) -> Object:
    """The answer to a finished delete."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": _details(group, plural, name, uid=uid),
    }
