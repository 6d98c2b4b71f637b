"""What the laptop says of itself: listening ports, clocks, container ports, requests, and its lines on the terminal."""

from __future__ import annotations

import asyncio
import io
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sandlane.laptop.checks import about_clock, http2_ports, offset, wrong_ports
from sandlane.laptop.drawing import draw
from sandlane.laptop.inbound import LocalTarget
from sandlane.laptop.listening import bound, listens
from sandlane.laptop.requests import SHOWN, RequestLog
from sandlane.laptop.screen import Lines, spoken
from sandlane.laptop.state import Held, State

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


async def test_whether_somebody_listens_is_seen_without_connecting() -> None:
    """The process gets no connection from the look; once it has gone, nobody listens."""
    connected = asyncio.Event()
    server = await asyncio.start_server(lambda reader, writer: connected.set(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert await listens("127.0.0.1", port)
    assert await listens("localhost", port)
    server.close()
    await server.wait_closed()
    assert not await listens("127.0.0.1", port)
    assert not await listens("no-such-host.invalid", port)
    assert not connected.is_set()


def test_the_kernels_table_of_listening_sockets(tmp_path: Path) -> None:
    """Both address families, and only sockets that listen; a wildcard of IPv6 takes IPv4, too."""
    head = "  sl  local_address rem_address   st\n"
    (tmp_path / "tcp").write_text(head + "   0: 0100007F:1F90 00000000:0000 0A\n   1: 0100007F:1F91 00000000:0000 01\n")
    (tmp_path / "tcp6").write_text(
        head + f"   0: {'0' * 32}:0050 {'0' * 32}:0000 0A\n   1: {'0' * 24}01000000:0051 x 0A\n"
    )
    assert bound(tmp_path) == {("127.0.0.1", 8080), ("::", 80), ("0.0.0.0", 80), ("::1", 81)}
    assert bound(tmp_path / "none") is None


def test_a_clock_that_is_off() -> None:
    """A second is nothing, two minutes are said, an hour behind is hopeless; without a Date header nothing is said."""
    assert offset("Thu, 01 Jan 2026 11:58:00 GMT", NOW) == timedelta(minutes=2)
    assert offset(None, NOW) == offset("yesterday", NOW) == timedelta(0)
    assert about_clock(timedelta(seconds=1)) == ("", False)
    ahead, hopeless = about_clock(timedelta(minutes=2))
    assert "120 s ahead of" in ahead
    assert not hopeless
    behind, hopeless = about_clock(timedelta(hours=-1))
    assert "3600 s behind" in behind
    assert hopeless


def test_a_port_that_the_baseline_does_not_have() -> None:
    """The message says which it has; a baseline that names no ports is not held against anybody."""
    ports = [{"containerPort": 8083, "name": "http"}, {"containerPort": 9090}]
    deployment = {"metadata": {"name": "eta"}, "spec": {"template": {"spec": {"containers": [{"ports": ports}]}}}}
    [message] = wrong_ports(deployment, [LocalTarget(80, "", 0), LocalTarget(8083, "", 0)])
    assert message.startswith("eta has no container port 80; it has 8083 (http), 9090")
    ports.clear()
    assert wrong_ports(deployment, [LocalTarget(80, "", 0)]) == []


def test_ports_that_are_named_for_http2() -> None:
    """As applications name them; everything else gets HTTP/1.1."""
    ports = [
        {"containerPort": number, "name": name}
        for number, name in enumerate(("grpc", "h2c-web", "http", "grpcish", ""))
    ]
    sidecar = {"restartPolicy": "Always", "ports": [{"containerPort": 9, "name": "grpc"}]}
    inits = [sidecar, {"ports": [{"containerPort": 8, "name": "grpc"}]}]
    deployment = {"spec": {"template": {"spec": {"containers": [{"ports": ports}, {}], "initContainers": inits}}}}
    assert http2_ports(deployment) == {0, 1, 9}


def test_requests_are_read_from_the_end_of_each_piece_of_the_log() -> None:
    """All are counted, the newest are kept, lines may come in halves, and Envoy's own words are passed over."""
    log = RequestLog()
    line = b'{"at":"12:00:00","workload":"rides/a","port":"1","method":"GET","path":"/","status":200,"ms":3}\n'
    assert [spoken(seen) for seen in log.feed(line + line[:10])] == ["12:00:00 rides/a:1 GET / 200 3 ms"]
    assert len(log.feed(line[10:] + line * 100)) == SHOWN
    assert log.count == 102
    assert log.feed(b"[warning] something\n") == []
    null = b'{"at":"1","workload":"rides/a","port":null,"method":"CONNECT","path":null,"status":0,"ms":1}\n'
    assert [spoken(seen) for seen in log.feed(null)] == ["1 rides/a:- CONNECT - 1 ms"]


def test_lines_say_each_thing_once() -> None:
    """Connected, not connected and why, what does not listen: when it changes, and not again."""
    held = Held("rides", "a", "mine", "eta", (LocalTarget(1, "127.0.0.1", 2),))
    other = Held("rides", "b", "mine", "routes", ())
    out = io.StringIO()
    lines = Lines(State([held, other]), out)
    for change in (
        {"error": "refused"},
        {"tunnels": {"r0": 2, "r1": 1}},
        {"ready": False, "cluster": "no router"},
        {"not_listening": ["127.0.0.1:2"]},
        {"not_listening": [], "ready": True},
        {"over": "taken over"},
    ):
        for name, value in change.items():
            setattr(held, name, value)
        lines.changed()
        lines.changed()
    assert out.getvalue().splitlines() == [
        "rides/a: not connected: refused",
        "rides/b: not connected: dialling",
        "rides/a: connected: 3 tunnels to 2 servers",
        "rides/a: connected: 3 tunnels to 2 servers; not ready: no router",
        "rides/a: nothing listens at 127.0.0.1:2",
        "rides/a: connected: 3 tunnels to 2 servers",
        "rides/a: everything listens",
        "rides/a: ended: taken over",
    ]


def test_the_screen_shows_requests_and_what_does_not_listen() -> None:
    """One glance: connection, mapping, requests with status and duration."""
    from rich.console import Console

    held = Held(
        "rides", "a", "mine", "eta", (LocalTarget(1, "127.0.0.1", 2),), {"r0": 1}, not_listening=["127.0.0.1:2"]
    )
    log = RequestLog()
    log.feed(b'{"at":"12:00:00","workload":"rides/a","port":"1","method":"GET","path":"/[x]","status":503,"ms":3}\n')
    out = io.StringIO()
    Console(file=out, width=120).print(draw(State([held], "direct", "", 1, list(log.last))))
    for words in (
        "connected: 1 tunnel to 1 server",
        "127.0.0.1:2 (nothing listens)",
        "GET /[x]",
        "503",
        "1 requests by direct",
    ):
        assert words in out.getvalue()
