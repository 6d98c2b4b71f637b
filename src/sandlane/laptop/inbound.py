"""The laptop's Envoy for requests that come in: HTTP/2 from the dialler on a Unix socket, sent on by the port that was meant. Pure.

gRPC goes on as HTTP/2, everything else as HTTP/1.1 (WebSocket included) unless the process wants HTTP/2, CONNECT as a plain
TCP connection. Every request is one line of JSON in the access log, on standard output: `Seen`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from sandlane.laptop.pieces import (
    KEEPALIVE,
    TYPE,
    Config,
    cluster,
    connect_to,
    http_manager,
    is_address,
    listener,
    pipe,
    reason_of_503,
    reply,
    tcp,
    upstream,
)
from sandlane.routing.tunnels import ID_HEADER, PORT_HEADER, REASON_HEADER, WINDOWS
from sandlane.tunnel.bootstrap import IDENTITY_HEADER, PING, ServerOptions

NOT_LISTENING = "local-not-listening"
_NOT_LISTENING_TEXT = "the laptop is connected, but no process there takes connections\n"


class LocalTarget(msgspec.Struct, frozen=True):
    """A container port of the baseline, and the address on the laptop that stands in for it.

    `all_connections`: plain TCP of everybody; `http2`: the process speaks nothing but HTTP/2 (without TLS).
    """

    port: int
    host: str
    to_port: int
    all_connections: bool = False
    http2: bool = False

    @property
    def to(self) -> str:
        """The address as text."""
        return f"[{self.host}]:{self.to_port}" if ":" in self.host else f"{self.host}:{self.to_port}"


class Inbound(msgspec.Struct, frozen=True):
    """One LocalWorkload: its name in the access log, the socket of its tunnels, and where requests go."""

    name: str
    socket: str
    targets: tuple[LocalTarget, ...]


class Seen(msgspec.Struct, frozen=True):
    """One request in the access log. `ms` is its duration; `status` is 0 when no answer began."""

    workload: str
    at: str = ""
    port: str | None = None
    method: str | None = None
    path: str | None = None
    status: int = 0
    ms: int = 0
    flags: str | None = None


def inbound_bootstrap(workloads: Iterable[Inbound], admin_path: str) -> Config:
    """Everything for the LocalWorkloads that are held on this laptop."""
    listeners: list[Config] = []
    clusters: list[Config] = []
    for number, workload in enumerate(workloads):
        made, theirs = _workload(number, workload)
        listeners.append(made)
        clusters += theirs
    return {
        "admin": {"address": pipe(admin_path, listen=True)},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    }


def _workload(number: int, workload: Inbound) -> tuple[Config, list[Config]]:
    by_ping = {"name": PORT_HEADER, "string_match": {"exact": PING}}
    routes: list[Config] = [{"match": {"prefix": "/", "headers": [by_ping]}, "direct_response": reply(200, "pong\n")}]
    clusters: list[Config] = []
    for target in sorted(workload.targets, key=lambda target: target.port):
        by_port = {"name": PORT_HEADER, "string_match": {"exact": str(target.port)}}
        name = f"{number}/{target.port}"
        remove = {"name": str(target.port), "request_headers_to_remove": [PORT_HEADER, ID_HEADER, IDENTITY_HEADER]}
        routes += [
            {"match": {"connect_matcher": {}, "headers": [by_port]}, "route": connect_to(name), **remove},
            {
                "match": {"prefix": "/", "grpc": {}, "headers": [by_port]},
                "route": {"cluster": f"{name}/h2", "timeout": "0s"},
                **remove,
            },
            {
                "match": {"prefix": "/", "headers": [by_port]},
                "route": {"cluster": f"{name}/h2" if target.http2 else name, "timeout": "0s"},
                **remove,
            },
        ]
        kind = {"type": "STATIC" if is_address(target.host) else "STRICT_DNS", "connect_timeout": "10s"}
        h2 = upstream(explicit_http_config={"http2_protocol_options": WINDOWS})
        address = tcp(target.host, target.to_port)
        clusters += [
            cluster(name, address, **kind),
            cluster(f"{name}/h2", address, **kind, typed_extension_protocol_options=h2),
        ]
    nothing = reply(404, "no such port is mapped on this laptop\n")
    routes += [
        {"match": {"prefix": "/"}, "direct_response": nothing},
        {"match": {"connect_matcher": {}}, "direct_response": nothing},
    ]
    manager = http_manager(
        workload.name,
        [{"name": "all", "domains": ["*"], "routes": routes}],
        codec_type="HTTP2",
        http2_protocol_options={
            "allow_connect": True,
            "connection_keepalive": KEEPALIVE,
            "max_concurrent_streams": ServerOptions().max_streams,
            **WINDOWS,
        },
        local_reply_config={"mappers": [reason_of_503(REASON_HEADER, NOT_LISTENING, _NOT_LISTENING_TEXT)]},
        access_log=[_access_log(workload.name)],
    )
    return listener(workload.name, pipe(workload.socket, listen=True), {"filters": [manager]}), clusters


def _access_log(name: str) -> Config:
    fields: dict[str, Any] = {
        "at": "%START_TIME(%H:%M:%S)%",
        "workload": name,
        "port": "%ROUTE_NAME%",
        "method": "%REQ(:METHOD)%",
        "path": "%REQ(:PATH)%",
        "status": "%RESPONSE_CODE%",
        "ms": "%DURATION%",
        "flags": "%RESPONSE_FLAGS%",
    }
    is_no_ping: Config = {"name": PORT_HEADER, "string_match": {"exact": PING}, "invert_match": True}
    is_no_ping["treat_missing_header_as_empty"] = True
    return {
        "name": "envoy.access_loggers.stdout",
        "filter": {"header_filter": {"header": is_no_ping}},
        "typed_config": {
            "@type": TYPE + "access_loggers.stream.v3.StdoutAccessLog",
            "log_format": {"json_format": fields, "omit_empty_values": False},
        },
    }
