"""The ways out of a laptop, running: the outbound Envoy, the forwarder behind it, and the SOCKS server in front of it.

`Reaching.run` owns everything; it ends when it is cancelled. A connection to a Service goes by port-forward to one of the
Service's ready endpoints, so a Service that goes through a router is reached through its router.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import structlog

from sandlane.kube.client import Client, Random
from sandlane.kube.clock import Clock
from sandlane.kube.errors import Forbidden, KubeError
from sandlane.kube.resource import ENDPOINT_SLICES, SERVICES, Key, Object
from sandlane.laptop.errors import ConnectError
from sandlane.laptop.forward import Forwarder
from sandlane.laptop.outbound import PROXY, door_name, door_socket, forwarder_socket, outbound_bootstrap
from sandlane.laptop.process import Envoy
from sandlane.laptop.services import LOOPBACK, Door, doors, find_door
from sandlane.laptop.socks import Streams, serve

log = structlog.get_logger(__name__)

REMEMBERED = 2.0
"""Seconds for which a Service's endpoints are not asked for again."""
MOST_ELSEWHERE = 200
"""Service ports of other namespaces beyond which these are left out: each costs a listener."""
SERVICE_LABEL = "kubernetes.io/service-name"


async def list_services(client: Client, namespace: str, others: Sequence[str] = ()) -> tuple[list[Object], str]:
    """The Services of `namespace` and of `others`; without others, all that the user may list, if they are not too many.

    Also what is left out, in words. Raises `KubeError`.
    """
    own = (await client.list(SERVICES, namespace)).items
    if others:
        for each in others:
            own += (await client.list(SERVICES, each)).items if each != namespace else []
        return own, ""
    try:
        everything = (await client.list(SERVICES)).items
    except Forbidden:
        note = f"you may not list Services of all namespaces: only those of {namespace} are reached by name"
        return own, f"{note}; --reach adds others"
    elsewhere = [each for each in everything if each["metadata"]["namespace"] != namespace]
    if len(doors(elsewhere)) > MOST_ELSEWHERE:
        note = f"there are more than {MOST_ELSEWHERE} Service ports in other namespaces: only {namespace}'s are reached"
        return own, f"{note}; --reach adds namespaces"
    return own + elsewhere, ""


