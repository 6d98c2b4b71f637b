"""What all translations to Envoy's messages share: plain dictionaries in the form of Envoy's JSON, encoded as protobuf. Pure."""

from __future__ import annotations

from typing import Any

from envoy.extensions.access_loggers.filters.cel.v3 import cel_pb2  # noqa: F401
from envoy.extensions.access_loggers.stream.v3 import stream_pb2  # noqa: F401 - known to ParseDict
from envoy.extensions.clusters.aggregate.v3 import cluster_pb2 as aggregate_pb2  # noqa: F401
from envoy.extensions.filters.http.header_mutation.v3 import header_mutation_pb2  # noqa: F401
from envoy.extensions.filters.http.lua.v3 import lua_pb2  # noqa: F401
from envoy.extensions.filters.http.router.v3 import router_pb2  # noqa: F401
from envoy.extensions.filters.listener.http_inspector.v3 import http_inspector_pb2  # noqa: F401
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2  # noqa: F401
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2  # noqa: F401
from envoy.extensions.filters.udp.udp_proxy.v3 import route_pb2 as udp_route_pb2  # noqa: F401
from envoy.extensions.filters.udp.udp_proxy.v3 import udp_proxy_pb2  # noqa: F401
from envoy.extensions.http.early_header_mutation.header_mutation.v3 import (  # noqa: F401
    header_mutation_pb2 as early_header_mutation_pb2,
)
from envoy.extensions.http.header_formatters.preserve_case.v3 import preserve_case_pb2  # noqa: F401
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2  # noqa: F401
from envoy.extensions.retry.priority.previous_priorities.v3 import previous_priorities_config_pb2  # noqa: F401
from envoy.extensions.transport_sockets.internal_upstream.v3 import internal_upstream_pb2  # noqa: F401
from envoy.extensions.transport_sockets.raw_buffer.v3 import raw_buffer_pb2  # noqa: F401
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2  # noqa: F401
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2  # noqa: F401
from envoy.type.matcher.v3 import http_inputs_pb2  # noqa: F401
from google.protobuf import any_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.message import Message

Resources = dict[str, dict[str, bytes]]
Config = dict[str, Any]
EXTENSION = "type.googleapis.com/envoy.extensions."
ADS: Config = {"ads": {}, "resource_api_version": "V3"}


def encoded(config: Config, message: Message) -> bytes:
    """A message's bytes, the same for the same content. Raises `ParseError` when it is none of this message."""
    json_format.ParseDict(config, message)
    _order(message)
    return message.SerializeToString(deterministic=True)


def _order(message: Message) -> None:
    """Pack each `Any` anew (in place): parsing has packed them with their maps in an order that differs between processes."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        values = [value] if isinstance(value, Message) else value.values() if hasattr(value, "values") else value
        for each in values:
            if isinstance(each, any_pb2.Any):
                inner = message_factory.GetMessageClass(
                    descriptor_pool.Default().FindMessageTypeByName(each.TypeName())
                ).FromString(each.value)
                _order(inner)
                each.value = inner.SerializeToString(deterministic=True)
            elif isinstance(each, Message):
                _order(each)


def socket(address: str, port: int, protocol: str = "TCP") -> Config:
    """A socket address."""
    return {"socket_address": {"address": address, "port_value": port, "protocol": protocol}}
