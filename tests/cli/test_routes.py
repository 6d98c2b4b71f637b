"""What `sandlane routes` and `sandlane explain` read and print."""

from __future__ import annotations

import pytest

from sandlane.api.crd import definitions
from sandlane.cli.reading import NotInstalled, read_world
from sandlane.cli.routes import BadHeader, answered, columns, of_key, parse_headers, spoken, table
from sandlane.kube.transport import Request, Response
from sandlane.routing.explain import Answer, KeyAnswer, UnknownTarget, explain, find_target
from sandlane.routing.key import KeySources, find_key
from sandlane.routing.names import KEY_SOURCES
from sandlane.routing.resources import RouterOptions, router_deployment
from sandlane.routing.rules import rules
from sandlane.routing.sources import sources_in
from sandlane.testing.cluster import FakeCluster
from sandlane.world.world import World
from support.routed import baseline, group, sandbox


def test_headers() -> None:
    """Headers are read as curl's; what is none is said."""
    assert parse_headers(["baggage: a=b", "X:y:z"]) == [("baggage", "a=b"), ("X", "y:z")]
    with pytest.raises(BadHeader, match="'a=b' is not a header"):
        parse_headers(["a=b"])


def test_columns() -> None:
    """Cells stand under each other, without trailing space."""
    assert columns([["A", "B", "C"], ["long", "b", ""]]) == "A     B  C\nlong  b"


def test_tables() -> None:
    """`wide` adds backends and messages, all namespaces add a column."""
    found = rules(World.of([*baseline(), *sandbox("a"), *sandbox("b", ready=False), group("g", team="a")]))
    assert "NAMESPACE" not in table(found, wide=False, everywhere=False)
    text = table(found, wide=True, everywhere=True)
    assert text.splitlines()[0].split() == [
        "NAMESPACE",
        "SERVICE",
        "PORT",
        "KEY",
        "OF",
        "SERVED",
        "BY",
        "REASON",
        "BACKEND",
    ]
    assert "n/eta:80 key-b: fork eta-b was never ready yet" in text


def test_an_answer_in_words() -> None:
    """The first line says who serves; then why, then the other keys."""
    world = World.of([*baseline(), *sandbox("a"), *sandbox("b")])
    key = find_key([("baggage", "sandlane-routing-key=key-a")])
    text = spoken(explain(world, find_target(world, "eta", "n"), key))
    assert text.startswith("n/eta:80 is served by a/eta-a (1 ready endpoint)\n")
    assert "1. the key key-a comes from the baggage member sandlane-routing-key" in text
    assert "key-b" in text.partition("with another key:")[2]


def test_a_key_alone() -> None:
    """Without a target: whose the key is, and every Service port where it wants something."""
    world = World.of([*baseline(), *baseline("drivers", turned=False), *sandbox("a"), *sandbox("b", ready=False)])
    found = answered(world, "", [("baggage", "sandlane-routing-key=key-a")], "", "n")
    assert isinstance(found, KeyAnswer)
    text = of_key(found)
    assert text.startswith("key-a is the key of Sandbox n/a\n")
    assert "1. the key key-a comes from the baggage member" in text
    assert "n/eta:80  a/eta-a" in text
    late = answered(world, "", [], "key-b", "n")
    assert isinstance(late, KeyAnswer)
    assert "n/eta:80: fork eta-b was never ready yet" in of_key(late)
    nobody = answered(world, "", [], "nope", "n")
    assert isinstance(nobody, KeyAnswer)
    assert of_key(nobody).startswith("nope is the key of nobody")
    with pytest.raises(UnknownTarget, match="say what is to be explained"):
        answered(world, "", [], "", "n")


def test_keys_where_this_cluster_looks() -> None:
    """The manager's own names count, as the routers' Deployment says them; without a router there, as any other says."""
    sources = KeySources(("sd-routing-key",), ("X-Key",), "key")
    router = router_deployment("n", RouterOptions("xds", 1, keys=sources))
    elsewhere = router_deployment("m", RouterOptions("xds", 1, keys=sources))
    for routers, spoilt in (([router], False), ([elsewhere], False), ([], True)):
        world = World.of([*baseline(), *sandbox("a"), *routers])
        for target, header in (
            ("eta", ("baggage", "sd-routing-key=key-a")),
            ("eta", ("x-key", "key-a")),
            ("http://eta:80/?key=key-a", ("a", "b")),
        ):
            found = answered(world, target, [header], "", "n")
            assert isinstance(found, Answer)
            assert found.served_by == ("baseline" if spoilt else "a/eta-a")
        usual = answered(world, "eta", [("baggage", "sandlane-routing-key=key-a")], "", "n")
        assert isinstance(usual, Answer)
        assert usual.served_by == ("a/eta-a" if spoilt else "baseline")
    router["metadata"]["annotations"][KEY_SOURCES] = "{"
    assert sources_in(World.of([router]), "n") == KeySources()
    assert "annotations" not in router_deployment("n", RouterOptions("xds", 1))["metadata"]


def test_a_preview_address() -> None:
    """A preview's address means its Service with its key."""
    endpoints = {"endpoints": [{"name": "web", "target": "http://eta:80"}]}
    world = World.of([*baseline(), *sandbox("a", defaultRouteGroup=endpoints)])
    found = answered(world, "http://web--key-a.localhost:17016/x", [], "", "default")
    assert isinstance(found, Answer)
    assert (found.namespace, found.service, found.served_by) == ("n", "eta", "a/eta-a")
    assert found.key_from == "preview address web--key-a"
    with pytest.raises(UnknownTarget):
        answered(world, "http://web--other.localhost:17016/x", [], "", "default")


async def test_what_is_read() -> None:
    """The client sees the world that the manager sees."""
    async with FakeCluster.with_objects(*definitions()) as cluster:
        for obj in [*baseline(turned=False), *sandbox("a")]:
            await cluster.add({**obj, "metadata": {k: v for k, v in obj["metadata"].items() if k != "ownerReferences"}})
        reading = await read_world(cluster.client, "n")
    assert reading.unseen == []
    assert [rule.reason for rule in rules(reading.world)] == ["Progressing"]


async def test_a_user_of_one_namespace() -> None:
    """Who may list nothing cluster-wide sees their namespace, and what they do not see is named."""
    async with FakeCluster.with_objects(*definitions()) as cluster:
        await cluster.ensure_namespace("n")

        async def refuse(request: Request) -> Response | None:
            return None if "/namespaces/n/" in request.path else Response(403, (), b"{}")

        cluster.transport.intercepts.append(refuse)
        reading = await read_world(cluster.client, "n")
    assert "sandboxes" in reading.unseen
    assert len(reading.world.sandboxes) == 0


async def test_a_cluster_without_sandlane() -> None:
    """Where our kinds are not served, that is the message."""
    async with FakeCluster() as cluster:
        with pytest.raises(NotInstalled, match="not installed"):
            await read_world(cluster.client, "default")
