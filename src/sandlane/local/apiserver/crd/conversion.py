"""Conversion of custom resources between versions by a webhook.

https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definition-versioning/#webhook-conversion.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from sandlane.kube.resource import Object
from sandlane.local.apiserver.metadata import Randomness, new_uid
from sandlane.local.apiserver.status import StatusError
from sandlane.local.apiserver.webhook_calls import Caller, CallFailed

REVIEW_VERSIONS = ("v1", "v1beta1")
SECONDS = 30
_OWN = ("labels", "annotations")
"""What of the metadata a webhook may change."""


class WebhookConversion:
    """Asks the webhook of one CustomResourceDefinition."""

    def __init__(self, definition: Object, caller: Caller, rng: Randomness) -> None:
        webhook = definition["spec"]["conversion"]["webhook"]
        self._client: Object = webhook["clientConfig"]
        self._version = next(v for v in webhook["conversionReviewVersions"] if v in REVIEW_VERSIONS)
        self._caller = caller
        self._rng = rng

    async def convert(self, objects: list[Object], api_version: str) -> list[Object]:
        """The objects in another version. Raises `StatusError` 500."""
        uid = new_uid(self._rng)
        request = {"uid": uid, "desiredAPIVersion": api_version, "objects": objects}
        review = {
            "kind": "ConversionReview",
            "apiVersion": f"apiextensions.k8s.io/{self._version}",
            "request": request,
        }
        group, _, version = objects[0]["apiVersion"].rpartition("/")
        of = f"conversion webhook for {group}/{version}, Kind={objects[0]['kind']}"
        try:
            body = await self._caller.post(self._client, msgspec.json.encode(review), SECONDS)
            converted = _objects(body, uid, self._version)
        except CallFailed as error:
            raise StatusError(500, "", f"{of} failed: {error}") from error
        if len(converted) != len(objects):
            raise StatusError(500, "", f"{of} returned {len(converted)} objects, expected {len(objects)}")
        made = []
        for index, (before, after) in enumerate(zip(objects, converted, strict=True)):
            fault = next(_faults(before, after, api_version), None)
            if fault is not None:
                raise StatusError(500, "", f"{of} returned invalid converted object at index {index}: {fault}")
            given = after.get("metadata") or {}
            metadata = {key: value for key, value in before["metadata"].items() if key not in _OWN}
            made.append({**after, "metadata": metadata | {key: given[key] for key in _OWN if given.get(key)}})
        return made


def _objects(body: bytes, uid: str, version: str) -> list[Any]:
    """The objects of an answer. Raises `CallFailed` where it has none."""
    try:
        review: Any = msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise CallFailed(f"the answer is no ConversionReview: {error}") from error
    wanted = ("ConversionReview", f"apiextensions.k8s.io/{version}")
    if not isinstance(review, dict) or (review.get("kind"), review.get("apiVersion")) != wanted:
        raise CallFailed(f"expected webhook response of {wanted[1]}, Kind={wanted[0]}")
    response = review.get("response")
    if not isinstance(response, dict):
        raise CallFailed("no response provided")
    if response.get("uid") != uid:
        raise CallFailed(f'expected response.uid="{uid}", got "{response.get("uid")}"')
    result = response.get("result")
    status = result.get("status") if isinstance(result, dict) else ""
    if status != "Success":
        message = result.get("message") if isinstance(result, dict) else ""
        raise CallFailed(message or f"response.result.status was '{status or ''}', not 'Success'")
    objects = response.get("convertedObjects")
    return objects if isinstance(objects, list) else []


def _faults(before: Object, after: Any, api_version: str) -> Iterator[str]:
    """What a webhook may not change."""
    if not isinstance(after, dict) or not isinstance(after.get("metadata"), dict):
        yield "it is no object with metadata"
        return
    if after.get("apiVersion") != api_version:
        yield f"invalid groupVersion (expected {api_version}, received {after.get('apiVersion')})"
    if after.get("kind") != before["kind"]:
        yield f"must have the same kind: {before['kind']} != {after.get('kind')}"
    for field, shown in (("name", "name"), ("namespace", "namespace"), ("uid", "UID")):
        was, now = before["metadata"].get(field, ""), after["metadata"].get(field, "")
        if was != now:
            yield f"must have the same {shown}: {was} != {now}"
    for field in _OWN:
        given = after["metadata"].get(field)
        if given is not None and not (
            isinstance(given, dict) and all(isinstance(value, str) for value in given.values())
        ):
            yield f"metadata.{field} is not a map of strings"
