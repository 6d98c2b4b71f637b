"""Which client holds tunnels to which tunnel server, and from where: from the servers' own state.

Every manager reads each server's gauges of tunnels four times a second, whatever the number of laptops. Nothing that anybody wrote
counts. `TunnelWatch.run` owns all tasks.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import tempfile
from collections.abc import Callable, Mapping

import aiohttp
import msgspec
import structlog

from sandlane.kube.clock import Clock
from sandlane.routing.tunnels import ID_HEADER
from sandlane.tunnel.authority import Authority
from sandlane.tunnel.bootstrap import STAT_PREFIX, STATS
from sandlane.tunnel.identity import Claim

log = structlog.get_logger(__name__)

PERIOD = 0.25
TIMEOUT = 2.0
DAY = 86_400.0
LOST_AFTER = 3
"""Readings in a row without a tunnel after which a server counts as not holding one: so a laptop whose tunnel broke may dial again
before anything else is done about it."""
SILENT_AFTER = 5
"""The same for a server that does not answer: routers go on to the next one by themselves, and a busy machine is no lost laptop."""
_GAUGE = re.compile(rf"^{STAT_PREFIX}\.worker_\d+\.cluster\.([0-9a-f]+)\.([0-9a-f-]+)@(.*): (\d+)$", re.MULTILINE)


class Tunnels(msgspec.Struct, frozen=True):
    """One client's tunnels to one server, and the address that they come from."""

    count: int
    remote_address: str


Reading = dict[Claim, Tunnels]


def read_gauges(text: str) -> Reading:
    """The tunnels of each client, from a server's `/stats`."""
    found: Reading = {}
    for session, uid, address, number in _GAUGE.findall(text):
        count = int(number)
        if count:
            claim = Claim(session, uid)
            before = found[claim].count if claim in found else 0
            found[claim] = Tunnels(
                before + count, address.replace("_", ":")
            )  # Envoy writes no colons in names of gauges
    return found


class TunnelWatch:
    """`held` says which servers' addresses hold tunnels of each LocalWorkload's holder."""

    def __init__(
        self, clock: Clock, servers: Callable[[], list[str]], holders: Callable[[], Mapping[str, Claim]], port: int
    ) -> None:
        self.held: dict[str, frozenset[str]] = {}
        self.tunnels: dict[str, Tunnels] = {}
        """Uid -> all its tunnels."""
        self._clock = clock
        self._servers = servers
        self._holders = holders
        self._port = port
        self._missed: dict[tuple[Claim, str], int] = {}
        self._listeners: list[Callable[[str], None]] = []

    def subscribe(self, listener: Callable[[str], None]) -> None:
        """Call `listener` with a uid whenever what it holds has changed."""
        self._listeners.append(listener)

    def seed(self, held: Mapping[str, frozenset[str]], tunnels: Mapping[str, Tunnels]) -> None:
        """What held before this process started, until the servers have been asked."""
        self.held, self.tunnels = dict(held), dict(tunnels)

    async def run(self, authority: Authority) -> None:
        """Ask until cancelled."""
        while True:
            await self._ask_for_a_day(authority)

    async def _ask_for_a_day(self, authority: Authority) -> None:
        """With one certificate, which is good for longer."""
        connector = aiohttp.TCPConnector(ssl=_client_context(authority, self._clock), limit=0)
        timeout = aiohttp.ClientTimeout(total=TIMEOUT)
        end = self._clock.monotonic() + DAY
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            while self._clock.monotonic() < end:
                servers = self._servers()
                answers = await asyncio.gather(*(self._ask(session, server) for server in servers))
                self.take(dict(zip(servers, answers, strict=True)))
                await self._clock.sleep(PERIOD)

    def take(self, readings: Mapping[str, Reading | None]) -> None:
        """Take in one reading of every server (None: it did not answer), and tell what has changed."""
        held: dict[str, frozenset[str]] = {}
        missed: dict[tuple[Claim, str], int] = {}
        tunnels: dict[str, Tunnels] = {}
        for uid, claim in self._holders().items():
            at = set()
            for server, reading in readings.items():
                found = reading.get(claim) if reading is not None else None
                if found is not None:
                    count = found.count + (tunnels[uid].count if uid in tunnels else 0)
                    tunnels[uid] = Tunnels(count, found.remote_address)
                    at.add(server)
                    continue
                missed[claim, server] = count = self._missed.get((claim, server), 0) + 1
                if count < (SILENT_AFTER if reading is None else LOST_AFTER) and server in self.held.get(uid, ()):
                    at.add(server)
            if at:
                held[uid] = frozenset(at)
                tunnels.setdefault(uid, self.tunnels.get(uid, Tunnels(0, "")))
        self._missed = missed
        before, self.held = self.held, held
        told, self.tunnels = self.tunnels, tunnels
        for uid in before.keys() | held.keys():
            if before.get(uid) != held.get(uid) or told.get(uid) != tunnels.get(uid):
                log.info("tunnels_changed", uid=uid, servers=len(held.get(uid, ())))
                for listener in self._listeners:
                    listener(uid)

    async def _ask(self, session: aiohttp.ClientSession, server: str) -> Reading | None:
        url = f"https://{server}:{self._port}/stats"
        params = {"filter": rf"^{STAT_PREFIX}\.worker_\d+\.cluster\.", "usedonly": ""}
        try:
            async with session.get(url, params=params, headers={ID_HEADER: STATS}) as response:
                return read_gauges(await response.text()) if response.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None


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
