"""A record of any kind: typed metadata, and the whole object as compact bytes that are decoded when asked for."""

from __future__ import annotations

from typing import Any

import msgspec

from sandlane.kube.metadata import ObjectMeta
from sandlane.kube.resource import Object


class _Head(msgspec.Struct):
    metadata: ObjectMeta


_head = msgspec.json.Decoder(_Head)


class Unstructured(msgspec.Struct, frozen=True, gc=False):
    """An object of any kind, without `managedFields`."""

    metadata: ObjectMeta
    raw: bytes

    @classmethod
    def from_bytes(cls, data: bytes) -> Unstructured:
        """Decode from JSON."""
        if b'"managedFields"' in data:
            whole = msgspec.json.decode(data)
            whole.get("metadata", {}).pop("managedFields", None)
            data = msgspec.json.encode(whole)
        return cls(_head.decode(data).metadata, bytes(data))

    def object(self) -> Object:
        """The whole object, decoded afresh: the caller may change it."""
        whole: dict[str, Any] = msgspec.json.decode(self.raw)
        return whole
