"""Raw clients of the xDS server: delta ADS streams without Envoy, with or without a certificate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
from envoy.service.discovery.v3 import discovery_pb2

from sandlane.routing.envoy.identity import SERVER, uri
from sandlane.routing.envoy.server import SERVICE
from sandlane.runtime.certificates import Certificates, make_client

METHOD = f"/{SERVICE}/DeltaAggregatedResources"
DEADLINE = 20.0


class RawClient:
    """One stream. `ask`, then `next` response, then `ack` or `refuse` it."""

    def __init__(self, call: Any) -> None:
        self.call = call

    async def ask(
        self,
        type_url: str,
        names: Iterable[str] = (),
        *,
        node: tuple[str, str] | None = None,
        have: dict[str, str] | None = None,
    ) -> None:
        """Subscribe; the first request of a stream names the node (id and cluster)."""
        request = discovery_pb2.DeltaDiscoveryRequest(
            type_url=type_url, resource_names_subscribe=list(names), initial_resource_versions=have or {}
        )
        if node is not None:
            request.node.id, request.node.cluster = node
        await self.call.write(request)

    async def next(self) -> Any:
        """The next response. Raises `grpc.aio.AioRpcError` when the server has ended the stream."""
        async with asyncio.timeout(DEADLINE):
            answer = await self.call.read()
        if answer is grpc.aio.EOF:
            raise grpc.aio.AioRpcError(await self.call.code(), None, None, await self.call.details())  # type: ignore[arg-type]
        return answer

    async def ack(self, response: Any) -> None:
        """Confirm."""
        await self.call.write(
            discovery_pb2.DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)
        )

    async def refuse(self, response: Any, why: str) -> None:
        """Refuse."""
        request = discovery_pb2.DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)
        request.error_detail.message = why
        await self.call.write(request)


@asynccontextmanager
async def channel(port: int, held: Certificates | None = None, identity: str = "") -> AsyncIterator[Any]:
    """A connection: plain, or over TLS with the certificate of an identity (none: without a certificate)."""
    address, options = f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)]
    if held is None:
        made = grpc.aio.insecure_channel(address, options=options)
    else:
        pair = make_client(held.ca, uri(identity), held.serving.parsed.not_valid_before_utc) if identity else None
        creds = grpc.ssl_channel_credentials(held.bundle, pair and pair.key, pair and pair.certificate)
        options.append(("grpc.ssl_target_name_override", SERVER))  # type: ignore[arg-type]
        made = grpc.aio.secure_channel(address, creds, options=options)
    async with made:
        yield made


def stream(over: Any) -> RawClient:
    """A stream on a connection."""
    method = over.stream_stream(
        METHOD,
        request_serializer=discovery_pb2.DeltaDiscoveryRequest.SerializeToString,
        response_deserializer=discovery_pb2.DeltaDiscoveryResponse.FromString,
    )
    return RawClient(method())
