"""A watch tells what there is, then every change; digests say what the watcher has."""

from __future__ import annotations

import pytest

from sandlane.kube.resource import SANDBOXES
from sandlane.routesapi import feed as feeds
from sandlane.routesapi.feed import Digest, Filter, TooSlow
from support.feed import feeding
from support.routed import group, local, sandbox


async def test_a_watch_follows() -> None:
    """First all rules as ADD, SYNCED, then each change; the digest is that of a fresh list."""
    async with feeding(*sandbox("a")) as fed:
        watching = fed.stream()
        assert await watching.next() == ("ADD", "key-a>a/eta-a")
        assert await watching.next() == ("SYNCED", "")
        await fed.write(*sandbox("b"))
        assert await watching.next() == ("ADD", "key-b>b/eta-b")
        assert watching.digest == fed.feed.digest == str(Digest(fed.feed.rules(Filter())))
        status = {"status": {"forks": [sandbox("b", fork={"workload": "other"})[0]["status"]["forks"][0]]}}
        await fed.client.patch(SANDBOXES, "b", status, namespace="n", subresource="status")
        assert await watching.next() == ("REPLACE", "key-b>b/other")
        await fed.delete("Sandbox", "b")
        assert await watching.next() == ("REMOVE", "key-b>b/other")
        assert watching.digest == str(Digest(fed.feed.rules(Filter())))
        assert fed.feed.watchers == {"": 1}


async def test_filters() -> None:
    """A watcher hears of what it asked for only, and its digest is of that."""
    async with feeding(*sandbox("a"), *sandbox("b", of="drivers")) as fed:
        watching = fed.stream(name="drivers")
        assert await watching.next() == ("ADD", "key-b>b/drivers-b")
        assert await watching.next() == ("SYNCED", "")
        await fed.delete("Sandbox", "a")
        await fed.delete("Sandbox", "b")
        assert await watching.next() == ("REMOVE", "key-b>b/drivers-b")
        assert watching.digest == str(Digest())
        assert [rule.key for rule in fed.feed.rules(Filter(sandbox="b"))] == []


async def test_groups_follow_labels() -> None:
    """A sandbox that gains or loses a label, or is deleted, changes the rules of its groups."""
    async with feeding(*sandbox("a"), group("g", team="late")) as fed:
        watching = fed.stream(key="key-g")
        assert await watching.next() == ("SYNCED", "")
        await fed.client.patch(SANDBOXES, "a", {"metadata": {"labels": {"team": "late"}}}, namespace="n")
        assert await watching.next() == ("ADD", "key-g>a/eta-a")
        await fed.client.patch(SANDBOXES, "a", {"metadata": {"labels": {"team": "x"}}}, namespace="n")
        assert await watching.next() == ("REMOVE", "key-g>a/eta-a")


async def test_a_key_goes_to_the_next() -> None:
    """When the older of two with one key goes, the younger one's rule takes its place."""
    async with feeding(*sandbox("a", routingKey="k")) as fed:
        watching = fed.stream()
        assert await watching.next() == ("ADD", "k>a/eta-a")
        assert await watching.next() == ("SYNCED", "")
        await fed.write(*sandbox("b", routingKey="k"))
        await fed.delete("Sandbox", "a")
        assert await watching.next() == ("REPLACE", "k>b/eta-b")


async def test_laptops() -> None:
    """A laptop that comes or goes is a change where the baseline shall stand in."""
    async with feeding(*sandbox("a", of="drivers")) as fed:
        made = await fed.cluster.add(local("a", on_disconnect="Baseline"))
        watching = fed.stream(name="eta")
        assert await watching.next() == ("SYNCED", "")
        fed.held[made["metadata"]["uid"]] = frozenset({"127.0.0.1"})
        fed.feed.held_changed()
        assert await watching.next() == ("ADD", "key-a>a/l")
        fed.held.clear()
        fed.feed.held_changed()
        assert await watching.next() == ("REMOVE", "key-a>a/l")


async def test_a_watcher_that_sleeps_hears_the_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several changes of one rule are one; who is too far behind is told to list again; silence is broken."""
    async with feeding() as fed:
        watching, slow, quiet = fed.stream(), fed.stream(), fed.stream()
        for each in (watching, slow, quiet):
            assert await each.next() == ("SYNCED", "")
        await fed.write(*sandbox("a"))
        assert await watching.next() == ("ADD", "key-a>a/eta-a")
        await fed.delete("Sandbox", "a")
        assert await watching.next() == ("REMOVE", "key-a>a/eta-a")
        monkeypatch.setattr(feeds, "ALIVE_SECONDS", 0.01)
        assert await quiet.next() == ("ALIVE", "")
        fed.feed._steps.clear()
        with pytest.raises(TooSlow, match="2 changes behind"):
            await slow.next()
