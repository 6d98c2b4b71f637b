"""Ways to the tunnel servers: the published address, the API's port-forward, and which of them is tried first."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sandlane.laptop import transports
from sandlane.laptop.directory import Directory, directory_of
from sandlane.laptop.errors import ConnectError
from sandlane.laptop.transports import LOOK_AGAIN, Transport, Ways
from sandlane.testing.clock import ManualClock

PUBLISHED = Directory("sandlane-system", "tunnel.example", 443, 2, "")
HIDDEN = Directory("sandlane-system", "", 0, 2, "")


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes ways whose dials are noted in `dialled`; those in `broken` fail."""

    def make(directory: Directory, wanted: Transport = Transport.AUTO) -> Any:
        made: Any = Ways(None, ManualClock(), directory, wanted, None)  # type: ignore[arg-type]  # nothing is dialled
        made.dialled, made.broken = [], set()

        async def dial(way: Transport, context: object) -> str:
            made.dialled.append(str(way))
            if way in made.broken:
                raise ConnectionRefusedError(f"{way} is closed")
            return "connected"

        monkeypatch.setattr(made, "_dial", dial)
        return made

    return make


async def test_the_published_address_comes_first(ways: Any) -> None:
    """At each dial, so that a laptop behind a firewall gets through, and one that comes home takes the better way again."""
    made = ways(PUBLISHED)
    made.broken = {Transport.DIRECT}
    dial = made.connect(None)
    await dial()
    assert made.used == "port-forward"
    made.broken = set()
    await dial()
    assert made.dialled == ["direct", "port-forward", "direct"]
    assert made.used == "direct"


async def test_without_an_address_there_is_port_forward(ways: Any) -> None:
    """By itself; who asks for direct hears why not."""
    made = ways(HIDDEN)
    await made.connect(None)()
    assert made.dialled == ["port-forward"]
    with pytest.raises(ConnectError, match="publishes no address"):
        ways(HIDDEN, Transport.DIRECT)
    forced = ways(PUBLISHED, Transport.PORT_FORWARD)
    await forced.connect(None)()
    assert forced.dialled == ["port-forward"]


async def test_servers_that_have_moved_are_found(ways: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """When no way works for a while, the address is asked for again; the failure names every way that was tried."""

    async def moved(client: object) -> Directory:
        return Directory("sandlane-system", "other.example", 443, 2, "")

    monkeypatch.setattr(transports, "read_directory", moved)
    made = ways(PUBLISHED)
    made.broken = {Transport.DIRECT, Transport.PORT_FORWARD}
    dial = made.connect(None)
    with pytest.raises(ConnectionError, match="direct: direct is closed; port-forward: port-forward is closed"):
        await dial()
    assert made._directory is PUBLISHED
    await made._clock.advance(LOOK_AGAIN)
    with pytest.raises(ConnectionError):
        await dial()
    assert made._directory.host == "other.example"


async def test_a_way_that_does_not_answer_costs_a_moment(ways: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A published address that swallows packets does not keep the laptop from port-forward."""
    for name in ("DIRECT_SECONDS", "MOMENT"):
        monkeypatch.setattr(transports, name, 0.01)
    made = ways(PUBLISHED)
    first = made._dial

    async def silent(way: Transport, context: object) -> Any:
        if way is Transport.DIRECT:
            await asyncio.Event().wait()
        return await first(way, context)

    monkeypatch.setattr(made, "_dial", silent)
    for _ in range(2):
        await made.connect(None)()
        assert made.used == "port-forward"


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [("tunnel.example:443", "tunnel.example", 443), ("[fd00::1]:8443", "fd00::1", 8443), ("", "", 0)],
)
def test_the_directory(address: str, host: str, port: int) -> None:
    """An address may be a name, one of IPv6, or not there at all."""
    data = {"address": address, "replicas": "2", "ca.crt": "ca"}
    found = directory_of({"metadata": {"namespace": "s"}, "data": data})
    assert found == Directory("s", host, port, 2, "ca")


def test_which_pods_take_tunnels() -> None:
    """Those that are ready."""
    ready, other = {"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}
    assert transports.is_ready({"status": {"conditions": [other, ready]}})
    assert not transports.is_ready({"status": {"conditions": [other, ready | {"status": "False"}]}})
    assert not transports.is_ready({})
