"""The protobuf wire format: fields of a message as (number, wire type, value), with bounds checked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5

RawField: TypeAlias = tuple[int, int, "int | memoryview"]


class ProtobufError(ValueError):
    """Bytes that are not a protobuf message of the expected type."""


def read_fields(data: memoryview) -> Iterator[RawField]:
    """All fields of one message in order. Raises ProtobufError."""
    position, end = 0, len(data)
    while position < end:
        tag, position = _varint(data, position)
        number, wire = tag >> 3, tag & 7
        if not number or number >= 1 << 29:
            raise ProtobufError(f"illegal field number {number}")
        if wire == VARINT:
            value, position = _varint(data, position)
            yield number, wire, value
            continue
        if wire == LENGTH:
            size, position = _varint(data, position)
        elif wire == FIXED64:
            size = 8
        elif wire == FIXED32:
            size = 4
        else:
            raise ProtobufError(f"illegal wire type {wire} of field {number}")
        if size > end - position:
            raise ProtobufError("unexpected end of message")
        yield number, wire, data[position : position + size]
        position += size


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    result = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise ProtobufError("unexpected end of message")
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result & 0xFFFFFFFFFFFFFFFF, position
    raise ProtobufError("a number of more than ten bytes")


def read_varints(data: memoryview) -> Iterator[int]:
    """The numbers of a packed field."""
    position = 0
    while position < len(data):
        value, position = _varint(data, position)
        yield value


def signed(value: int) -> int:
    """A 64-bit two's complement number."""
    return value - (1 << 64) if value >= 1 << 63 else value
