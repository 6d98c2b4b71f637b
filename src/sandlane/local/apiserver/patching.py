"""Patches: which forms there are, what a patch makes of an object, and the body of a server-side apply."""

from __future__ import annotations

from typing import Any

import msgspec
import structlog

from sandlane.kube.patch import json_patch, merge_patch, strategic
from sandlane.kube.patch.errors import MalformedPatchError, PatchDirectiveError, PatchError, PatchTooLargeError
from sandlane.kube.resource import Object
from sandlane.kube.transport import Request
from sandlane.local.apiserver.body import check_applied_fields, check_patched_fields, decode_body, media_type
from sandlane.local.apiserver.kinds.field_errors import FieldError
from sandlane.local.apiserver.request_info import RequestInfo
from sandlane.local.apiserver.resource_type import ResourceType
from sandlane.local.apiserver.status import StatusError, bad_request, invalid, too_large, unsupported_media_type
from sandlane.local.apiserver.writer import Write

log = structlog.get_logger(__name__)

PATCH_TYPES = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
    "application/apply-patch+cbor",
)
APPLY = "application/apply-patch"


def patch_type(type_: ResourceType, request: Request) -> str:
    """The media type of a patch. Raises `StatusError` 415."""
    media = media_type(request)
    if media not in PATCH_TYPES:
        raise StatusError(415, "UnsupportedMediaType", "415: Unsupported Media Type", {})
    if media == PATCH_TYPES[2] and type_.custom:
        raise unsupported_media_type([PATCH_TYPES[0], PATCH_TYPES[1], PATCH_TYPES[3]])
    return media


def check_names(obj: Object, info: RequestInfo, type_: ResourceType) -> None:
    """The object must be the one in the URL. Raises `StatusError` 400."""
    metadata = obj["metadata"]
    if not metadata.get("name"):
        raise bad_request(
            f"the name of the object ({info.name} based on URL) was undeterminable: name must be provided"
        )
    if metadata["name"] != info.name:
        raise bad_request(
            f"the name of the object ({metadata['name']}) does not match the name on the URL ({info.name})"
        )
    namespace = info.namespace if type_.resource.namespaced else ""
    if metadata.get("namespace") and metadata["namespace"] != namespace:
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")


def decoded_patch(request: Request, media: str) -> Any:
    """The patch in a body: a list of operations, or a map. Raises `StatusError` 400."""
    try:
        patch = decode_body(msgspec.structs.replace(request, headers={"content-type": "application/json"})).obj
    except StatusError as error:
        if error.code != 400:
            raise
        why = error.message.rpartition("json parse error: ")[2]
        raise bad_request(f"error decoding patch: {why}") from error
    wanted, name = (list, "[]handlers.jsonPatchOp") if media == PATCH_TYPES[0] else (dict, "map[string]interface {}")
    if not isinstance(patch, wanted):
        kind = {list: "array", dict: "object", str: "string", bool: "bool"}.get(type(patch), "number")
        raise bad_request(f"error decoding patch: json: cannot unmarshal {kind} into Go value of type {name}")
    return patch


def patched_object(write: Write, info: RequestInfo, request: Request, media: str, patch: Any, old: Object) -> Object:
    """What a patch makes of an object. Raises `StatusError`."""
    version = old["metadata"]["resourceVersion"]
    try:
        if media == PATCH_TYPES[0]:
            new = json_patch.json_patch(old, patch)
        elif media == PATCH_TYPES[1]:
            new = merge_patch.merge_patch(old, patch)
        else:
            new = strategic.strategic_merge_patch(old, patch, write.type_.schema)
    except PatchTooLargeError as error:
        raise too_large(str(error)) from error
    except MalformedPatchError as error:
        raise bad_request(str(error)) from error
    except PatchDirectiveError as error:
        raise StatusError(500, "", str(error)) from error
    except PatchError as error:  # kube-apiserver does not say why
        log.debug("patch_does_not_apply", path=request.path, error=str(error))
        message = "the server rejected our request due to an error in our request"
        raise StatusError(422, "Invalid", message, {}) from error
    if not isinstance(new, dict) or not isinstance(new.get("metadata"), dict):
        raise StatusError(422, "Invalid", "the patch leaves no object", {})
    new.setdefault("kind", write.type_.resource.kind)
    new.setdefault("apiVersion", write.type_.resource.api_version)
    _check_kind(write.type_, new)
    given_uid, uid = new["metadata"].get("uid"), old["metadata"]["uid"]
    if given_uid and given_uid != uid:
        fault = FieldError("FieldValueInvalid", "metadata.uid", given_uid, "field is immutable")
        raise invalid(write.type_.resource.group, write.type_.resource.kind, info.name, [fault] * 2)
    check_patched_fields(write.type_, new, request.body, write.validation, write.warnings)
    check_names(new, info, write.type_)
    if new["metadata"].get("resourceVersion") == version:
        new["metadata"].pop("resourceVersion")  # the patch did not name it
    return new


def _check_kind(type_: ResourceType, new: Object) -> None:
    """A patch does not change what an object is. Raises `StatusError` 422."""
    kind, version = type_.resource.kind, type_.resource.api_version
    if type_.custom or (new["kind"], new["apiVersion"]) == (kind, version):
        return
    why = f'no kind "{new["kind"]}" is registered for version "{new["apiVersion"]}"'
    shown = msgspec.json.encode(new).decode()
    raise invalid("", "", "", [FieldError("FieldValueInvalid", "patch", shown, why)])


def applied_object(type_: ResourceType, info: RequestInfo, request: Request, manager: str) -> Object:
    """The object that is applied. Raises `StatusError`."""
    if not manager:
        fault = FieldError("FieldValueRequired", "fieldManager", None, "is required for apply patch")
        raise invalid("meta.k8s.io", "PatchOptions", "", [fault])
    try:
        decoded = decode_body(msgspec.structs.replace(request, headers={"content-type": "application/yaml"}))
    except StatusError as error:
        error.message = f"error decoding YAML: {error.message}" if error.code == 400 else error.message
        raise
    obj = {} if decoded.obj is None else decoded.obj
    if not isinstance(obj, dict):
        kind = {list: "array", str: "string", bool: "bool"}.get(type(obj), "number")
        why = f"json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}"
        raise bad_request(f"error decoding YAML: error unmarshaling JSON: while decoding JSON: {why}")
    given = obj.get("metadata") or {}
    if not isinstance(given, dict):
        raise bad_request("error decoding YAML: metadata is not an object")
    if given.get("managedFields"):
        raise bad_request("metadata.managedFields must be nil")
    kind, version = obj.get("kind") or "", obj.get("apiVersion") or ""
    if kind != type_.resource.kind or str(version) not in {type_.resource.api_version, *type_.versions}:
        group, _, shown = str(version).rpartition("/")
        raise bad_request(f"invalid object type: {group}/{shown}, Kind={kind}")
    if version != type_.resource.api_version:
        raise bad_request(
            f"Incorrect version specified in apply patch. Specified patch version: {obj['apiVersion']}, "
            f"expected: {type_.resource.api_version}"
        )
    if decoded.duplicates:
        raise bad_request("error decoding YAML: " + ", ".join(f'duplicate field "{d}"' for d in decoded.duplicates))
    obj["metadata"] = dict(given)
    obj["metadata"].setdefault("name", info.name)
    if type_.resource.namespaced:
        obj["metadata"].setdefault("namespace", info.namespace)
    check_names(obj, info, type_)
    check_applied_fields(type_, obj, given.get("namespace", ""))
    return obj
