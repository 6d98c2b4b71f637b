"""Is a process ready? One GET of `/readyz`, over TLS or not, in a few lines so that the supervisor stays small."""

from __future__ import annotations

import asyncio
import ssl

TIMEOUT = 2.0


def trust(ca: bytes) -> ssl.SSLContext:
    """TLS that accepts certificates of one authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=ca.decode())
    return context


async def missing(host: str, port: int, tls: ssl.SSLContext | None = None, path: str = "/readyz") -> str:
    """Nothing when `GET path` answers 200, else what was wrong in a few words."""
    try:
        async with asyncio.timeout(TIMEOUT):
            reader, writer = await asyncio.open_connection(host, port, ssl=tls)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                head, _, body = (await reader.read(65_536)).partition(b"\r\n\r\n")
            finally:
                writer.close()
    except TimeoutError:
        return f"no answer on {host}:{port}"
    except OSError as error:
        return f"does not listen on {host}:{port} yet" if isinstance(error, ConnectionError) else str(error)
    status = head.split(b" ", 2)[1:2]
    if status == [b"200"]:
        return ""
    return body.decode(errors="replace").strip()[:500] or f"answers {b''.join(status).decode(errors='replace')}"
