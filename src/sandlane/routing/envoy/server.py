"""The delta ADS server: gives every connected Envoy the resources of its group, and knows who serves what.

A client's group is its node's cluster name. `XdsServer.publish` replaces a group's resources, `change` some of them; every
stream of the group then gets the difference. Each stream is one gRPC call with two tasks of its own, which end with the call.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

import grpc.aio
import structlog
from envoy.service.discovery.v3 import discovery_pb2

from sandlane.kube.clock import SystemClock
from sandlane.routing.envoy.delta import (
    KNOWN,
    LISTENER,
    DeltaRequest,
    DeltaResponse,
    DeltaStream,
    Encoded,
    Refusal,
    Snapshot,
)
from sandlane.routing.envoy.identity import identity_in, may_join
from sandlane.routing.envoy.metrics import XdsMetrics
from sandlane.runtime.certificates import Certificates, SecretCertificates
from sandlane.runtime.metrics import Metrics

log = structlog.get_logger(__name__)

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
LONGEST_NAME = 512
_OPTIONS = [
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),  # else two servers would silently share a port
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
]


@dataclass(eq=False)
class Client:
    """A connected Envoy."""

    node: str
    group: str
    stream: DeltaStream = field(default_factory=DeltaStream)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    keep_until: float = 0.0
    """No cluster is taken away before: connections of a listener that has gone are being drained."""
    behind_since: float | None = None
    """When the first change came that it has not confirmed."""


class XdsServer:
    """Publishes resources to groups of clients. `listen` serves them.

    A client of the group `a/b/c` gets what is published for `a/b/c`, and the types that only `a/b` has: what its neighbours
    get, too. It gets nothing before its own group is published.
    """

    def __init__(self, metrics: XdsMetrics | None = None, *, drain: float = 0.0) -> None:
        """`drain`: seconds that Envoys let connections of a listener go on that is gone; its clusters stay as long."""
        self._drain = drain
        self._metrics = metrics or XdsMetrics(Metrics(), SystemClock())
        self._connected = 0
        self._metrics.count_streams(lambda: self._connected)
        self._snapshots: dict[str, Snapshot] = {}
        self._clients: dict[str, list[Client]] = {}  # by own group, and by the one above it
        self._listeners: list[Callable[[str], None]] = []

    def publish(self, group: str, resources: Mapping[str, Mapping[str, bytes]], *, since: float | None = None) -> None:
        """Replace a group's resources: type URL -> name -> encoded message. `since`: when they changed, if not now."""
        self._set(group, Snapshot(resources, self._snapshots.get(group)), since)

    def change(
        self, group: str, changes: Mapping[str, Mapping[str, bytes | None]], *, since: float | None = None
    ) -> None:
        """Set some of a group's resources, take out those that are None; the others stay. `since` as in `publish`."""
        before = self._snapshots.get(group) or Snapshot({})
        self._set(group, before.with_changes(changes), since)

    def withdraw(self, group: str) -> None:
        """Forget a group; its clients keep what they have."""
        self._snapshots.pop(group, None)

    def subscribe(self, listener: Callable[[str], None]) -> None:
        """Call `listener` with a group whenever one of its clients came, went, confirmed or refused something."""
        self._listeners.append(listener)

    def clients(self, group: str) -> list[Client]:
        """The connected clients of a group."""
        return [client for client in self._clients.get(group, ()) if client.group == group]

    def behind(self, group: str) -> list[str]:
        """Node ids of the clients of a group that do not (yet) hold exactly what is published."""
        return [client.node for client in self.clients(group) if not self._serves(client)]

    def unconfirmed(self, group: str) -> bool:
        """Whether a client of a group has something (still) to confirm; what only has to go does not count."""
        return any(not client.stream.has_all(*self._layers(client)) for client in self.clients(group))

    def only_refuses(self, group: str) -> bool:
        """Whether the clients of a group have confirmed everything but what they refuse."""
        clients = self.clients(group)
        return bool(clients) and all(
            client.stream.refused and client.stream.settled(*self._layers(client)) for client in clients
        )

    def refusals(self, group: str) -> list[Refusal]:
        """What clients of a group do not take, as it is published now."""
        return [refusal for client in self.clients(group) for refusal in client.stream.refused]

    def _set(self, group: str, snapshot: Snapshot, since: float | None) -> None:
        known = group in self._snapshots
        self._snapshots[group] = snapshot
        if known and not snapshot.changed:
            return
        for client in self._clients.get(group, ()):
            if client.behind_since is None:
                client.behind_since = self._metrics.clock.monotonic() if since is None else since
            client.wake.set()

    def _layers(self, client: Client) -> tuple[Snapshot, ...]:
        """What a client gets; nothing while its own group is not published."""
        own = self._snapshots.get(client.group)
        above = self._snapshots.get(_above(client.group))
        return () if own is None else (own,) if above is None else (own, above)

    def _serves(self, client: Client) -> bool:
        layers = self._layers(client)
        return bool(layers) and client.stream.serves(*layers)

    @asynccontextmanager
    async def listen(self, address: str, credentials: grpc.ServerCredentials | None = None) -> AsyncIterator[int]:
        """Serve at `host:port`; gives the port. Raises `OSError` when the address cannot be had.

        With `credentials` over mTLS, and each client gets what its certificate allows; without, whoever can connect
        gets what they ask for.
        """
        server = grpc.aio.server(options=_OPTIONS)
        handler = grpc.stream_stream_rpc_method_handler(
            partial(self._serve, credentials is not None),
            request_deserializer=discovery_pb2.DeltaDiscoveryRequest.FromString,
            response_serializer=bytes,
        )
        handlers = grpc.method_handlers_generic_handler(SERVICE, {"DeltaAggregatedResources": handler})
        server.add_generic_rpc_handlers((handlers,))
        try:
            if credentials is not None:
                port = server.add_secure_port(address, credentials)
            else:
                port = server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"cannot serve xDS at {address}: {error}") from error
        await server.start()
        try:
            yield port
        finally:
            await server.stop(0.2)

    async def _serve(self, mutual: bool, requests: Any, context: Any) -> None:
        """One stream: a task reads, this one writes; either end ends both."""
        first = await context.read()
        if first is grpc.aio.EOF:
            return
        client = Client(first.node.id, first.node.cluster)
        if refusal := _refusal(client, context.auth_context() if mutual else None):
            log.warning("xds_client_refused", node=client.node, group=client.group, peer=context.peer(), why=refusal[1])
            await context.abort(*refusal)
        places = (client.group, _above(client.group))
        for place in places:
            self._clients.setdefault(place, []).append(client)
        self._connected += 1
        log.info("xds_connected", node=client.node, group=client.group)
        try:
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(self._read(client, first, context))
                writing = tasks.create_task(self._write(client, context))
                reading.add_done_callback(lambda _: writing.cancel())
        finally:
            for place in places:
                self._clients[place].remove(client)
                if not self._clients[place]:
                    del self._clients[place]
            self._connected -= 1
            self._tell(client.group)
            log.info("xds_disconnected", node=client.node, group=client.group)

    async def _read(self, client: Client, first: Any, context: Any) -> None:
        message = first
        while message is not grpc.aio.EOF:
            if message.type_url not in KNOWN:
                why = f"there are no resources of type {message.type_url[:LONGEST_NAME]!r}"
                log.warning("xds_client_refused", node=client.node, group=client.group, why=why)
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, why)
            client.stream.receive(_request(message))
            for refusal in client.stream.refusals:
                self._metrics.refused(refusal.type_url)
                _report(client, refusal)
            client.stream.refusals.clear()
            client.wake.set()
            self._note_confirmed(client)
            self._tell(client.group)
            message = await context.read()

    async def _write(self, client: Client, context: Any) -> None:
        """A client that reads slowly holds up nobody: what it has not taken is worked out when it has."""
        while True:
            await client.wake.wait()
            client.wake.clear()
            layers = self._layers(client)
            if not layers:
                continue
            now = self._metrics.clock.monotonic()
            for response in client.stream.respond(*layers, keep=now < client.keep_until):
                self._metrics.pushed(response.type_url)
                if self._drain and response.type_url == LISTENER and response.removed:
                    client.keep_until = now + self._drain
                    asyncio.get_running_loop().call_later(self._drain, client.wake.set)
                await context.write(_encode(response))

    def _note_confirmed(self, client: Client) -> None:
        if client.behind_since is not None and self._serves(client):
            self._metrics.confirmed(client.behind_since)
            client.behind_since = None

    def _tell(self, group: str) -> None:
        for listener in self._listeners:
            listener(group)


