"""The AdmissionReview there and back."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from sandlane.kube.resource import Object
from sandlane.local.apiserver.webhook_calls import Caller, CallFailed


async def review(caller: Caller, hook: Object, request: Object) -> Object:
    """The `response` of a webhook to a `request`. Raises `CallFailed`."""
    seconds = hook.get("timeoutSeconds") or 10
    version = next(v for v in hook["admissionReviewVersions"] if v in ("v1", "v1beta1"))
    asked = {"kind": "AdmissionReview", "apiVersion": f"admission.k8s.io/{version}", "request": request}
    body = await caller.post(hook["clientConfig"], msgspec.json.encode(asked), seconds, {"timeout": f"{seconds}s"})
    return _response(body, request["uid"])


def _response(body: bytes, uid: str) -> Object:
    try:
        review: Any = msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise CallFailed(f"the answer is no AdmissionReview: {error}") from error
    response = review.get("response") if isinstance(review, dict) else None
    if not isinstance(response, dict):
        raise CallFailed("the answer has no response")
    if response.get("uid") != uid:
        raise CallFailed(f'expected response.uid="{uid}", got "{response.get("uid")}"')
    return response


def decoded_patch(response: Object) -> Any:
    """The JSON patch of a response, or None. Raises `CallFailed`."""
    if not response.get("patch"):
        return None
    if response.get("patchType") != "JSONPatch":
        raise CallFailed(
            f'webhook returned response.patch but not response.patchType JSONPatch: "{response.get("patchType")}"'
        )
    try:
        return msgspec.json.decode(base64.b64decode(response["patch"], validate=True))
    except (binascii.Error, ValueError, msgspec.DecodeError) as error:
        raise CallFailed(f"the patch cannot be decoded: {error}") from error
