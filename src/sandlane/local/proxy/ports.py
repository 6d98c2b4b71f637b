"""Which port a Service is really served at: without root, ports below 1024 move up by 10000.

The node's service environment variables, `sandlane url` and the Service proxy all ask here, so that they agree.
"""

from __future__ import annotations

import os
from pathlib import Path

SHIFT = 10_000
_CAP_NET_BIND_SERVICE = 1 << 10


def served_port(port: int, first_unprivileged: int) -> int:
    """The port at which a Service port is served, given the lowest port that this user may bind."""
    return port if port >= first_unprivileged else port + SHIFT


def first_bindable_port() -> int:
    """The lowest port that this process may bind: 1 with CAP_NET_BIND_SERVICE, else what the kernel says (1024)."""
    if _may_bind_all():
        return 1
    try:
        return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 1024


def _may_bind_all() -> bool:
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return os.geteuid() == 0
    effective = next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), "0")
    return bool(int(effective, 16) & _CAP_NET_BIND_SERVICE)