def _above(group: str) -> str:
    return group.rpartition("/")[0]


def credentials(source: SecretCertificates) -> grpc.ServerCredentials:
    """mTLS with a certificate that may be renewed while the server runs; `source` must be ready."""
    used: list[Certificates] = []

    def configuration() -> Any:  # called by gRPC's threads at each handshake; None: no change
        held = source.held
        if held is None or (used and used[0] is held):
            return None
        used[:] = [held]
        pair = (held.serving.key, held.serving.certificate)
        return grpc.ssl_server_certificate_configuration([pair], held.bundle)

    return grpc.dynamic_ssl_server_credentials(configuration(), configuration, require_client_authentication=True)


def _refusal(client: Client, shown: Mapping[str, Sequence[bytes]] | None) -> tuple[grpc.StatusCode, str] | None:
    """Why a client is not served: status and words. `shown`: what is known of its certificate, None without mTLS."""
    if not client.node or not client.group:
        return grpc.StatusCode.INVALID_ARGUMENT, "the first request must name its node by id and cluster"
    if max(len(client.node), len(client.group)) > LONGEST_NAME:
        return grpc.StatusCode.INVALID_ARGUMENT, f"the node's id or cluster is longer than {LONGEST_NAME} characters"
    if shown is None:
        return None
    identity = identity_in(shown.get("peer_uri", ()))
    if not may_join(identity, client.group):
        holder = f"one of {identity}" if identity else "none of ours"
        return grpc.StatusCode.PERMISSION_DENIED, f"the certificate is {holder}: it may not join {client.group}"
    return None


