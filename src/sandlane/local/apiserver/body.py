"""From the body of a request to an object: media types, field validation, and the checks of names that come first."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sandlane.kube.patch.values import copy_json
from sandlane.kube.resource import Object
from sandlane.kube.transport import Request
from sandlane.local.apiserver import protobuf
from sandlane.local.apiserver.kinds.field_errors import Faults, FieldError
from sandlane.local.apiserver.managed_fields.typed import type_faults
from sandlane.local.apiserver.protobuf import decode as protobuf_decode
from sandlane.local.apiserver.protobuf.reader import ProtobufError
from sandlane.local.apiserver.resource_type import ResourceType
from sandlane.local.apiserver.status import StatusError, bad_request, invalid, too_large, unsupported_media_type
from sandlane.local.apiserver.wire.bodies import (
    JSON_TYPES,
    MAX_BODY_BYTES,
    YAML_TYPES,
    BodyError,
    parse_json,
    parse_yaml,
)
from sandlane.local.apiserver.wire.conform import DecodeError

__all__ = ["Decoded", "check_fields", "decode_body", "protobuf"]

MAX_MANAGER = 128
SHOWN, MOST_SHOWN = 30, 1000
"""Characters of a body that faults show."""
ACCEPTED = ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf")


@dataclass
class Decoded:
    """A body: its object, and the paths of repeated keys where they were looked for."""

    obj: Any
    duplicates: list[str] = field(default_factory=list)


def media_type(request: Request) -> str:
    """The media type of the body, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def decode_body(request: Request, *, notice: bool = True) -> Decoded:
    """Decode a body by its media type. Raises `StatusError` 400, 413 and 415."""
    if len(request.body) > MAX_BODY_BYTES:
        raise too_large(f"Request entity too large: limit is {MAX_BODY_BYTES}")
    media, decoded = media_type(request), Decoded(None)
    duplicates = decoded.duplicates if notice else None
    try:
        if media in JSON_TYPES:
            decoded.obj = parse_json(request.body, duplicates=duplicates)
        elif media in YAML_TYPES:
            decoded.obj = parse_yaml(request.body, duplicates=duplicates)
        elif media == protobuf_decode.MEDIA_TYPE:
            decoded.obj = protobuf_decode.decode(request.body)
        else:
            raise unsupported_media_type(ACCEPTED)
    except (BodyError, ProtobufError) as error:
        raise bad_request(str(error)) from error
    return decoded


def decode_object(type_: ResourceType, request: Request, *, notice: bool = True) -> Decoded:
    """Decode a body that has to be an object of a type; a missing kind of a built-in one is taken from the URL. Raises `StatusError`."""
    resource, must = type_.resource, f"the object provided is unrecognized (must be of type {type_.resource.kind})"
    try:
        decoded = decode_body(request, notice=notice)
    except StatusError as error:
        if error.code == 400 and media_type(request) in JSON_TYPES:
            raise bad_request(f"{must}: {error.message} ({_shown(request.body)})") from error
        raise
    if decoded.obj is None and not type_.custom:
        decoded.obj = {}
    obj = decoded.obj
    if not isinstance(obj, dict):
        kind = {list: "array", str: "string", bool: "bool"}.get(type(obj), "number")
        struct = (
            'struct { APIVersion string "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" }'
        )
        why = f"json: cannot unmarshal {kind} into Go value of type {struct}"
        why = f"couldn't get version/kind; json parse error: {why}"
        raise bad_request(f"{must}: {why} ({_shown(request.body)})")
    if type_.custom and not obj.get("kind"):
        text = request.body.decode("utf-8", "replace").strip()
        short = text if len(text) <= SHOWN else f"{text[:SHOWN]} ..."
        why = f"Object 'Kind' is missing in '{text[:MOST_SHOWN]}' ({short})"
        raise bad_request(f"the object provided is unrecognized (must be of type {resource.kind}): {why}")
    if type_.custom and obj.get("apiVersion") != resource.api_version:
        given = obj.get("apiVersion") or ""
        why = f"the API version in the data ({given}) does not match the expected API version ({resource.api_version})"
        raise bad_request(why)
    if type_.custom and obj["kind"] != resource.kind:
        fault = FieldError("FieldValueInvalid", "kind", obj["kind"], f"must be {resource.kind}")
        raise invalid(resource.group, obj["kind"], (obj.get("metadata") or {}).get("name", ""), [fault])
    kind, api_version = obj.get("kind") or resource.kind, obj.get("apiVersion") or resource.api_version
    if kind != resource.kind or api_version != resource.api_version:
        group, _, version = str(api_version).rpartition("/")
        if api_version == resource.api_version:
            internal = resource.group.partition(".")[0] or "core"
            raise bad_request(
                f'{kind} in version "{version}" cannot be handled as a {resource.kind}: '
                f"converting ({version}.{kind}) to ({internal}.{resource.kind}): unknown conversion"
            )
        gvk = f"{group}/{version}, Kind={kind}"
        wanted = f"{resource.group}/{resource.version}, Kind={resource.kind}"
        raise bad_request(f"the API version in the data ({gvk}) does not match the expected API version ({wanted})")
    obj["kind"], obj["apiVersion"] = resource.kind, resource.api_version
    if obj.get("metadata") is None:
        obj["metadata"] = {}
    return decoded