class Reaching:
    """The ways out. Once `started` is set, `local` says which port of this laptop stands for which door."""

    def __init__(
        self,
        client: Client,
        clock: Clock,
        rng: Random,
        namespace: str,
        services: Sequence[Object],
        folder: Path,
        key: str,
    ) -> None:
        self.doors = doors(services)
        self.local: dict[Door, int] = {}
        self.proxy_port = 0
        self.socks_port = 0
        self.started = asyncio.Event()
        self.on_failure: Callable[[str], None] = lambda text: None
        self._client = client
        self._clock = clock
        self._rng = rng
        self._namespace = namespace
        self._folder = folder
        self._envoy = Envoy(outbound_bootstrap(self.doors, namespace, folder, key), clock)
        self._endpoints: dict[Door, tuple[float, list[tuple[Key, int]]]] = {}

    async def run(self) -> None:
        """Serve until cancelled. Raises `ConnectError` when the local Envoy does not run."""
        servers = []

        async def socks_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await serve(reader, writer, self._open)

        try:
            async with asyncio.TaskGroup() as tasks:
                forwarder = Forwarder(self._client, tasks)
                for number, door in enumerate(self.doors):
                    path = forwarder_socket(self._folder, number)
                    servers.append(await asyncio.start_unix_server(self._accept(tasks, forwarder, door), path))
                socks = await asyncio.start_server(_in(tasks, socks_client), LOOPBACK, 0)
                servers.append(socks)
                self.socks_port = socks.sockets[0].getsockname()[1]
                tasks.create_task(self._envoy.run())
                await self._envoy.ready()
                await self._read_ports()
                self.started.set()
        finally:
            for server in servers:
                server.close()

    def proxies(self) -> dict[str, str]:
        """The variables that make programs use the proxies."""
        http = f"http://{LOOPBACK}:{self.proxy_port}"
        direct = "localhost,127.0.0.1,::1"
        found = {"HTTP_PROXY": http, "HTTPS_PROXY": http, "NO_PROXY": direct}
        found |= {name.lower(): value for name, value in found.items()}
        return found | {"NODE_USE_ENV_PROXY": "1", "SANDLANE_SOCKS_PROXY": f"socks5h://{LOOPBACK}:{self.socks_port}"}

    async def _read_ports(self) -> None:
        """Which ports Envoy has got from the kernel."""
        connector = aiohttp.UnixConnector(str(self._folder / "outbound.sock"))
        url = "http://envoy/listeners?format=json"
        async with aiohttp.ClientSession(connector=connector) as session, session.get(url) as response:
            listed = await response.json(content_type=None)
        ports = {}
        for status in listed.get("listener_statuses") or ():
            addresses = [status["local_address"], *(status.get("additional_local_addresses") or ())]
            found = [each["socket_address"]["port_value"] for each in addresses if "socket_address" in each]
            ports[status["name"]] = found[0] if found else 0
        self.proxy_port = ports.get(PROXY, 0)
        self.local = {door: ports.get(door_name(number), 0) for number, door in enumerate(self.doors)}
        if not self.proxy_port or not all(self.local.values()):
            raise ConnectError("the local Envoy has not bound its ports")

    def _accept(self, tasks: asyncio.TaskGroup, forwarder: Forwarder, door: Door) -> Callable[..., None]:
        async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                pod, port = await self._endpoint(door)
                await forwarder.join(reader, writer, pod, port)
            except ConnectionError as error:
                self._endpoints.pop(door, None)
                self.on_failure(f"{door}: {error}")
            finally:
                writer.transport.abort()

        return _in(tasks, forward)

    async def _endpoint(self, door: Door) -> tuple[Key, int]:
        """A Pod and its port, at random. Raises `ConnectionError`."""
        asked, found = self._endpoints.get(door, (float("-inf"), []))
        if self._clock.monotonic() - asked > REMEMBERED or not found:
            try:
                selector = f"{SERVICE_LABEL}={door.service}"
                slices = (await self._client.list(ENDPOINT_SLICES, door.namespace, label_selector=selector)).items
            except KubeError as error:
                raise ConnectionError(f"finding its endpoints: {error}") from error
            found = endpoints(slices, door.target)
            if not found:
                strangers = any(not each.get("targetRef") for piece in slices for each in piece.get("endpoints") or ())
                why = "its endpoints are not Pods, and port-forward reaches nothing else"
                raise ConnectionError(why if strangers else "no Pod of it is ready")
            self._endpoints[door] = (self._clock.monotonic(), found)
        return found[int(self._rng.random() * len(found)) % len(found)]

    async def _open(self, host: str, port: int) -> Streams:
        """For SOCKS: a Service by its name, anything else as it is."""
        door = find_door(self.doors, self._namespace, host, port)
        if door is None:
            return await asyncio.open_connection(host, port)
        return await asyncio.open_unix_connection(door_socket(self._folder, self.doors.index(door)))


def endpoints(slices: Sequence[Object], target: str) -> list[tuple[Key, int]]:
    """The ready Pods behind a Service's port of this name, with their ports."""
    found = []
    for piece in slices:
        ports = [port["port"] for port in piece.get("ports") or () if (port.get("name") or "") == target]
        for endpoint in piece.get("endpoints") or ():
            reference = endpoint.get("targetRef") or {}
            ready = (endpoint.get("conditions") or {}).get("ready") is not False
            if ready and reference.get("kind") == "Pod":
                namespace = reference.get("namespace") or piece["metadata"]["namespace"]
                found += [(Key(namespace, reference["name"]), port) for port in ports]
    return found


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


def _in(tasks: asyncio.TaskGroup, handler: Handler) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
    """A server's callback that serves each connection as a task of the group."""

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.create_task(handler(reader, writer))

    return accept