def _report(client: Client, refusal: Refusal) -> None:
    log.error(
        "xds_refused", node=client.node, type=refusal.type_url, resource=refusal.name, error=refusal.error,
    )  # fmt: skip


def _request(message: Any) -> DeltaRequest:
    return DeltaRequest(
        message.type_url,
        tuple(message.resource_names_subscribe),
        tuple(message.resource_names_unsubscribe),
        dict(message.initial_resource_versions),
        message.response_nonce,
        message.error_detail.message if message.HasField("error_detail") else None,
    )


def _encode(response: DeltaResponse) -> bytes:
    """Most streams are told the same at the same time: only the nonce is each one's own, and fields may follow each other."""
    own: bytes = discovery_pb2.DeltaDiscoveryResponse(nonce=response.nonce).SerializeToString()
    return _encode_shared(response.type_url, response.resources, response.removed) + own


@lru_cache(maxsize=8)
def _encode_shared(type_url: str, resources: tuple[tuple[str, Encoded], ...], removed: tuple[str, ...]) -> bytes:
    message = discovery_pb2.DeltaDiscoveryResponse(type_url=type_url, removed_resources=removed)
    for name, resource in resources:
        _add(message, type_url, name, resource)
    encoded: bytes = message.SerializeToString()
    return encoded


def _add(message: Any, type_url: str, name: str, resource: Encoded) -> None:
    added = message.resources.add()
    added.name = name
    added.version = resource.version
    added.resource.type_url = type_url
    added.resource.value = resource.data
