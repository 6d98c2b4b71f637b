"""How an answer looks: the object itself, its metadata only, or a Table, as the Accept header asks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from sandlane.kube.resource import Object
from sandlane.kube.transport import Request, Response
from sandlane.local.apiserver.request_info import is_true
from sandlane.local.apiserver.resource_type import ResourceType
from sandlane.local.apiserver.status import StatusError, bad_request
from sandlane.local.apiserver.tables import table_columns, table_row

META = "meta.k8s.io/v1"
_MEDIA_TYPES = "application/json, application/yaml, application/vnd.kubernetes.protobuf"
_STREAMED = ", application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch"


@dataclass(frozen=True)
class Representation:
    """`kind` is empty (the object), `PartialObjectMetadata` or `Table`; `include` what a Table's rows hold."""

    kind: str = ""
    include: str = "Metadata"
    group: str = ""
    version: str = ""

    def one(self, type_: ResourceType, obj: Object, *, headers: bool = True) -> Object:
        """A single object. A Table without `headers` has no column definitions (all but the first event of a watch)."""
        if self.kind == "PartialObjectMetadata":
            return partial(obj)
        if self.kind == "Table":
            version = obj.get("metadata", {}).get("resourceVersion")
            return self._table(type_, [obj], {"resourceVersion": version} if version else {}, headers)
        return obj

    def many(self, type_: ResourceType, items: Iterable[Object], metadata: Object) -> Object:
        """A list."""
        if self.kind == "Table":
            return self._table(type_, items, metadata, True)
        if self.kind == "PartialObjectMetadataList" or self.kind == "PartialObjectMetadata":
            return {
                "kind": "PartialObjectMetadataList",
                "apiVersion": META,
                "metadata": metadata,
                "items": [partial(item) for item in items],
            }
        resource = type_.resource
        if type_.custom:
            metadata.setdefault("continue", "")
        bare: list[Object] = []
        for item in items:
            if not type_.custom:
                item.pop("kind", None)
                item.pop("apiVersion", None)
            bare.append(item)
        return {
            "kind": type_.list_kind or f"{resource.kind}List",
            "apiVersion": resource.api_version,
            "metadata": metadata,
            "items": bare,
        }

    def _table(self, type_: ResourceType, items: Iterable[Object], metadata: Object, headers: bool) -> Object:
        rows = []
        for item in items:
            row: Object = {"cells": table_row(type_, item)}
            if self.include == "Object":
                row["object"] = item
            else:
                row["object"] = partial(item) if self.include == "Metadata" else None
            rows.append(row)
        table: Object = {"kind": "Table", "apiVersion": META, "metadata": metadata}
        table["columnDefinitions"] = table_columns(type_) if headers else None
        table["rows"] = rows
        return table


def partial(obj: Object) -> Object:
    """Only the metadata."""
    return {"kind": "PartialObjectMetadata", "apiVersion": META, "metadata": obj.get("metadata", {})}


def negotiate(accept: str, query: dict[str, str], *, listing: bool) -> Representation:
    """Choose by the Accept header. Raises `StatusError` 406 when nothing in it can be given."""
    wanted = [_media(part) for part in accept.split(",") if part.strip()] or [("application/json", {})]
    for media, parameters in wanted:
        if media not in ("application/json", "*/*", "application/*", "application/yaml"):
            continue
        kind = parameters.get("as", "")
        if not kind:
            return Representation()
        if parameters.get("g") != "meta.k8s.io" or parameters.get("v") != "v1":
            continue
        if kind == "Table":
            include = query.get("includeObject", "Metadata") or "Metadata"
            if include not in ("None", "Metadata", "Object"):
                why = f"includeObject: Invalid value: \"{include}\": must be 'Metadata', 'Object', 'None', or empty"
                raise bad_request(f"Unable to convert to Table as requested: {why}")
            return Representation(kind, include)
        if kind == ("PartialObjectMetadataList" if listing else "PartialObjectMetadata"):
            return Representation("PartialObjectMetadata")
    if any("as" in parameters for _, parameters in wanted):
        raise StatusError(406, "NotAcceptable", f"only the following media types are accepted: {_MEDIA_TYPES}")
    given = _MEDIA_TYPES + (_STREAMED if listing else "")
    raise StatusError(406, "NotAcceptable", f"406: Not Acceptable\n\nAvailable representations: {given}", {})


Answer = TypeVar("Answer")
_BY_HAND = ("curl", "Wget", "Mozilla/5.0")
_JSON_HEADER = ("content-type", "application/json")


def as_asked(request: Request, answer: Answer) -> Answer | Response:
    """The same answer in YAML when the Accept header puts that first; indented for `?pretty` and for people's tools."""
    if not isinstance(answer, Response) or _JSON_HEADER not in answer.headers:
        return answer
    if not request.headers.get("accept", "").startswith("application/yaml"):
        pretty = next((value for name, value in request.query if name == "pretty"), None)
        by_hand = pretty is None and request.headers.get("user-agent", "").startswith(_BY_HAND)
        if not (by_hand or is_true(pretty)):
            return answer
        return Response(answer.status, answer.headers, msgspec.json.format(answer.body, indent=2) + b"\n")
    import yaml  # takes 45 ms to import, and few clients read YAML

    headers = tuple(("content-type", "application/yaml") if each == _JSON_HEADER else each for each in answer.headers)
    text = yaml.safe_dump(msgspec.json.decode(answer.body), default_flow_style=False, allow_unicode=True)
    return Response(answer.status, headers, text.encode())


def _media(part: str) -> tuple[str, dict[str, str]]:
    pieces = [piece.strip() for piece in part.split(";")]
    parameters: dict[str, Any] = {}
    for piece in pieces[1:]:
        name, _, value = piece.partition("=")
        parameters[name.strip()] = value.strip()
    return pieces[0], parameters
