"""Which laptop is connected to which tunnel server, as the data plane itself says: by a request through the tunnel.

Every manager asks each tunnel server for each laptop once a second; the laptop's Envoy answers. Nothing that anybody wrote counts.
`TunnelWatch.run` owns all tasks.
"""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from collections.abc import Callable, Iterable

import aiohttp
import structlog

from sandlane.kube.clock import Clock
from sandlane.routing.tunnels import ID_HEADER, PORT_HEADER
from sandlane.tunnel.authority import Authority
from sandlane.tunnel.bootstrap import PING

log = structlog.get_logger(__name__)

PERIOD = 1.0
TIMEOUT = 3.0
LOST_AFTER = 2
"""Failed questions in a row after which a laptop counts as gone from a server."""


class TunnelWatch:
    """`held` says which servers' addresses hold a tunnel of each identity."""

    def __init__(
        self, clock: Clock, servers: Callable[[], list[str]], identities: Callable[[], Iterable[str]], port: int
    ) -> None:
        self.held: dict[str, frozenset[str]] = {}
        self._clock = clock
        self._servers = servers
        self._identities = identities
        self._port = port
        self._failures: dict[tuple[str, str], int] = {}
        self._listeners: list[Callable[[str], None]] = []

    def subscribe(self, listener: Callable[[str], None]) -> None:
        """Call `listener` with an identity whenever what it holds has changed."""
        self._listeners.append(listener)

    async def run(self, authority: Authority) -> None:
        """Ask until cancelled."""
        context = _client_context(authority, self._clock)
        connector = aiohttp.TCPConnector(ssl=context, limit=0)
        timeout = aiohttp.ClientTimeout(total=TIMEOUT)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            while True:
                await self._ask_all(session)
                await self._clock.sleep(PERIOD)

    async def _ask_all(self, session: aiohttp.ClientSession) -> None:
        servers, identities = self._servers(), list(self._identities())
        pairs = [(identity, server) for identity in identities for server in servers]
        answers = await asyncio.gather(*(self._ask(session, *pair) for pair in pairs))
        held: dict[str, set[str]] = {identity: set() for identity in identities}
        for (identity, server), answered in zip(pairs, answers, strict=True):
            failures = 0 if answered else self._failures.get((identity, server), LOST_AFTER) + 1
            self._failures[identity, server] = failures
            if failures < LOST_AFTER:
                held[identity].add(server)
        self._failures = {pair: self._failures[pair] for pair in pairs}
        before = self.held
        self.held = {identity: frozenset(at) for identity, at in held.items() if at}
        for identity in before.keys() | self.held.keys():
            if before.get(identity) != self.held.get(identity):
                log.info("tunnels_changed", identity=identity, servers=len(self.held.get(identity, ())))
                for listener in self._listeners:
                    listener(identity)

    async def _ask(self, session: aiohttp.ClientSession, identity: str, server: str) -> bool:
        headers = {ID_HEADER: identity, PORT_HEADER: PING}
        try:
            async with session.get(f"https://{server}:{self._port}/", headers=headers) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False


def _client_context(authority: Authority, clock: Clock) -> ssl.SSLContext:
    """TLS as a router; the servers are known by their authority."""
    context = ssl.create_default_context(cadata=authority.ca.certificate.decode())
    context.check_hostname = False
    pair = authority.router_pair(clock.now())
    with tempfile.NamedTemporaryFile() as file:
        file.write(pair.certificate + pair.key)
        file.flush()
        context.load_cert_chain(file.name)
    return context
