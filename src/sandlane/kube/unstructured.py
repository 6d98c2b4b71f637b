"""A record of any kind: typed metadata, and the whole object as compact bytes that are decoded when asked for."""

from __future__ import annotations

from typing import Any

import msgspec

from sandlane.kube.metadata import ObjectMeta
from sandlane.kube.resource import Object

_parts = msgspec.json.Decoder(dict[str, msgspec.Raw])
_metadata = msgspec.json.Decoder(ObjectMeta)


class Unstructured(msgspec.Struct, frozen=True, gc=False):
    """An object of any kind, without `managedFields`."""

    metadata: ObjectMeta
    raw: bytes

    @classmethod
    def from_bytes(cls, data: bytes) -> Unstructured:
        """Decode from JSON. Raises `msgspec.ValidationError` when the metadata do not fit."""
        whole = _parts.decode(data)
        head = whole.get("metadata")
        if head is None:
            return cls(ObjectMeta(), data)
        if b'"managedFields"' in data:  # only the two outer levels are taken apart: what lies deeper is copied as it is
            pieces = _parts.decode(head)
            pieces.pop("managedFields", None)
            whole["metadata"] = head = msgspec.Raw(msgspec.json.encode(pieces))
            data = msgspec.json.encode(whole)
        return cls(_metadata.decode(head), data)

    def object(self) -> Object:
        """The whole object, decoded afresh: the caller may change it."""
        whole: dict[str, Any] = msgspec.json.decode(self.raw)
        return whole
