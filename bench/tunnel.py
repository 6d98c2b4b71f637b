"""The tunnel against two plain Envoy hops and `ssh -R` to the same server: requests, 99th percentile, bulk throughput."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from bench.load import Load, wrk
from bench.report import Table
from bench.reverse_ssh import reverse_tunnel
from sandlane.laptop.inbound import LocalTarget
from sandlane.routing.tunnels import ID_HEADER, PORT_HEADER
from support.tunnel import UID, Tunnel, eventually, free_port, listening, running_envoy

ROUNDS = 3
SECONDS = 3
BULK = 1 << 20
PLAIN, TUNNEL, SSH = "two plain Envoy hops", "through the tunnel", "one Envoy, then `ssh -R`"
LIMITS = (
    "Limits: of two plain hops at least 0.85 of the requests and at most 1.4 of the 99th percentile; of `ssh -R` at least 1.3 times the "
    "requests, 5 times the bulk, a tenth of the 99th percentile."
)
HTTP = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
H2 = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def listener(name: str, port: int, route: dict[str, Any], *more: dict[str, Any]) -> dict[str, Any]:
    """A plain HTTP listener with one route for everything, after others."""
    manager = {
        "@type": HTTP,
        "stat_prefix": name,
        "codec_type": "AUTO",
        "generate_request_id": False,
        "route_config": {
            "max_direct_response_body_size_bytes": 2 * BULK,
            "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [*more, {"match": {"prefix": "/"}} | route]}],
        },
        "http_filters": [{"name": "router", "typed_config": {"@type": ROUTER, "suppress_envoy_headers": True}}],
    }
    return {
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }


def cluster(name: str, port: int, *, h2: bool = False) -> dict[str, Any]:
    """A cluster with one endpoint on loopback."""
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    made: dict[str, Any] = {
        "name": name,
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }
    if h2:
        options = {"@type": H2, "explicit_http_config": {"http2_protocol_options": {}}}
        made["typed_extension_protocol_options"] = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}
    return made


def server(name: str, listeners: list[dict[str, Any]], clusters: list[dict[str, Any]]) -> dict[str, Any]:
    """An Envoy's configuration."""
    return {"node": {"id": name, "cluster": name}, "static_resources": {"listeners": listeners, "clusters": clusters}}


def answer(size: int) -> dict[str, Any]:
    """A route that answers by itself with `size` bytes."""
    return {"direct_response": {"status": 200, "body": {"inline_string": "x" * size}}}


async def measure(folder: Path) -> dict[str, list[Load]]:
    """Both paths, in turn, `ROUNDS` times each."""
    app, plain_first, plain_second = free_port(), free_port(), free_port()
    tunnel = Tunnel(folder)
    tunnel.allow(UID)
    headers = {ID_HEADER: UID, PORT_HEADER: "8080"}
    loads: dict[str, list[Load]] = {}
    forward = {"route": {"cluster": "next", "timeout": "0s"}}
    first = server("first", [listener("in", plain_first, forward)], [cluster("next", plain_second, h2=True)])
    ssh_first = free_port()
    second = server("second", [listener("in", plain_second, forward)], [cluster("next", app)])
    (folder / "bulk").write_bytes(b"x" * BULK)
    large = {"direct_response": {"status": 200, "body": {"filename": str(folder / "bulk")}}, "match": {"path": "/bulk"}}
    application = server("app", [listener("in", app, answer(100), large)], [])
    async with (
        contextlib.AsyncExitStack() as stack,
        running_envoy(application, folder / "app.log", threads=2),
        running_envoy(first, folder / "first.log"),
        running_envoy(second, folder / "second.log"),
        tunnel.server(tls_ingress=False),
        tunnel.laptop(UID, LocalTarget(8080, "127.0.0.1", app)),
    ):
        await eventually(lambda: listening(app), "the server listens")
        ssh = await stack.enter_async_context(reverse_tunnel(folder / "ssh", app))
        one = server("ssh", [listener("in", ssh_first, forward)], [cluster("next", ssh)])
        await stack.enter_async_context(running_envoy(one, folder / "ssh-envoy.log"))
        await eventually(lambda: all(map(listening, (plain_first, plain_second, ssh_first))), "all Envoys listen")
        paths = {
            "straight to the server": app,
            PLAIN: plain_first,
            TUNNEL: tunnel.options.ingress_port,
            SSH: ssh_first,
        }
        for _ in range(ROUNDS):
            for name, port in paths.items():
                load = await asyncio.to_thread(
                    wrk, f"http://127.0.0.1:{port}/bulk", connections=4, seconds=SECONDS, headers=headers
                )
                loads.setdefault(f"{name}, bulk", []).append(load)
        for connections in (1, 32):
            for _ in range(ROUNDS):
                for name, port in paths.items():
                    load = await asyncio.to_thread(
                        wrk, f"http://127.0.0.1:{port}/", connections=connections, seconds=SECONDS, headers=headers
                    )
                    loads.setdefault(f"{name}, {connections} connections", []).append(load)
    return loads


def run() -> list[Table]:
    """Requests per second and latencies of all paths, medians of the rounds, and their ratios."""
    with tempfile.TemporaryDirectory() as folder:
        loads = asyncio.run(measure(Path(folder)))

    def middle(name: str, value: Callable[[Load], float]) -> float:
        return statistics.median(value(load) for load in loads[name])

    def ratios(name: str, kind: str, value: Callable[[Load], float]) -> str:
        mine = middle(name, value)
        return " / ".join(f"{mine / middle(f'{other}, {kind}', value):.2f}" for other in (PLAIN, SSH))

    rows = []
    for name in loads:
        kind = name.rpartition(", ")[2]
        rps = middle(name, lambda load: load.rps)
        rows.append(
            (
                name,
                f"{rps * BULK / 2**20:,.0f} MiB/s" if kind == "bulk" else f"{rps:,.0f}",
                ratios(name, kind, lambda load: load.rps),
                f"{middle(name, lambda load: load.p50):,.0f} / {middle(name, lambda load: load.p99):,.0f}",
                ratios(name, kind, lambda load: load.p99),
                str(sum(load.errors for load in loads[name])),
            )
        )
    columns = ("path", "requests/s", "of two hops / of ssh", "p50 / p99 µs", "p99, of two hops / of ssh", "errors")
    note = (
        f"wrk, one thread, medians of {ROUNDS} rounds of {SECONDS} s taken in turn; each Envoy on the way has one worker; answers of 100 bytes over 1 and 32 connections, "
        f"bulk: answers of 1 MiB over 4."
    )
    title = "Tunnel against two plain Envoy hops and ssh -R"
    return [Table("tunnel", title, columns, tuple(rows), note, (LIMITS,))]
