"""The few frames of SPDY/3.1 that `kubectl port-forward` uses: streams, data, pings. Pure but for zlib's state.

Format: https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import msgspec

_WORDS = """\
options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow
authorization cache-control connection content-base content-encoding content-language content-length content-location
content-md5 content-range content-type date etag expect expires from host if-match if-modified-since if-none-match
if-range if-unmodified-since last-modified location max-forwards pragma proxy-authenticate proxy-authorization range
referer retry-after server te trailer transfer-encoding upgrade user-agent vary via warning www-authenticate method get
status 200_OK version HTTP/1.1 url public set-cookie keep-alive origin"""
_CODES = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
_PHRASES = (
    "203 Non-Authoritative Information", "204 No Content", "301 Moved Permanently", "400 Bad Request",
    "401 Unauthorized", "403 Forbidden", "404 Not Found", "500 Internal Server Error", "501 Not Implemented",
    "503 Service Unavailable",
)  # fmt: skip
_REST = (
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,"
    "publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
_TEXTS = [word.replace("_", " ").encode() for word in _WORDS.split()]
DICTIONARY = b"".join(struct.pack(">I", len(text)) + text for text in _TEXTS)
DICTIONARY += (_CODES + "".join(_PHRASES) + _REST).encode()
"""What both sides' header compression begins with."""

_VERSION = 0x8003
_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _PING, _GOAWAY = 1, 2, 3, 6, 7
FIN = 1
MOST = 1 << 20


class SpdyError(ValueError):
    """Bytes that are not SPDY/3.1."""


class Opened(msgspec.Struct, frozen=True):
    """A new stream."""

    stream: int
    headers: dict[str, str]
    fin: bool


class Data(msgspec.Struct, frozen=True):
    """Bytes on a stream; `fin` says that no more will come."""

    stream: int
    data: bytes
    fin: bool


class Reset(msgspec.Struct, frozen=True):
    """A stream that has been given up."""

    stream: int


class Ping(msgspec.Struct, frozen=True):
    """To be sent back."""

    number: int


class Away(msgspec.Struct, frozen=True):
    """The other side ends the connection."""


Frame = Opened | Data | Reset | Ping | Away


class Reader:
    """Turns bytes into frames; kinds that nobody needs here are left out."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are complete now. Raises `SpdyError`."""
        self._buffer += data
        while len(self._buffer) >= 8:
            first, second = struct.unpack_from(">II", self._buffer)
            flags, length = second >> 24, second & 0xFFFFFF
            if length > MOST:
                raise SpdyError(f"a frame of {length} bytes is too long")
            if len(self._buffer) < 8 + length:
                return
            body = bytes(self._buffer[8 : 8 + length])
            del self._buffer[: 8 + length]
            if not first >> 31:
                yield Data(first, body, bool(flags & FIN))
                continue
            if first >> 16 != _VERSION:
                raise SpdyError("a frame of another version")
            try:
                frame = self._control(first & 0xFFFF, flags, body)
            except (struct.error, zlib.error, UnicodeDecodeError) as error:
                raise SpdyError(str(error)) from error
            if frame is not None:
                yield frame

    def _control(self, kind: int, flags: int, body: bytes) -> Frame | None:
        if kind == _SYN_STREAM:
            (stream,) = struct.unpack_from(">I", body)
            return Opened(stream & 0x7FFFFFFF, self._headers(body[10:]), bool(flags & FIN))
        if kind == _RST_STREAM:
            return Reset(struct.unpack_from(">I", body)[0] & 0x7FFFFFFF)
        if kind == _PING:
            return Ping(struct.unpack_from(">I", body)[0])
        return Away() if kind == _GOAWAY else None

    def _headers(self, block: bytes) -> dict[str, str]:
        text = self._inflate.decompress(block, MOST)
        (count,) = struct.unpack_from(">I", text)
        at, words = 4, []
        for _ in range(2 * min(count, MOST)):
            (length,) = struct.unpack_from(">I", text, at)
            words.append(text[at + 4 : at + 4 + length].decode())
            at += 4 + length
        return dict(zip(words[::2], words[1::2], strict=True))


class Writer:
    """Makes frames."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def accept(self, stream: int) -> bytes:
        """The answer to a new stream."""
        return _control(_SYN_REPLY, 0, struct.pack(">I", stream) + self._block({}))

    def open(self, stream: int, headers: dict[str, str]) -> bytes:
        """A new stream of ours."""
        return _control(_SYN_STREAM, 0, struct.pack(">IIH", stream, 0, 0) + self._block(headers))

    def data(self, stream: int, data: bytes, *, fin: bool = False) -> bytes:
        """Bytes on a stream."""
        return struct.pack(">II", stream, (FIN if fin else 0) << 24 | len(data)) + data

    def ping(self, number: int) -> bytes:
        """A ping, or the answer to one."""
        return _control(_PING, 0, struct.pack(">I", number))

    def _block(self, headers: dict[str, str]) -> bytes:
        words = [word.encode() for pair in headers.items() for word in pair]
        text = struct.pack(">I", len(headers)) + b"".join(struct.pack(">I", len(word)) + word for word in words)
        return self._deflate.compress(text) + self._deflate.flush(zlib.Z_SYNC_FLUSH)


def _control(kind: int, flags: int, body: bytes) -> bytes:
    return struct.pack(">HHI", _VERSION, kind, flags << 24 | len(body)) + body
