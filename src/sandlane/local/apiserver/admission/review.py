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
    return _response(body, request["uid"], version)


def _response(body: bytes, uid: str, version: str) -> Object:
    try:
        review: Any = msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        why = "unexpected end of JSON input" if "truncated" in str(error) else str(error)
        raise CallFailed(f"failed to call webhook: couldn't get version/kind; json parse error: {why}") from error
    if not isinstance(review, dict):
        raise CallFailed("failed to call webhook: couldn't get version/kind; json parse error: no object")
    given, kind = review.get("apiVersion") or "", review.get("kind") or ""
    wanted = f"admission.k8s.io/{version}"
    if kind == "AdmissionReview" and given in ("admission.k8s.io/v1", "admission.k8s.io/v1beta1") and given != wanted:
        other = given.rpartition("/")[2]
        why = f"converting ({other}.AdmissionReview) to ({version}.AdmissionReview): unknown conversion"
        raise CallFailed(f"failed to call webhook: {why}")
    if given != wanted or kind != "AdmissionReview":
        group, _, shown = given.rpartition("/")
        why = f"expected webhook response of {wanted}, Kind=AdmissionReview, got {group}/{shown}, Kind={kind}"
        raise _invalid(why)
    response = review.get("response")
    if not isinstance(response, dict):
        raise _invalid("webhook response was absent")
    allowed = response.get("allowed", False)
    if not isinstance(allowed, bool):
        kind = "string" if isinstance(allowed, str) else "number"
        why = f"json: cannot unmarshal {kind} into Go struct field AdmissionResponse.response.allowed of type bool"
        raise CallFailed(f"failed to call webhook: {why}")
    if response.get("uid") != uid:
        raise _invalid(f'expected response.uid="{uid}", got "{response.get("uid") or ""}"')
    if response.get("patch") and not response.get("patchType"):
        raise _invalid("webhook returned response.patch but not response.patchType")
    if response.get("patchType") and not response.get("patch"):
        raise _invalid("webhook returned response.patchType but not response.patch")
    return response


def _invalid(why: str) -> CallFailed:
    return CallFailed(f"received invalid webhook response: {why}")


def decoded_patch(response: Object) -> Any:
    """The JSON patch of a response, or None. Raises `CallFailed`."""
    if not response.get("patch"):
        return None
    try:
        data = base64.b64decode(response["patch"], validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise CallFailed("failed to call webhook: illegal base64 data at input byte 0") from error
    try:
        patch: Any = msgspec.json.decode(data, type=list)
    except msgspec.MsgspecError as error:
        why = "unexpected end of JSON input" if "truncated" in str(error) else str(error)
        if why.startswith("Expected `array`"):
            why = "json: cannot unmarshal object into Go value of type jsonpatch.Patch"
        raise CallFailed(f"received undecodable patch in webhook response: {why}") from error
    if response.get("patchType") != "JSONPatch":
        raise CallFailed(f'unsupported patch type: "{response.get("patchType")}"')
    return patch
