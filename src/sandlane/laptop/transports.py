"""How the dialler reaches the tunnel servers: their published address, or the Kubernetes API's port-forward.

`auto` tries the address first (where one is published) and falls back to port-forward; what worked last is tried first,
so that a laptop that changes its network finds its way again by itself.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from enum import StrEnum

from sandlane.api.labels import TUNNEL
from sandlane.kube.client import Client
from sandlane.kube.errors import KubeError
from sandlane.kube.resource import PODS, Key
from sandlane.laptop.dialler import HANDSHAKE_TIMEOUT, Connect, check_name, direct
from sandlane.laptop.directory import Directory
from sandlane.laptop.errors import ConnectError
from sandlane.laptop.forward import Forwarder
from sandlane.laptop.splice import SpliceEnd
from sandlane.tunnel.bootstrap import SERVER_NAME, ServerOptions

Context = Callable[[], ssl.SSLContext]
DIRECT_SECONDS = 2.0
"""How long `auto` waits for the published address while it has not worked yet."""


class Transport(StrEnum):
    """How tunnel servers are reached."""

    AUTO = "auto"
    DIRECT = "direct"
    PORT_FORWARD = "port-forward"


class Ways:
    """The ways to the tunnel servers, shared by all diallers of this laptop. `used` says which one worked last."""

    def __init__(self, client: Client, directory: Directory, wanted: Transport, tasks: asyncio.TaskGroup) -> None:
        if wanted is Transport.DIRECT and not directory.host:
            raise ConnectError(
                "the cluster publishes no address of its tunnel servers: use --transport port-forward, or publish one"
            )
        published = [Transport.DIRECT] if directory.host and wanted is not Transport.PORT_FORWARD else []
        self._order = published + ([] if wanted is Transport.DIRECT else [Transport.PORT_FORWARD])
        self._client = client
        self._directory = directory
        self._forwarder = Forwarder(client, tasks)
        self._turn = 0
        self.used = ""

    def connect(self, context: Context) -> Connect:
        """A dial: by the way that worked last, then by the other one. It raises `ConnectionError` when none works."""
        directory = self._directory
        dial: dict[Transport, Connect] = {
            Transport.DIRECT: direct(directory.host, directory.port, context, SERVER_NAME),
            Transport.PORT_FORWARD: lambda: self._through_api(context),
        }

        async def connect() -> SpliceEnd:
            failures = []
            for way in list(self._order):
                try:
                    async with asyncio.timeout(HANDSHAKE_TIMEOUT if way == self.used else DIRECT_SECONDS * 2):
                        end = await dial[way]()
                except (OSError, TimeoutError) as error:
                    failures.append(f"{way}: {error or 'no answer in time'}")
                    continue
                self.used = way
                self._order.sort(key=lambda each: each != way)
                return end
            raise ConnectionError("; ".join(failures))

        return connect

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
        transport, end = await asyncio.get_running_loop().create_connection(
            SpliceEnd, sock=sock, ssl=context(), server_hostname=SERVER_NAME, ssl_handshake_timeout=HANDSHAKE_TIMEOUT
        )
        check_name(transport, SERVER_NAME)
        return end


def is_ready(pod: dict[str, object]) -> bool:
    """Whether a Pod takes requests."""
    status = pod.get("status") or {}
    assert isinstance(status, dict)
    conditions = status.get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
