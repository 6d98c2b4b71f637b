"""`AdmissionReview` and `ConversionReview`: what the API server asks a webhook, and how it is answered. Pure.

https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from sandlane.kube.resource import Key, Object


class AdmissionRequest(msgspec.Struct, frozen=True):
    """What is about to happen. `object` is None on DELETE, `old` on CREATE; neither may be changed in place."""

    uid: str
    operation: str
    key: Key
    object: Object | None
    old: Object | None
    user: str
    user_uid: str = ""
    groups: tuple[str, ...] = ()
    extra: dict[str, Any] = {}
    subresource: str = ""
    dry_run: bool = False
    options: Object | None = None
    resource: dict[str, str] = {}


class Cause(msgspec.Struct, frozen=True):
    """A field at fault."""

    field: str
    message: str
    reason: str = "FieldValueInvalid"


class Denied(Exception):
    """The request is refused; reason, message and the fields at fault go to the user.

    `about`: the object's `group`, `kind` and `name`, which kubectl names before the fields of an `Invalid` one.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str = "Forbidden",
        code: int = 403,
        causes: Iterable[Cause] = (),
        about: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.code = code
        self.causes = tuple(causes)
        self.about = dict(about or {})


class ReviewError(ValueError):
    """What arrived is no review."""


def read_admission(body: bytes) -> AdmissionRequest:
    """The request of an AdmissionReview. Raises `ReviewError`."""
    request = _request(body, "AdmissionReview")
    try:
        user = request.get("userInfo") or {}
        found = request.get("object") or request.get("oldObject") or {}
        name = request.get("name") or found.get("metadata", {}).get("name", "")
        return AdmissionRequest(
            uid=request["uid"],
            operation=request["operation"],
            key=Key(request.get("namespace") or "", name),
            object=request.get("object"),
            old=request.get("oldObject"),
            user=user.get("username", ""),
            user_uid=user.get("uid", ""),
            groups=tuple(user.get("groups") or ()),
            extra=user.get("extra") or {},
            subresource=request.get("subResource") or "",
            dry_run=bool(request.get("dryRun")),
            options=request.get("options"),
            resource=request.get("resource") or {},
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ReviewError(f"the AdmissionReview lacks {error}") from error


def allow(request: AdmissionRequest, *, mutated: Object | None = None, warnings: Iterable[str] = ()) -> Object:
    """Let it pass, as it is or as `mutated`."""
    response: Object = {"uid": request.uid, "allowed": True}
    if mutated is not None and (operations := difference(request.object, mutated)):
        response["patchType"] = "JSONPatch"
        response["patch"] = base64.b64encode(msgspec.json.encode(operations)).decode()
    if told := list(warnings):
        response["warnings"] = told
    return _review("AdmissionReview", "admission.k8s.io/v1", response)


def deny(uid: str, error: Denied) -> Object:
    """Refuse it."""
    status: Object = {"code": error.code, "reason": error.reason, "message": error.message}
    if error.causes:
        status["details"] = error.about | {"causes": [msgspec.to_builtins(cause) for cause in error.causes]}
    return _review("AdmissionReview", "admission.k8s.io/v1", {"uid": uid, "allowed": False, "status": status})


class ConversionRequest(msgspec.Struct, frozen=True):
    """Objects to be converted to another version of their group."""

    uid: str
    desired: str
    objects: list[Object]


def read_conversion(body: bytes) -> ConversionRequest:
    """The request of a ConversionReview. Raises `ReviewError`."""
    request = _request(body, "ConversionReview")
    try:
        return ConversionRequest(request["uid"], request["desiredAPIVersion"], list(request["objects"]))
    except (KeyError, TypeError) as error:
        raise ReviewError(f"the ConversionReview lacks {error}") from error


def converted(uid: str, objects: list[Object]) -> Object:
    """The objects in the version that was asked for, in the same order."""
    response = {"uid": uid, "convertedObjects": objects, "result": {"status": "Success"}}
    return _review("ConversionReview", "apiextensions.k8s.io/v1", response)


def not_converted(uid: str, message: str) -> Object:
    """Why they could not be converted."""
    response = {"uid": uid, "convertedObjects": [], "result": {"status": "Failure", "message": message}}
    return _review("ConversionReview", "apiextensions.k8s.io/v1", response)


def difference(old: Any, new: Any, at: str = "") -> list[Object]:
    """JSON Patch (RFC 6902) operations that turn `old` into `new`; a list that differs is replaced as a whole."""
    if old == new and type(old) is type(new):
        return []
    if not isinstance(old, dict) or not isinstance(new, dict):
        return [{"op": "replace", "path": at, "value": new}]
    found: list[Object] = []
    for name in old:
        if name not in new:
            found.append({"op": "remove", "path": f"{at}/{_escaped(name)}"})
    for name, value in new.items():
        path = f"{at}/{_escaped(name)}"
        if name not in old:
            found.append({"op": "add", "path": path, "value": value})
        else:
            found += difference(old[name], value, path)
    return found


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _request(body: bytes, kind: str) -> Object:
    try:
        review = msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise ReviewError(f"no JSON: {error}") from error
    if not isinstance(review, dict) or review.get("kind") != kind or not isinstance(review.get("request"), dict):
        raise ReviewError(f"no {kind}")
    request: Object = review["request"]
    return request


def _review(kind: str, api_version: str, response: Object) -> Object:
    return {"apiVersion": api_version, "kind": kind, "response": response}
