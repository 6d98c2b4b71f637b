"""What the tunnel servers get by xDS: who may hold a tunnel, and their certificates."""

from __future__ import annotations

from envoy.config.route.v3 import route_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from envoy.type.matcher.v3 import http_inputs_pb2  # noqa: F401 - known to ParseDict
from google.protobuf import json_format

from sandlane.routing.envoy.delta import ROUTES, SECRETS
from sandlane.routing.tunnels import TRUST
from sandlane.runtime.signing import KeyPair
from sandlane.tunnel.bootstrap import SERVER_PAIR, ServerOptions
from sandlane.tunnel.routes import Holders, front_routes, ingress_routes

Resources = dict[str, dict[str, bytes]]


def server_resources(holders: Holders, options: ServerOptions, pair: KeyPair, ca: bytes) -> Resources:
    """Everything for the servers."""
    tables = [front_routes(holders, options.workers), ingress_routes(holders, options.max_body)]
    routes = {
        table["name"]: json_format.ParseDict(table, route_pb2.RouteConfiguration()).SerializeToString(
            deterministic=True
        )
        for table in tables
    }
    return {ROUTES: routes, SECRETS: {SERVER_PAIR: tls_pair(SERVER_PAIR, pair), TRUST: trust(ca)}}


def tls_pair(name: str, pair: KeyPair) -> bytes:
    """A certificate with its key, as a secret."""
    made = secret_pb2.Secret(name=name)
    made.tls_certificate.certificate_chain.inline_bytes = pair.certificate
    made.tls_certificate.private_key.inline_bytes = pair.key
    encoded: bytes = made.SerializeToString(deterministic=True)
    return encoded


def trust(ca: bytes) -> bytes:
    """Whom to trust, as a secret."""
    made = secret_pb2.Secret(name=TRUST)
    made.validation_context.trusted_ca.inline_bytes = ca
    encoded: bytes = made.SerializeToString(deterministic=True)
    return encoded
