"""What routers and tunnel servers agree on: headers, names, and which servers hold which laptop's tunnels."""

from __future__ import annotations

from collections.abc import Mapping

ID_HEADER = "x-sandlane-tunnel-id"
"""On requests from routers: the identity (LocalWorkload uid) whose tunnel shall carry the request."""
PORT_HEADER = "x-sandlane-tunnel-port"
"""On requests from routers: the container port that was meant, or `ping`."""
STAND_IN_HEADER = "x-sandlane-tunnel-baseline"
"""On requests from routers to themselves: the baseline's cluster, for a laptop that is not there."""
REASON_HEADER = "x-sandlane-reason"
"""On answers that Sandlane itself gives instead of a workload: why."""
DISCONNECTED = "local-disconnected"
BROKEN = "local-broken"
ROUTER_PAIR = "router/pair"
"""The routers' certificate, as a secret."""
TRUST = "tunnel/ca"
"""The authority of the tunnel, as a secret."""
INGRESS_PORT = 8444
"""Where tunnel servers take requests from routers."""
WINDOWS = {"initial_stream_window_size": 2 << 20, "initial_connection_window_size": 256 << 20}
"""HTTP/2 on each hop: so many bytes of a request or an answer may be under way, or wait in memory for who reads slowly; others on the
same connection go on."""

Held = Mapping[str, frozenset[str]]
"""LocalWorkload uid -> addresses of the tunnel servers that hold its tunnels."""
ANY = ""
"""In place of a uid: all tunnel servers. Who holds none is asked for there; the answer says why, and may be different soon."""
