"""Objects from Kubernetes' protobuf: the envelope `k8s\\0` + runtime.Unknown, then a message of a built-in type.

Field numbers come from the same table that JSON bodies are checked against. The result is JSON-like, and not yet in
canonical form: pass it through the kind's strategy as a JSON body would be.
"""

from __future__ import annotations

import base64
import struct
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import msgspec

from sandlane.kube.resource import Object
from sandlane.local.apiserver.protobuf.reader import (
    FIXED64,
    LENGTH,
    VARINT,
    ProtobufError,
    read_fields,
    read_varints,
    signed,
)
from sandlane.local.apiserver.schema import definition_names
from sandlane.local.apiserver.wire.types import Field, fields_of, known

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\0"
_MAX_DEPTH = 64
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_OPTIONS = frozenset({"DeleteOptions", "CreateOptions", "UpdateOptions", "PatchOptions", "GetOptions", "ListOptions"})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def decode(body: bytes) -> Object:
    """The object in a request body. Raises ProtobufError for anything that is not one."""
    if not body.startswith(_MAGIC):
        raise ProtobufError("provided data does not appear to be a protobuf message, expected prefix k8s\\x00")
    api_version = kind = content_encoding = ""
    raw = memoryview(b"")
    for number, wire, value in read_fields(memoryview(body)[len(_MAGIC) :]):
        if wire != LENGTH or isinstance(value, int):
            continue
        if number == 1:
            api_version, kind = _type_meta(value)
        elif number == 2:
            raw = value
        elif number == 3:
            content_encoding = _text(value)
    if content_encoding:
        raise ProtobufError(f"content encoding {content_encoding!r} is not supported")
    group, _, version = api_version.rpartition("/")
    definition = definition_names().get((group, version, kind))
    if kind in _OPTIONS:
        definition = f"{_META}{kind}"
    if definition is None or not known(definition):
        raise ProtobufError(f'no kind "{kind}" is registered for version "{api_version}"')
    result = _message(definition, raw, 0)
    result["apiVersion"], result["kind"] = api_version, kind
    return result


def _type_meta(data: memoryview) -> tuple[str, str]:
    texts = {number: _text(value) for number, _, value in read_fields(data) if not isinstance(value, int)}
    return texts.get(1, ""), texts.get(2, "")


@cache
def _numbered(definition: str) -> dict[int, Field]:
    return {field.number: field for field in fields_of(definition) if field.number}


def _message(definition: str, data: memoryview, depth: int) -> Object:
    if depth > _MAX_DEPTH:
        raise ProtobufError("messages are nested too deep")
    fields = _numbered(definition)
    result: Object = {}
    for number, wire, value in read_fields(data):
        field = fields.get(number)
        if field is None:
            continue
        if field.inline:
            result.update(_message(field.type[1:], _bytes(wire, value), depth + 1))
        elif field.type[0] == "[":
            items = result.setdefault(field.name, [])
            if field.type[1] in "bil" and wire == LENGTH:
                items += [_integer(field.type[1], each) for each in read_varints(_bytes(wire, value))]
            else:
                items.append(_value(field.type[1:], wire, value, depth + 1))
        elif field.type[0] == "{":
            key, each = _entry(field.type[1:], _bytes(wire, value), depth + 1)
            result.setdefault(field.name, {})[key] = each
        else:
            converted = _value(field.type, wire, value, depth + 1)
            if converted is not None:
                result[field.name] = converted
    return result


def _bytes(wire: int, value: int | memoryview) -> memoryview:
    if wire != LENGTH or isinstance(value, int):
        raise ProtobufError(f"wire type {wire} where bytes are wanted")
    return value


def _text(value: int | memoryview) -> str:
    if isinstance(value, int):
        raise ProtobufError("a number where text is wanted")
    try:
        return str(value, "utf-8")
    except UnicodeDecodeError as error:
        raise ProtobufError("text that is not UTF-8") from error


def _integer(kind: str, value: int) -> int | bool:
    return value != 0 if kind == "b" else signed(value)


def _entry(type_: str, data: memoryview, depth: int) -> tuple[str, Any]:
    """One entry of a map: field 1 is the key, field 2 the value."""
    key = ""
    each: Any = _ZERO.get(type_[0])
    if type_[0] == ".":
        each = _message(type_[1:], memoryview(b""), depth)
    elif type_[0] in "[{":
        each = [] if type_[0] == "[" else {}
    for number, wire, value in read_fields(data):
        if number == 1:
            key = _text(_bytes(wire, value))
        elif number == 2:
            each = _value(type_, wire, value, depth)
    return key, each


_ZERO: dict[str, Any] = {"s": "", "b": False, "i": 0, "l": 0, "f": 0.0, "y": "", "Q": "0", "I": 0}


def _value(type_: str, wire: int, value: int | memoryview, depth: int) -> Any:
    kind = type_[0]
    if kind in "bil":
        if wire != VARINT or not isinstance(value, int):
            raise ProtobufError(f"wire type {wire} where a number is wanted")
        return _integer(kind, value)
    if kind == "f":
        if wire != FIXED64 or isinstance(value, int):
            raise ProtobufError(f"wire type {wire} where a float is wanted")
        return struct.unpack("<d", value)[0]
    data = _bytes(wire, value)
    if kind == "s":
        return _text(data)
    if kind == ".":
        return _message(type_[1:], data, depth)
    if kind == "y":
        return base64.b64encode(data).decode()
    if kind == "[":  # a list that is an item or a map's value is a message of its own
        return [
            _value(type_[1:], each_wire, each, depth + 1)
            for number, each_wire, each in read_fields(data)
            if number == 1
        ]
    if kind in "TM":
        return _time(data, micro=kind == "M")
    return _scalar_message(kind, data)


def _time(data: memoryview, *, micro: bool) -> str | None:
    if not len(data):
        return None
    parts = {number: signed(value) for number, _, value in read_fields(data) if isinstance(value, int)}
    try:
        moment = _EPOCH + timedelta(seconds=parts.get(1, 0), microseconds=parts.get(2, 0) // 1000)
    except OverflowError as error:
        raise ProtobufError("a time out of range") from error
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ")


def _scalar_message(kind: str, data: memoryview) -> Any:
    """Types that are one value in JSON and a small message in protobuf."""
    parts = {number: value for number, _, value in read_fields(data)}
    first = parts.get(1)
    if kind == "I":
        if first:
            return _text(parts.get(3, memoryview(b"")))
        number = parts.get(2, 0)
        if not isinstance(number, int):
            raise ProtobufError("an IntOrString without a number")
        return signed(number)
    if kind == "D":
        return f"{signed(first) / 1e9:g}s" if isinstance(first, int) else "0s"
    if first is None:
        return None
    if kind == "Q":
        return _text(first)
    try:
        return msgspec.json.decode(_text(first)) if first else None
    except (msgspec.DecodeError, RecursionError) as error:
        raise ProtobufError(f"a raw value that is not JSON: {error}") from error
