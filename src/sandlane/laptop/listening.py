"""Whether a process of this machine takes connections at an address.

Loopback addresses are looked up in the kernel's table, so that the developer's process sees no strange connections.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from pathlib import Path

_LISTEN = "0A"
TIMEOUT = 1.0


async def listens(host: str, port: int) -> bool:
    """Whether somebody listens there now. A name that stands for several addresses is fine with one of them."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return False
    hosts = {str(info[4][0]) for info in found}
    if all(ipaddress.ip_address(each).is_loopback for each in hosts):
        known = bound()
        if known is not None:
            return any((each, port) in known or (_any(each), port) in known for each in hosts)
    try:
        async with asyncio.timeout(TIMEOUT):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


def bound(folder: Path = Path("/proc/self/net")) -> set[tuple[str, int]] | None:
    """All addresses that processes of this machine listen at; None where the kernel does not tell."""
    found = set()
    try:
        for name in ("tcp", "tcp6"):
            path = folder / name
            if name == "tcp6" and not path.exists():
                continue
            for line in path.read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN:
                    address, _, port = fields[1].partition(":")
                    number = int(port, 16)
                    found.add((_readable(address), number))
                    if _readable(address) == "::":  # takes IPv4, too, unless told otherwise
                        found.add(("0.0.0.0", number))
    except OSError:
        return None
    return found


def _readable(text: str) -> str:
    """An address as the kernel prints it: words of 32 bits in the machine's (little-endian) order."""
    raw = bytes.fromhex(text)
    ordered = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
    address = ipaddress.ip_address(ordered)
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def _any(host: str) -> str:
    return "::" if ":" in host else "0.0.0.0"
