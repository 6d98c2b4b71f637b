"""Lists as they arrive: pages, whose items stay bytes until somebody wants them."""

from __future__ import annotations

import msgspec

from sandlane.kube.resource import Object


class ObjectList(msgspec.Struct):
    """All pages of a list."""

    items: list[Object]
    resource_version: str


class RawPage(msgspec.Struct):
    """One page of a list, each item as JSON that has not been read; `bytes(item)` copies it out of the answer."""

    items: list[msgspec.Raw]
    resource_version: str


class RawList(msgspec.Struct):
    """All pages of a list, each item as bytes."""

    items: list[bytes]
    resource_version: str


class _ListMeta(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(name="continue", default="")


class Page(msgspec.Struct):
    """A page as the server sends it."""

    metadata: _ListMeta
    items: list[msgspec.Raw] | None = None


decode_page = msgspec.json.Decoder(Page).decode
