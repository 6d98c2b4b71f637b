"""SOCKS 5 (RFC 1928) for programs that take no HTTP proxy: only CONNECT, only from this machine, no passwords.

The first bytes of a connection say where it wants to go; everything after them is passed on as it comes.
"""

from __future__ import annotations

import asyncio
import ipaddress
import struct
from collections.abc import Awaitable, Callable

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Open = Callable[[str, int], Awaitable[Streams]]
"""Opens a connection to a host and a port. Raises `OSError`."""

VERSION, CONNECT = 5, 1
_IPV4, _NAME, _IPV6 = 1, 3, 4
_DONE, _UNREACHABLE, _NO_COMMAND, _NO_ADDRESS = 0, 4, 7, 8
TIMEOUT = 10.0
CHUNK = 1 << 16


class NotSocks(Exception):
    """The client speaks something else, or wants something else than CONNECT."""


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, open_: Open) -> None:
    """One connection of a client, to its end."""
    try:
        async with asyncio.timeout(TIMEOUT):
            host, port = await _wanted(reader, writer)
        try:
            there = await open_(host, port)
        except (OSError, TimeoutError):
            writer.write(_answer(_UNREACHABLE))
            return
        try:
            writer.write(_answer(_DONE))
            await pass_on((reader, writer), there)
        finally:
            there[1].close()
    except (NotSocks, OSError, EOFError, TimeoutError):
        pass  # the client hears it by the end of its connection
    finally:
        writer.close()


async def pass_on(here: Streams, there: Streams) -> None:
    """Bytes both ways; the end of one way is passed on, too."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_one_way(here[0], there[1]))
        tasks.create_task(_one_way(there[0], here[1]))


async def _one_way(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        writer.close()


async def _wanted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[str, int]:
    version, methods = await reader.readexactly(2)
    if version != VERSION:
        raise NotSocks
    await reader.readexactly(methods)
    writer.write(bytes([VERSION, 0]))  # no password
    version, command, _, kind = await reader.readexactly(4)
    if kind == _NAME:
        (length,) = await reader.readexactly(1)
        host = (await reader.readexactly(length)).decode("ascii", "replace")
    elif kind in (_IPV4, _IPV6):
        host = str(ipaddress.ip_address(await reader.readexactly(4 if kind == _IPV4 else 16)))
    else:
        writer.write(_answer(_NO_ADDRESS))
        raise NotSocks
    (port,) = struct.unpack(">H", await reader.readexactly(2))
    if version != VERSION or command != CONNECT:
        writer.write(_answer(_NO_COMMAND))
        raise NotSocks
    return host, port


def _answer(code: int) -> bytes:
    return bytes([VERSION, code, 0, _IPV4, 0, 0, 0, 0, 0, 0])
