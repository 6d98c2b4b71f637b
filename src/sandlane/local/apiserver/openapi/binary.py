"""The OpenAPI version 2 document in protobuf, the only form in which kubectl reads it (for `kind: List` manifests).

Field numbers are those of gnostic's OpenAPIv2.proto. What kubectl has no use for (headers, examples, tags) is left out.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

ASKED_TYPES = (
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
)
"""What clients ask for; an `@` is not allowed in a media type, so the answer has the second form."""

MEDIA_TYPE = ASKED_TYPES[1]

_METHODS = {"get": 2, "put": 3, "post": 4, "delete": 5, "options": 6, "head": 7, "patch": 8}


def encode_v2(document: Mapping[str, Any]) -> bytes:
    """A Swagger document as the message `openapi.v2.Document`."""
    info = _text(1, document["info"]["title"]) + _text(2, document["info"]["version"])
    paths = _named(2, document["paths"], _path_item)
    definitions = _named(1, document["definitions"], _schema)
    return _text(1, document["swagger"]) + _bytes(2, info) + _bytes(8, paths) + _bytes(9, definitions)


def _varint(value: int) -> bytes:
    out = bytearray()
    value &= 0xFFFFFFFFFFFFFFFF
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _bytes(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _text(number: int, text: str) -> bytes:
    return _bytes(number, text.encode()) if text else b""


def _texts(number: int, texts: Iterable[str]) -> bytes:
    return b"".join(_bytes(number, each.encode()) for each in texts)


def _flag(number: int, value: bool) -> bytes:
    return _varint(number << 3) + b"\1" if value else b""


def _named(number: int, values: Mapping[str, Any], encode: Callable[[Any], bytes]) -> bytes:
    """A repeated pair of name and value."""
    return b"".join(_bytes(number, _text(1, name) + _bytes(2, encode(each))) for name, each in values.items())


def _any(value: Any) -> bytes:
    """`openapi.v2.Any`: the value as YAML, and JSON is YAML."""
    return _bytes(2, msgspec.json.encode(value))


def _extensions(number: int, raw: Mapping[str, Any]) -> bytes:
    return _named(number, {key: each for key, each in raw.items() if key.startswith("x-")}, _any)


def _path_item(item: Mapping[str, Any]) -> bytes:
    out = b"".join(_bytes(number, _operation(item[method])) for method, number in _METHODS.items() if method in item)
    return out + b"".join(_bytes(9, _parameter(each)) for each in item.get("parameters", ()))


def _operation(operation: Mapping[str, Any]) -> bytes:
    responses = _named(1, operation["responses"], _response)
    return (
        _texts(1, operation["tags"])
        + _text(3, operation["description"])
        + _text(5, operation["operationId"])
        + _texts(6, operation["produces"])
        + _texts(7, operation["consumes"])
        + b"".join(_bytes(8, _parameter(each)) for each in operation["parameters"])
        + _bytes(9, responses)
        + _texts(10, operation["schemes"])
        + _extensions(13, operation)
    )


def _response(response: Mapping[str, Any]) -> bytes:
    schema = _bytes(2, _bytes(1, _schema(response["schema"])))
    return _bytes(1, _text(1, response["description"]) + schema)


def _parameter(parameter: Mapping[str, Any]) -> bytes:
    name, where = parameter["name"], parameter["in"]
    required = parameter.get("required", False)
    if where == "body":
        body = _text(2, name) + _text(3, where) + _flag(4, required) + _bytes(5, _schema(parameter["schema"]))
        return _bytes(1, _bytes(1, body))
    plain = _flag(1, required) + _text(2, where) + _text(4, name)
    if where == "path":
        return _bytes(1, _bytes(2, _bytes(4, plain + _text(5, parameter["type"]) + _flag(19, True))))
    return _bytes(1, _bytes(2, _bytes(3, plain + _text(6, parameter["type"]) + _flag(20, True))))


def _schema(raw: Mapping[str, Any]) -> bytes:
    parts: list[bytes] = []
    for key, value in raw.items():
        encode = _SCHEMA_FIELDS.get(key)
        if encode is not None:
            parts.append(encode(value))
    parts.append(_extensions(31, raw))
    return b"".join(parts)


def _double(number: int) -> Callable[[Any], bytes]:
    return lambda value: _varint(number << 3 | 1) + struct.pack("<d", value)


def _integer(number: int) -> Callable[[Any], bytes]:
    return lambda value: _varint(number << 3) + _varint(int(value))


def _additional(value: Any) -> bytes:
    if isinstance(value, bool):
        return _bytes(21, _varint(2 << 3) + (b"\1" if value else b"\0"))
    return _bytes(21, _bytes(1, _schema(value)))


_SCHEMA_FIELDS: dict[str, Callable[[Any], bytes]] = {
    "$ref": lambda value: _text(1, value),
    "format": lambda value: _text(2, value),
    "title": lambda value: _text(3, value),
    "description": lambda value: _text(4, value),
    "multipleOf": _double(6),
    "maximum": _double(7),
    "exclusiveMaximum": lambda value: _flag(8, value),
    "minimum": _double(9),
    "exclusiveMinimum": lambda value: _flag(10, value),
    "maxLength": _integer(11),
    "minLength": _integer(12),
    "pattern": lambda value: _text(13, value),
    "maxItems": _integer(14),
    "minItems": _integer(15),
    "uniqueItems": lambda value: _flag(16, value),
    "maxProperties": _integer(17),
    "minProperties": _integer(18),
    "required": lambda value: _texts(19, value),
    "enum": lambda value: b"".join(_bytes(20, _any(each)) for each in value),
    "additionalProperties": _additional,
    "type": lambda value: _bytes(22, _text(1, value)),
    "items": lambda value: _bytes(23, _bytes(1, _schema(value))),
    "allOf": lambda value: b"".join(_bytes(24, _schema(each)) for each in value),
    "properties": lambda value: _bytes(25, _named(1, value, _schema)),
}
