"""Events: written beside the work, as series, bounded, and never a reason for anything to fail."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from sandlane.api.ttl import Expiry
from sandlane.kube.errors import TransportError
from sandlane.kube.metadata import ObjectMeta
from sandlane.kube.resource import CONFIG_MAPS, EVENTS
from sandlane.kube.transport import Request, Response
from sandlane.runtime.lifetime import Lifetime
from sandlane.runtime.recorder import BURST, WAITING, WARNING, EventRecorder
from sandlane.testing.events import captured_events

ABOUT = ObjectMeta(name="a", namespace="d", uid="u")


def recorder(rig: Any, dropped: list[int] | None = None) -> EventRecorder:
    """A recorder that has not started."""

    def count() -> None:
        if dropped is not None:
            dropped.append(1)

    return EventRecorder(rig.cluster.client, rig.clock, "sandlane", "one", dropped=count)


async def test_an_event_is_what_kubectl_shows(rig: Any) -> None:
    """With all that describe needs."""
    events = recorder(rig)
    events.event(CONFIG_MAPS, ABOUT, "Created", "made it", kind=WARNING)
    await events.flush()
    (event,) = (await rig.cluster.client.list(EVENTS, "d")).items
    assert event["regarding"] == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "name": "a",
        "namespace": "d",
        "uid": "u",
    }
    assert (event["type"], event["reason"], event["note"]) == ("Warning", "Created", "made it")
    assert (event["reportingController"], event["reportingInstance"]) == ("sandlane", "one")


async def test_long_names_fit(rig: Any) -> None:
    """An object's name may be as long as its event's may be; so may an instance's be longer than its field."""
    events = EventRecorder(rig.cluster.client, rig.clock, "sandlane", "i" * 200)
    name = ".".join(["n" * 62] * 4)[:253]
    events.event(CONFIG_MAPS, ObjectMeta(name=name, namespace="d", uid="u"), "Created", "made it")
    await events.flush()
    (event,) = (await rig.cluster.client.list(EVENTS, "d")).items
    assert event["regarding"]["name"] == name
    assert len(event["reportingInstance"]) == 128


async def test_the_end_is_announced_once_whatever_restarts(rig: Any) -> None:
    """A process with empty memory finds the Event there; an end that has moved is another one."""
    ends = Expiry(at=rig.clock.now() + timedelta(hours=1), warn_at=rig.clock.now())
    for later in (0, 0, 1):
        events = recorder(rig)
        lifetime = Lifetime(CONFIG_MAPS, rig.cluster.client, rig.clock, events)
        moved = Expiry(at=ends.at + timedelta(hours=later), warn_at=ends.warn_at)
        assert lifetime.wait(ABOUT, moved) == 3600 * (1 + later)
        lifetime.wait(ABOUT, moved)
        await events.flush()
    assert await captured_events(rig.cluster.client) == ["ConfigMap/a: Expiring", "ConfigMap/a: Expiring"]


async def test_the_same_again_is_a_series(rig: Any) -> None:
    """For six minutes; another message is another event; one that was deleted begins anew."""
    events = recorder(rig)
    for message in ("x", "x", "x", "y"):
        events.event(CONFIG_MAPS, ABOUT, "Drift", message)
        await rig.clock.advance(1)
    await events.flush()
    assert sorted(await captured_events(rig.cluster.client)) == ["ConfigMap/a: Drift", "ConfigMap/a: Drift x3"]
    await rig.clock.advance(400)
    events.event(CONFIG_MAPS, ABOUT, "Drift", "x")
    await events.flush()
    assert len(await captured_events(rig.cluster.client)) == 3
    for event in (await rig.cluster.client.list(EVENTS, "d")).items:
        await rig.cluster.client.delete(EVENTS, event["metadata"]["name"], "d")
    events.event(CONFIG_MAPS, ABOUT, "Drift", "x")
    await events.flush()
    assert await captured_events(rig.cluster.client) == ["ConfigMap/a: Drift"]


async def test_a_flapping_object_has_a_budget(rig: Any) -> None:
    """Others are not affected; what is dropped is counted."""
    dropped: list[int] = []
    events = recorder(rig, dropped)
    for n in range(BURST + 10):
        events.event(CONFIG_MAPS, ABOUT, "Flap", str(n))
    events.event(CONFIG_MAPS, ObjectMeta(name="b", namespace="d", uid="v"), "Calm", "")
    await events.flush()
    found = await captured_events(rig.cluster.client)
    assert len(found) == BURST + 1
    assert "ConfigMap/b: Calm" in found
    assert len(dropped) == 10
    await rig.clock.advance(301)
    events.event(CONFIG_MAPS, ABOUT, "Flap", "again")
    await events.flush()
    assert len(await captured_events(rig.cluster.client)) == BURST + 2


async def test_the_line_is_bounded(rig: Any) -> None:
    """While nobody writes, the oldest make room."""
    dropped: list[int] = []
    events = recorder(rig, dropped)
    for n in range(WAITING + 5):
        events.event(CONFIG_MAPS, ObjectMeta(name=f"o{n}", namespace="d", uid=f"u{n}"), "Made", "")
    assert len(dropped) == 5


async def test_an_api_server_that_is_away_harms_nobody(rig: Any) -> None:
    """The event is lost and logged, the recorder goes on."""
    events = recorder(rig)
    away = True

    async def lose(request: Request) -> Response | None:
        if away:
            raise TransportError("away")
        return None

    rig.cluster.transport.intercepts.append(lose)
    async with asyncio.TaskGroup() as tasks:
        job = tasks.create_task(events.run())
        events.event(CONFIG_MAPS, ABOUT, "Lost", "")
        await rig.clock.advance(60)
        away = False
        events.event(CONFIG_MAPS, ABOUT, "Kept", "")
        await rig.clock.advance(60)
        job.cancel()
    assert await captured_events(rig.cluster.client) == ["ConfigMap/a: Kept"]
