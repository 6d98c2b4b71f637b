"""The subresource `scale`, and what can be done to a Pod: bind it to a node, evict it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec

from sandlane.kube.clock import timestamp
from sandlane.kube.patch import json_patch, merge_patch
from sandlane.kube.patch.errors import PatchError
from sandlane.kube.resource import Object
from sandlane.kube.transport import Request, Response
from sandlane.local.apiserver.answers import json_answer
from sandlane.local.apiserver.body import decode_body, media_type
from sandlane.local.apiserver.eviction import evict
from sandlane.local.apiserver.kinds.field_errors import FieldError
from sandlane.local.apiserver.patching import APPLY
from sandlane.local.apiserver.representation import negotiate
from sandlane.local.apiserver.request_info import RequestInfo, is_true
from sandlane.local.apiserver.resource_type import Column, ResourceType
from sandlane.local.apiserver.status import StatusError, bad_request, conflict, internal, invalid
from sandlane.local.apiserver.writer import Seen

if TYPE_CHECKING:
    from sandlane.local.apiserver.auth.user import User
    from sandlane.local.apiserver.server import ApiServer

JSON = (("content-type", "application/json"),)
COLUMNS = (
    Column("Desired", "integer", read=lambda scale: scale["spec"].get("replicas", 0)),
    Column("Available", "integer", read=lambda scale: scale["status"]["replicas"]),
    Column("Age", read=lambda scale: scale["metadata"].get("creationTimestamp")),
)
DEFAULT_PATHS = (".spec.replicas", ".status.replicas", ".spec.selector")


def _get(obj: Object, path: str) -> Any:
    value: Any = obj
    for key in path.strip(".").split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _set(obj: Object, path: str, value: Any) -> None:
    *parents, last = path.strip(".").split(".")
    for key in parents:
        obj = obj.setdefault(key, {})
    obj[last] = value


def to_scale(type_: ResourceType, obj: Object) -> Object:
    """The `autoscaling/v1` Scale of an object."""
    spec_path, status_path, selector_path = type_.scale_paths or DEFAULT_PATHS
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    metadata = {key: obj["metadata"][key] for key in kept if key in obj["metadata"]}
    replicas = _get(obj, spec_path)
    status: Object = {"replicas": _get(obj, status_path) or 0}
    selector = _get(obj, selector_path) if selector_path else None
    if isinstance(selector, dict):
        from sandlane.local.apiserver.printers import _selector

        text = _selector(selector_path.strip("."))(obj)
        selector = "" if text == "<none>" else text
    if selector:
        status["selector"] = selector
    spec: Object = {"replicas": replicas} if replicas else {}
    return {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status}


async def handle(
    server: ApiServer, type_: ResourceType, info: RequestInfo, request: Request, user: User, query: dict[str, str]
) -> Response:
    """get, update and patch of `scale`."""
    namespace = info.namespace if type_.resource.namespaced else ""
    if info.verb == "get":
        obj = await server.reader.get(type_, namespace, info.name)
        scale = to_scale(type_, obj)
        if type_.custom and _get(obj, (type_.scale_paths or DEFAULT_PATHS)[0]) is None:
            raise internal(f'the spec replicas field "{(type_.scale_paths or DEFAULT_PATHS)[0]}" does not exist')
        return _answer(type_, scale, request, query)
    write = server._write(type_, info, request, user, query)
    write.seen = _seen(type_)
    body = decode_body(msgspec.structs.replace(request, headers={"content-type": "application/json"})).obj
    media = media_type(request)
    spec_path = (type_.scale_paths or DEFAULT_PATHS)[0]
    if media.startswith(APPLY):
        if not isinstance(body, dict):
            raise bad_request("the body is not a Scale")
        applied: Object = {"apiVersion": type_.resource.api_version, "kind": type_.resource.kind}
        applied["metadata"] = {"name": info.name} | ({"namespace": namespace} if namespace else {})
        if (replicas := (body.get("spec") or {}).get("replicas")) is not None:
            _set(applied, spec_path, replicas)
        force = is_true(query.get("force"))
        made, _ = await server.writer.apply(write, applied, force=force, manager=query.get("fieldManager", ""))
        return _answer(type_, to_scale(type_, made), request, query, write.warnings)

    async def scaled(old: Object) -> Object:
        before = to_scale(type_, old)
        if info.verb == "update":
            wanted = body
        else:
            try:
                wanted = (
                    json_patch.json_patch(before, body)
                    if "json-patch" in media
                    else merge_patch.merge_patch(before, body)
                )
            except PatchError as error:
                raise StatusError(422, "Invalid", str(error), {}) from error
        if not isinstance(wanted, dict):
            raise bad_request("the body is not a Scale")
        replicas = (wanted.get("spec") or {}).get("replicas") or 0
        if not isinstance(replicas, int) or (replicas < 0 and not type_.custom):
            detail = "must be greater than or equal to 0"
            raise invalid(
                "autoscaling", "Scale", info.name, [FieldError("FieldValueInvalid", "spec.replicas", replicas, detail)]
            )
        version = (wanted.get("metadata") or {}).get("resourceVersion")
        _set(old, spec_path, replicas)
        if version and version != old["metadata"]["resourceVersion"]:
            old["metadata"]["resourceVersion"] = version
        else:
            old["metadata"].pop("resourceVersion", None)
        return old

    updated = await server.writer.modify(write, scaled)
    return _answer(type_, to_scale(type_, updated), request, query, write.warnings)


def _seen(type_: ResourceType) -> Seen:
    """Admission sees Scales; what it makes of the replicas counts."""

    def taken(scale: Object, obj: Object) -> None:
        _set(obj, (type_.scale_paths or DEFAULT_PATHS)[0], (scale.get("spec") or {}).get("replicas") or 0)

    return Seen("autoscaling", "v1", "Scale", lambda obj: to_scale(type_, obj), taken)


def _answer(
    type_: ResourceType, scale: Object, request: Request, query: dict[str, str], warnings: list[str] | None = None
) -> Response:
    """A Scale in the form that is asked for. Raises `StatusError` 406."""
    shape = negotiate(request.headers.get("accept", ""), query, listing=False)
    return json_answer(shape.one(replace(type_, columns=COLUMNS), scale), 200, warnings)


async def pod_action(
    server: ApiServer, type_: ResourceType, info: RequestInfo, request: Request, user: User, query: dict[str, str]
) -> Response:
    """`pods/binding` and `pods/eviction`."""
    write = server._write(type_, info, request, user, query)
    body = decode_body(request).obj
    if not isinstance(body, dict):
        raise bad_request("the body is not an object")
    evicting = info.subresource == "eviction"
    kind = ("policy", "v1", "Eviction") if evicting else ("", "v1", "Binding")
    shown: Object = {"kind": kind[2], "apiVersion": "policy/v1" if evicting else "v1"} | body
    shown["metadata"] = {"name": info.name, "namespace": info.namespace} | (body.get("metadata") or {})
    asked = replace(write, seen=Seen(*kind))
    await server.admission.mutate(asked, "CREATE", shown, None)
    await server.admission.validate(asked, "CREATE", shown, None)
    write.user = None  # admission has had its say
    if evicting:
        await evict(server, write, info, body, query)
        return _created()
    target = body.get("target") or {}
    if not target.get("name"):
        raise invalid("", "Binding", info.name, [FieldError("FieldValueRequired", "target.name")])

    async def bound(old: Object) -> Object:
        if old["spec"].get("nodeName"):
            why = f'pod {info.name} is already assigned to node "{old["spec"]["nodeName"]}"'
            raise conflict("", "pods/binding", info.name, why)
        if old["metadata"].get("deletionTimestamp"):
            raise conflict(
                "", "pods/binding", info.name, f"pod {info.name} is being deleted, cannot be assigned to a host"
            )
        old["spec"]["nodeName"] = target["name"]
        annotations = (body.get("metadata") or {}).get("annotations")
        if annotations:
            old["metadata"].setdefault("annotations", {}).update(annotations)
        conditions = [c for c in old.setdefault("status", {}).get("conditions") or () if c["type"] != "PodScheduled"]
        now = timestamp(server.clock.now())
        scheduled = {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": now}
        old["status"]["conditions"] = [*conditions, scheduled]
        old["metadata"].pop("resourceVersion", None)
        return old

    await server.writer.modify(write, bound)
    return _created()


def _created() -> Response:
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
    return Response(201, JSON, msgspec.json.encode(status))
