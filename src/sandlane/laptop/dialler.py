"""The laptop's dialler: keeps enough tunnels open to enough replicas, and splices each to the local Envoy.

It dials (TLS with the LocalWorkload's certificate), asks for the upgrade, answers the server's idle pings, and at the
first other byte connects to the local Envoy's socket and hands all bytes over. A tunnel that breaks or falls silent is
dialled again at once, then with jittered back-off. Every task runs in the TaskGroup of `Dialler.run`, which ends when
its caller cancels it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec
import structlog

from sandlane.laptop.pieces import is_address
from sandlane.laptop.splice import SpliceEnd, connected, secured
from sandlane.routing.tunnels import REASON_HEADER
from sandlane.tunnel.bootstrap import HANDSHAKE_PATH, REPLICA_HEADER, UPGRADE, WORKERS_HEADER
from sandlane.tunnel.identity import DETAIL_HEADER

log = structlog.get_logger(__name__)

IDLE_PING = b"RPING"
SILENCE = 7.0
"""Seconds without a byte from the server (it pings every 2 s) after which a tunnel counts as dead."""
CONNECT_TIMEOUT = 30.0
"""Seconds that a dial may take in all: it may try several ways, and may ask for a certificate first."""
HANDSHAKE_TIMEOUT = 5.0
ENVOY_PATIENCE = 3.0
"""Seconds that a tunnel waits for a local Envoy that is not there: it is started again within a second."""
ON_ITS_WAY = 1 << 20
"""Bytes that may be on their way to the local Envoy (the kernel may allow fewer): so that it is seldom waited for."""
FIRST_RETRY = 0.1
LAST_RETRY = 2.0

Connect = Callable[[], Awaitable[SpliceEnd]]
"""Opens one TLS connection to the tunnel server (directly, or through the API server's port-forward)."""


class Clock(Protocol):
    """Time, as far as the dialler needs it."""

    def monotonic(self) -> float:
        """Seconds from some start."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class Refused(Exception):
    """The server refused the tunnel for good: `status` is its answer (403: the certificate is not, or no longer, valid
    for a LocalWorkload)."""

    def __init__(self, status: int, reason: str, detail: str = "") -> None:
        super().__init__(f"the tunnel server refused the connection: {status} {detail or reason}".rstrip())
        self.status = status
        self.reason = reason
        self.detail = detail


class Surplus(Exception):
    """A tunnel to a replica that has enough of them already."""


class TunnelState(msgspec.Struct, frozen=True):
    """What the dialler holds: tunnels per replica, and the last failure in words (empty when there was none)."""

    tunnels: dict[str, int]
    error: str = ""

    @property
    def connected(self) -> bool:
        """Whether any tunnel is up."""
        return bool(self.tunnels)


def direct(host: str, port: int, context: Callable[[], ssl.SSLContext], server_name: str) -> Connect:
    """Dial an address directly; `context` is asked at each dial, so that a renewed certificate counts.

    An address that is a name is sent as the TLS server name, so that an ingress which passes TLS on finds its backend.
    """

    async def connect() -> SpliceEnd:
        tls = context()
        name = server_name if tls.check_hostname or is_address(host) else host
        return await over(await connected(host, port), tls, name, server_name)

    return connect


async def over(sock: socket.socket, context: ssl.SSLContext, name: str, server_name: str) -> SpliceEnd:
    """TLS to a tunnel server over a connected socket; `name` is what is sent, `server_name` what its certificate has to be for.

    Raises `OSError` and `TimeoutError`; the socket is closed then.
    """
    tls = await secured(sock, context, name, HANDSHAKE_TIMEOUT)
    if server_name not in (names := tls.names()):
        sock.close()
        raise ConnectionError(
            f"the server's certificate is not for {server_name} but for {', '.join(names) or 'nobody'}"
        )
    return SpliceEnd(sock, tls)


class Dialler:
    """Keeps tunnels open. `replicas` is how many tunnel servers there are; each gets as many tunnels as it asks for."""

    def __init__(
        self,
        connect: Connect,
        local_socket: str,
        clock: Clock,
        jitter: Callable[[], float],
        *,
        replicas: int = 2,
        on_change: Callable[[TunnelState], None] = lambda state: None,
    ) -> None:
        self._connect = connect
        self._local_socket = local_socket
        self._clock = clock
        self._jitter = jitter
        self._replicas = replicas
        self._on_change = on_change
        self._held: dict[str, int] = {}
        self._per_replica = 1
        self._error = ""
        self._changed = asyncio.Event()

    @property
    def state(self) -> TunnelState:
        """What is held now."""
        return TunnelState(dict(self._held), self._error)

    async def run(self) -> None:
        """Keep tunnels open until cancelled. Raises `Refused` when the server will never accept this certificate."""
        try:
            async with asyncio.TaskGroup() as tasks:
                dialling = 0

                async def hold() -> None:
                    nonlocal dialling
                    try:
                        await self._one_tunnel()
                    finally:
                        dialling -= 1
                        self._changed.set()

                while True:
                    while dialling < self._replicas * self._per_replica:
                        dialling += 1
                        tasks.create_task(hold())
                    self._changed.clear()
                    await self._changed.wait()
        except* Refused as group:
            raise _first(group) from None

    async def _one_tunnel(self) -> None:
        """Dial until one tunnel is up, hold it until it ends."""
        delay = FIRST_RETRY
        while True:
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    end = await self._connect()
                try:
                    replica = await self._handshake(end)
                except BaseException:
                    end.abort()
                    raise
                break
            except Surplus:
                pass  # the same replica again; the next dial may reach another
            except (OSError, TimeoutError) as error:
                self._failed(error)
            await self._clock.sleep(delay * (0.5 + self._jitter()))
            delay = min(delay * 2, LAST_RETRY)
        self._count(replica, 1)
        try:
            await self._hold(end)
        except (OSError, TimeoutError) as error:
            self._failed(error)
        finally:
            self._count(replica, -1)
            end.abort()

    async def _handshake(self, end: SpliceEnd) -> str:
        """Ask for the upgrade; the name of the replica that granted it. What the request says of identity is ignored
        by the server, which takes it from the certificate; Envoy only wants the headers to be there."""
        end.write(
            f"GET {HANDSHAKE_PATH} HTTP/1.1\r\nhost: tunnel\r\nconnection: upgrade\r\nupgrade: {UPGRADE}\r\n"
            "x-envoy-reverse-tunnel-node-id: from-certificate\r\n"
            "x-envoy-reverse-tunnel-cluster-id: from-certificate\r\n"
            "x-envoy-reverse-tunnel-tenant-id: sandlane\r\n\r\n".encode()
        )
        async with asyncio.timeout(HANDSHAKE_TIMEOUT):
            head = (await end.read_until(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(head[0].split()[1])
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        if status in (401, 403, 404):
            raise Refused(status, headers.get(REASON_HEADER, ""), headers.get(DETAIL_HEADER, ""))
        if status not in (101, 200):
            raise ConnectionError(f"the tunnel server answered {status}")
        replica = headers.get(REPLICA_HEADER, "")
        self._per_replica = max(1, int(headers.get(WORKERS_HEADER, "1")))
        if self._held.get(replica, 0) >= self._per_replica and len(self._held) < self._replicas:
            raise Surplus
        return replica

    async def _hold(self, outer: SpliceEnd) -> None:
        """Answer idle pings until the first real byte, then splice until either side ends or falls silent."""
        while True:
            async with asyncio.timeout(SILENCE):
                first = await outer.read_exactly(len(IDLE_PING))
            if first != IDLE_PING:
                break
            outer.write(first)
        inner = await self._to_envoy()
        try:
            outer.join(inner, first)
            ended = {outer.lost, inner.lost}
            heard = outer.bytes_received
            while not (await asyncio.wait(ended, timeout=SILENCE, return_when=asyncio.FIRST_COMPLETED))[0]:
                if outer.bytes_received == heard:
                    raise TimeoutError(f"nothing heard from the tunnel server for {SILENCE:.0f} s")
                heard = outer.bytes_received
            if outer.lost.done() and (error := outer.lost.result()):
                raise error
        finally:
            inner.abort()

    async def _to_envoy(self) -> SpliceEnd:
        """A connection to the local Envoy, also when it is just being started again. Raises `OSError` after a while."""
        end = self._clock.monotonic() + ENVOY_PATIENCE
        while True:
            sock = socket.socket(socket.AF_UNIX)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ON_ITS_WAY)
            sock.setblocking(False)
            try:
                sock.connect(self._local_socket)  # on one machine: at once, or not at all
            except OSError as error:
                sock.close()
                soon = isinstance(error, FileNotFoundError | ConnectionRefusedError | BlockingIOError)
                if not soon or self._clock.monotonic() > end:
                    raise
                await self._clock.sleep(0.02)
            else:
                return SpliceEnd(sock)

    def _count(self, replica: str, change: int) -> None:
        count = self._held.get(replica, 0) + change
        if count:
            self._held[replica] = count
        else:
            self._held.pop(replica, None)
        if change > 0:
            self._error = ""
        self._changed.set()
        log.info("tunnel_up" if change > 0 else "tunnel_down", replica=replica, tunnels=sum(self._held.values()))
        self._on_change(self.state)

    def _failed(self, error: BaseException) -> None:
        message = str(error) or type(error).__name__
        if message != self._error:
            log.warning("tunnel_dial_failed", error=message)
        self._error = message
        self._on_change(self.state)


def _first(group: BaseExceptionGroup[Refused]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