def _shown(body: bytes) -> str:
    """The start of a body that is no object."""
    if not body:
        return "<empty>"
    more = " ..." if len(body) > SHOWN else ""
    return body[:SHOWN].decode("utf-8", "replace") + more if body.startswith(b"{") else body[:SHOWN].hex() + more


def check_fields(type_: ResourceType, obj: Object, duplicates: list[str], mode: str, warnings: list[str]) -> None:
    """Drop unknown fields; say so as `fieldValidation` asks: an error (Strict), warnings (Warn), nothing (Ignore).

    Raises `StatusError` 400, also for a value of the wrong type.
    """
    fault = fields_fault(type_, obj, duplicates, mode, warnings)
    if fault:
        resource = type_.resource
        raise bad_request(
            f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: {fault}'
        )


def check_patched_fields(type_: ResourceType, obj: Object, patch: bytes, mode: str, warnings: list[str]) -> None:
    """The same for the outcome of a patch, whose faults are those of the patch. Raises `StatusError` 422."""
    fault = fields_fault(type_, obj, [], mode, warnings)
    if fault:
        shown = patch.decode("utf-8", "replace")
        raise invalid("", "", "", [FieldError("FieldValueInvalid", "patch", shown, fault)])


def check_applied_fields(type_: ResourceType, obj: Object, namespace: str) -> None:
    """A body of server-side apply may only have fields that the kind has, each of the right type. It is not changed.
    `namespace` is the one it names itself.

    Raises `StatusError` 500, as kube-apiserver does.
    """
    resource = type_.resource
    kind = f"{resource.group}/{resource.version}, Kind={resource.kind}"
    what = f"{namespace}/{obj['metadata']['name']}; {kind}"
    faults = list(type_faults(obj, type_.schema))
    if faults:
        shown = faults[0] if len(faults) == 1 else "\n  ".join(["errors:", *faults])
        raise StatusError(500, "", f"failed to create typed patch object ({what}): {shown}")
    try:
        type_.strategy.prune(copy_json(obj))
    except DecodeError as error:
        raise StatusError(
            500,
            "",
            f"failed to convert new object ({what}) to proper version: unable to convert unstructured object to {kind}: {error}",
        ) from error


def fields_fault(type_: ResourceType, obj: Object, duplicates: list[str], mode: str, warnings: list[str]) -> str:
    """Why the fields of an object cannot be taken; empty when they can."""
    try:
        unknown = type_.strategy.prune(obj)
    except DecodeError as error:
        return str(error)
    texts = [f'duplicate field "{path}"' for path in duplicates] + [f'unknown field "{path}"' for path in unknown]
    if texts and mode == "Strict":
        return f"strict decoding error: {', '.join(texts)}"
    if mode == "Warn":
        warnings += texts
    return ""


_OPTIONS = {"create": "CreateOptions", "update": "UpdateOptions", "patch": "PatchOptions"}


def check_write_options(verb: str, query: dict[str, str], media: str) -> None:
    """`fieldManager` and `force` of a write. Raises `StatusError` 422."""
    faults = Faults()
    manager = query.get("fieldManager", "")
    if len(manager.encode()) > MAX_MANAGER:
        faults.too_long("fieldManager", MAX_MANAGER)
    elif not manager.isprintable():
        faults.invalid("fieldManager", manager, "should only contain printable characters")
    if "force" in query and verb == "patch" and not media.startswith("application/apply-patch"):
        faults.forbidden("force", "may not be specified for non-apply patch")
    if faults.errors:
        raise invalid("meta.k8s.io", _OPTIONS.get(verb, "DeleteOptions"), "", faults.errors)


def validation_mode(query: dict[str, str], verb: str) -> str:
    """`fieldValidation`, Warn by default. Raises `StatusError` 422 for others."""
    mode = query.get("fieldValidation") or "Warn"
    if mode not in ("Strict", "Warn", "Ignore"):
        supported = ", ".join(f'"{each}"' for each in ("", "Ignore", "Strict", "Warn"))
        fault = FieldError("FieldValueNotSupported", "fieldValidation", mode, f"supported values: {supported}")
        raise invalid("meta.k8s.io", _OPTIONS.get(verb, "PatchOptions"), "", [fault])
    return mode
