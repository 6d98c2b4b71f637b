"""How the dialler reaches the tunnel servers: their published address, or the Kubernetes API's port-forward.

`auto` tries the address first, where one is published, and falls back to port-forward: at each dial, so that a laptop that changes
its network finds the better way by itself. An address that did not answer last time is given only a moment.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from enum import StrEnum

from sandlane.api.labels import TUNNEL
from sandlane.kube.client import Client
from sandlane.kube.clock import Clock
from sandlane.kube.errors import KubeError
from sandlane.kube.resource import PODS, Key
from sandlane.laptop.dialler import HANDSHAKE_TIMEOUT, Connect, direct, over
from sandlane.laptop.directory import Directory, read_directory
from sandlane.laptop.errors import ConnectError
from sandlane.laptop.forward import Forwarder
from sandlane.laptop.splice import SpliceEnd
from sandlane.tunnel.bootstrap import SERVER_NAME, ServerOptions

Context = Callable[[], ssl.SSLContext]
DIRECT_SECONDS = 1.5
"""How long `auto` waits for the published address."""
MOMENT = 0.4
"""The same, when it did not answer last time."""
LOOK_AGAIN = 10.0
"""Seconds of no success after which the servers' address is asked for again."""


class Transport(StrEnum):
    """How tunnel servers are reached."""

    AUTO = "auto"
    DIRECT = "direct"
    PORT_FORWARD = "port-forward"


class Ways:
    """The ways to the tunnel servers, shared by all diallers of this laptop. `used` says which one worked last."""

    def __init__(
        self, client: Client, clock: Clock, directory: Directory, wanted: Transport, tasks: asyncio.TaskGroup
    ) -> None:
        if wanted is Transport.DIRECT and not directory.host:
            raise ConnectError(
                "the cluster publishes no address of its tunnel servers: use --transport port-forward, or publish one"
            )
        self._wanted = wanted
        self._client = client
        self._clock = clock
        self._directory = directory
        self._asked = clock.monotonic()
        self._forwarder = Forwarder(client, tasks)
        self._turn = 0
        self._unreachable = False
        self.used = ""

    def order(self) -> list[Transport]:
        """The ways to try, in order."""
        if self._wanted is not Transport.AUTO:
            return [self._wanted]
        return [Transport.DIRECT, Transport.PORT_FORWARD] if self._directory.host else [Transport.PORT_FORWARD]

    def connect(self, context: Context) -> Connect:
        """A dial, by one way after the other. It raises `ConnectionError` when none works."""

        async def connect() -> SpliceEnd:
            failures = []
            ways = self.order()
            for way in ways:
                seconds = HANDSHAKE_TIMEOUT if way == ways[-1] else MOMENT if self._unreachable else DIRECT_SECONDS
                try:
                    async with asyncio.timeout(seconds):
                        end = await self._dial(way, context)
                except (OSError, TimeoutError) as error:
                    self._unreachable |= way is Transport.DIRECT
                    failures.append(f"{way}: {str(error) or 'no answer in time'}")
                    continue
                if way is Transport.DIRECT:
                    self._unreachable = False
                self.used = way
                return end
            await self._look_again()
            raise ConnectionError("; ".join(failures))

        return connect

    async def _dial(self, way: Transport, context: Context) -> SpliceEnd:
        if way is Transport.PORT_FORWARD:
            return await self._through_api(context)
        return await direct(self._directory.host, self._directory.port, context, SERVER_NAME)()

    async def _look_again(self) -> None:
        """The servers may have another address by now."""
        if self._clock.monotonic() - self._asked < LOOK_AGAIN:
            return
        self._asked = self._clock.monotonic()
        try:
            found = await read_directory(self._client)
        except KubeError:
            return  # the next dial says what is wrong
        if found is not None and (found.host or self._wanted is not Transport.DIRECT):
            self._directory = found

    async def _through_api(self, context: Context) -> SpliceEnd:
        """Servers in turn, so that all of them are reached."""
        namespace = self._directory.namespace
        try:
            pods = (await self._client.list(PODS, namespace, label_selector=f"{TUNNEL}=true")).items
        except KubeError as error:
            raise ConnectionError(f"finding the tunnel servers' Pods: {error}") from error
        ready = sorted(pod["metadata"]["name"] for pod in pods if is_ready(pod))
        if not ready:
            raise ConnectionError(f"no tunnel server's Pod is ready in {namespace}")
        self._turn += 1
        name = ready[self._turn % len(ready)]
        sock = await self._forwarder.open(Key(namespace, name), ServerOptions().front_port)
        return await over(sock, context(), SERVER_NAME, SERVER_NAME)


def is_ready(pod: dict[str, object]) -> bool:
    """Whether a Pod takes requests."""
    status = pod.get("status") or {}
    assert isinstance(status, dict)
    conditions = status.get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
