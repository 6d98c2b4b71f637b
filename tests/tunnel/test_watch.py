"""Who is connected, from readings of the tunnel servers."""

from __future__ import annotations

from sandlane.testing.clock import ManualClock
from sandlane.tunnel.identity import Claim
from sandlane.tunnel.watch import LOST_AFTER, Tunnels, TunnelWatch, read_gauges

UID = "11111111-2222-3333-4444-555555555555"
MINE = Claim("0123456789abcdef", UID)
HERE = {MINE: Tunnels(1, "10.0.0.9")}


def watch(*told: list[str]) -> TunnelWatch:
    made = TunnelWatch(ManualClock(), lambda: ["a", "b"], lambda: {UID: MINE}, 1)
    for listener in told:
        made.subscribe(listener.append)
    return made


def test_gauges_of_all_workers_count() -> None:
    """Tunnels of one client are summed over workers; what is zero or of another kind does not count."""
    name = f"cluster.{MINE.identity}@10.0.0.9"
    text = f"tunnel.worker_0.{name}: 2\ntunnel.worker_1.{name}: 1\ntunnel.worker_0.node.{MINE.identity}: 3\n"
    assert read_gauges(text) == {MINE: Tunnels(3, "10.0.0.9")}
    assert read_gauges(f"tunnel.worker_0.{name}: 0\n") == {}


def test_an_address_of_version_6() -> None:
    """Colons come back from Envoy's names."""
    found = read_gauges(f"tunnel.worker_0.cluster.{MINE.identity}@fd00__1_2: 1\n")
    assert found[MINE].remote_address == "fd00::1:2"


def test_connected_at_once_and_gone_after_a_while() -> None:
    """The first tunnel counts at once; a server counts as gone only after some readings without one, and only once."""
    told: list[str] = []
    made = watch(told)
    made.take({"a": HERE, "b": {}})
    assert made.held == {UID: frozenset({"a"})}
    for _ in range(LOST_AFTER - 1):
        made.take({"a": {}, "b": None})
        assert made.held == {UID: frozenset({"a"})}
    made.take({"a": {}, "b": {}})
    assert made.held == {}
    made.take({"a": {}, "b": {}})
    assert told == [UID, UID]


def test_a_tunnel_that_comes_back_was_never_gone() -> None:
    """A reading without tunnels between two with them changes nothing that routes depend on."""
    made = watch()
    for reading in (HERE, {}, {}, HERE, {}, {}):
        made.take({"a": reading, "b": {}})
        assert made.held == {UID: frozenset({"a"})}


def test_another_clients_tunnels_do_not_count() -> None:
    """Only the holder's tunnels make a LocalWorkload connected."""
    made = watch()
    made.take({"a": {Claim("fedcba9876543210", UID): Tunnels(2, "10.0.0.1")}})
    assert made.held == {}
