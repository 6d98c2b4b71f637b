"""Limits that hold everywhere, and those that a manager's configuration sets."""

from __future__ import annotations

import msgspec

MAX_SANDBOX_NAME = 30
MAX_NAME = 63
"""The longest name of anything that Sandlane makes (a label value, a DNS label)."""


class Limits(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Ceilings and defaults for sandboxes; quantities by resource name. Zero or empty: no limit."""

    forks_per_sandbox: int = 20
    sandboxes_per_namespace: int = 0
    replicas_per_fork: int = 10
    container_defaults: dict[str, dict[str, str]] = {}
    """`requests` and `limits` for containers that set none and whose fork sets none."""
    container_ceilings: dict[str, str] = {}
    """The most that one container may request or be limited to."""
    requests_per_namespace: dict[str, str] = {}
    """The most that all forks of a namespace may request together."""


class Settings(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """What whoever runs Sandlane decides for all sandboxes and route groups."""

    limits: Limits = Limits()
    default_ttl: str = ""
    """TTL, from the last update, of sandboxes that set none: `<n>m|h|d|w`."""
    preview_domain: str = ""
    """Domain of the preview gateway: endpoints are served at `http://<endpoint>--<key>.<domain>`."""
