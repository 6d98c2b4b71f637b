"""Every name that routing derives: the router and what belongs to it, shadow Services, ports, groups of routers."""

from __future__ import annotations

import hashlib

from sandlane.api.limits import MAX_NAME

ROUTER = "sandlane-router"
ROUTER_SECRET = "sandlane-router-xds"
"""The certificate that a namespace's routers show to the xDS server."""
LISTENERS = "sandlane.dev/listeners"
"""On a shadow Service: the router's port for each port of the original, as a JSON object."""
SHADOW_OF = "sandlane.dev/shadow-of"
KEY_SOURCES = "sandlane.dev/key-sources"
"""On a router's Deployment: where its routers look for routing keys, as a JSON object; not there: in the usual places."""
FIRST_LISTENER = 20_000
LAST_LISTENER = 29_999
READY_PORT = 15_021
"""Where a router answers the digest of the table that it serves."""


def shadow_name(service: str) -> str:
    """The shadow of a Service."""
    digest = hashlib.sha256(f"shadow/{service}".encode()).hexdigest()[:8]
    return f"{service[: MAX_NAME - 17].rstrip('-')}-shadow-{digest}"


def router_identity(namespace: str) -> str:
    """What the certificate of a namespace's routers says: they may join the groups below it."""
    return f"router/{namespace}"


def routers_group(namespace: str) -> str:
    """The xDS group above those of a namespace's routers: what all of them get."""
    return f"router/{namespace}"


def router_group(namespace: str, address: str) -> str:
    """The xDS group of one router Pod: it listens on its own address."""
    return f"{router_identity(namespace)}/{address}"
