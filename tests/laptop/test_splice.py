"""A splice passes on whatever comes, holds back who sends more than is taken, and ends both sides together."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest

from sandlane.laptop.splice import SpliceEnd, connected, secured
from support.tunnel import UID, Pki

MUCH = 8 << 20


async def spliced() -> tuple[SpliceEnd, SpliceEnd, asyncio.StreamReader, asyncio.StreamWriter, socket.socket]:
    """Both ends; what is behind one of them as streams, and what is behind the other as a socket."""
    (mine, one), (other, yours) = socket.socketpair(), socket.socketpair()
    yours.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=mine)
    return SpliceEnd(one), SpliceEnd(other), reader, writer, yours


async def test_what_was_collected_before_goes_first() -> None:
    """A handshake takes what it needs; the rest is passed on, once, before all that follows."""
    one, other, _, writer, yours = await spliced()
    writer.write(b"hello\r\n\r\nPRI ")
    assert await one.read_until(b"\r\n\r\n") == b"hello\r\n\r\n"
    assert await one.read_exactly(2) == b"PR"
    one.join(other, b"PR")
    writer.write(b"* HTTP")
    got = b""
    while len(got) < 10:
        got += await asyncio.get_running_loop().sock_recv(yours, 10)
    assert got == b"PRI * HTTP"
    writer.close()
    one.abort()
    yours.close()


async def test_who_does_not_read_stops_who_writes() -> None:
    """The sender's own buffer fills, nothing is lost or reordered, and the end comes after the last byte."""
    one, other, _, writer, yours = await spliced()
    one.join(other)
    body = b"".join(number.to_bytes(4) for number in range(MUCH // 4))
    writer.write(body)
    writer.write_eof()
    before = -1
    while one.bytes_received != before:
        before = one.bytes_received
        await asyncio.sleep(0.05)
    assert one.bytes_received < MUCH / 2
    got = bytearray()
    while data := await asyncio.get_running_loop().sock_recv(yours, 1 << 20):
        got += data
    assert got == body
    assert (await one.lost, await other.lost) == (None, None)
    with pytest.raises(ConnectionError):
        one.write(b"more")
    writer.close()
    yours.close()


async def test_tls_on_one_side(tmp_path: Path) -> None:
    """What is sent arrives decrypted and whole, both ways, however TLS cuts it into records, and so does its end."""
    pki = Pki(tmp_path)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    body = bytes(range(256)) * (MUCH // 1024)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello " + await reader.readexactly(len(body)))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server) as listening:
        sock = await connected("127.0.0.1", listening.sockets[0].getsockname()[1])
        tls = await secured(sock, pki.client(UID), "tunnel", 5)
        assert tls.names() == ["tunnel"]
        end, (inner, yours) = SpliceEnd(sock, tls), socket.socketpair()
        end.join(SpliceEnd(inner))
        reader, writer = await asyncio.open_connection(sock=yours)
        writer.write(body)
        assert await reader.read() == b"hello " + body
        assert await end.lost is None
        writer.close()


async def test_a_handshake_that_fails(tmp_path: Path) -> None:
    """A server that hangs up, says nothing or speaks no TLS is an error in time, and the socket is closed."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        if answer is None:
            await reader.read()
        writer.write(answer or b"")
        writer.close()

    context = Pki(tmp_path).client(UID)
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        for answer, error in ((b"", ConnectionError), (None, TimeoutError), (b"no TLS at all", ssl.SSLError)):
            sock = await connected("127.0.0.1", port)
            with pytest.raises(error):
                await secured(sock, context, "tunnel", 0.05 if answer is None else 5)
            assert sock.fileno() < 0
