"""Limits that hold everywhere, and those that a manager's configuration sets."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from sandlane.api import fields
from sandlane.api.ttl import parse_duration

MAX_SANDBOX_NAME = 30
MAX_NAME = 63
"""The longest name of anything that Sandlane makes (a label value, a DNS label)."""


def _check_quantities(path: str, amounts: Mapping[str, str]) -> None:
    pattern = fields.QUANTITIES["additionalProperties"]["pattern"]
    for name, amount in amounts.items():
        if not re.fullmatch(pattern, amount):
            raise ValueError(f"{path}.{name}: {amount!r} is not a quantity")


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

    def __post_init__(self) -> None:
        """Raises `ValueError` for what is no quantity."""
        for kind, amounts in self.container_defaults.items():
            if kind not in ("limits", "requests"):
                raise ValueError(f"containerDefaults.{kind}: limits and requests are supported")
            _check_quantities(f"containerDefaults.{kind}", amounts)
        _check_quantities("containerCeilings", self.container_ceilings)
        _check_quantities("requestsPerNamespace", self.requests_per_namespace)


class Settings(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """What whoever runs Sandlane decides for all sandboxes and route groups."""

    limits: Limits = Limits()
    default_ttl: str = ""
    """TTL, from the last update, of sandboxes that set none: `<n>m|h|d|w`."""
    preview_domain: str = ""
    """Domain of the preview gateway (with `:PORT` where it is not the usual one): `<endpoint>--<key>.<domain>`. Empty: none."""
    preview_scheme: str = "http"
    """How people reach it: `https` where an Ingress before it ends TLS."""

    def __post_init__(self) -> None:
        """Raises `ValueError` for what is no duration."""
        if self.default_ttl:
            parse_duration(self.default_ttl)
