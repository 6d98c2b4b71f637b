"""Route groups join sandboxes under one key, follow them, say what is contested, and go when their time is over."""

from __future__ import annotations

import pytest

from sandlane.api.labels import ALLOW_ROUTE_GROUPS
from sandlane.kube.errors import Invalid
from sandlane.kube.resource import NAMESPACES, ROUTE_GROUPS, SANDBOXES, Key, Object
from sandlane.testing.clock import ManualClock
from sandlane.testing.events import captured_events
from support.sandboxes import NAMESPACE, Report, Running, deployment, fork, group, running, sandbox, service

BASE = (deployment(), service(), deployment("driver"), service("driver"))


async def status(cluster: Running, name: str = "both") -> Object:
    """The status of a group."""
    found: Object = (await cluster.client.get(ROUTE_GROUPS, name, NAMESPACE)).get("status", {})
    return found


async def test_a_route_group_follows_its_sandboxes() -> None:
    """A group compiles the routes of what it matches, names conflicts, and is woken by sandbox changes."""
    async with running(deployment(), service(), deployment("driver"), service("driver")) as cluster:
        await cluster.client.create(ROUTE_GROUPS, group())
        empty = await cluster.condition("SandboxesReady", "False", "NoMatchedSandboxes", "both", ROUTE_GROUPS)
        assert empty["status"]["unmatchedSince"]
        await cluster.client.create(SANDBOXES, sandbox("one", fork(), labels={"feature": "x1"}))
        await cluster.condition("Ready", "True", "", "both", ROUTE_GROUPS)
        await cluster.client.create(SANDBOXES, sandbox("two", fork(), fork("driver"), labels={"feature": "x2"}))
        conflicted = await cluster.condition("Conflicted", "True", "ConflictingSandboxes", "both", ROUTE_GROUPS)
        assert conflicted["status"]["conflicts"][0]["winner"] == "one"

        async def compiled() -> Object | None:
            found = await cluster.client.get(ROUTE_GROUPS, "both", NAMESPACE)
            return found if found["status"].get("routeCount") == 2 else None

        routes = (await cluster.until(compiled, "two routes"))["status"]["routes"]
        assert [(route["service"], route["sandbox"]) for route in routes] == [("driver", "two"), ("route", "one")]
        assert "unmatchedSince" not in (await cluster.client.get(ROUTE_GROUPS, "both", NAMESPACE))["status"]
        await cluster.ready("one")

        async def named() -> bool:
            return (await cluster.client.get(SANDBOXES, "one", NAMESPACE))["status"].get("routeGroups") == ["both"]

        await cluster.until(named, "the sandbox names its group")
        await cluster.client.delete(SANDBOXES, "one", NAMESPACE)
        await cluster.condition("Conflicted", "False", "", "both", ROUTE_GROUPS)
        await cluster.client.delete(ROUTE_GROUPS, "both", NAMESPACE)
        await cluster.gone(ROUTE_GROUPS, "both")
        events = await captured_events(cluster.client, NAMESPACE)
        assert "RouteGroup/both: Conflict" in events


async def test_an_unmatched_group_expires() -> None:
    """With a TTL from noMatchedSandboxes a group goes when nothing has matched it for so long."""
    clock = ManualClock()
    async with running(clock=clock) as cluster:
        await cluster.cluster.ensure_namespace(NAMESPACE)
        await cluster.client.create(ROUTE_GROUPS, group(ttl={"duration": "1h", "from": "noMatchedSandboxes"}))
        await clock.advance(600)
        await cluster.client.get(ROUTE_GROUPS, "both", NAMESPACE)
        await clock.advance(3100)
        assert (await cluster.client.list(ROUTE_GROUPS, NAMESPACE)).items == []


async def test_a_sandbox_that_is_not_ready_keeps_its_route() -> None:
    """A matched sandbox that fails makes the group not ready, and its last good route stays."""
    async with running(*BASE) as cluster:
        await cluster.client.create(ROUTE_GROUPS, group())
        await cluster.client.create(SANDBOXES, sandbox("one", fork(), labels={"feature": "x1"}))
        ready = await cluster.condition("Ready", "True", "", "both", ROUTE_GROUPS)
        key = Key(NAMESPACE, "one")
        cluster.routes.say("Sandbox", key, Report(False, "ServiceNotRoutable", "Service route is headless"))
        late = await cluster.condition("SandboxesReady", "False", "SandboxesNotReady", "both", ROUTE_GROUPS)
        assert late["status"]["routes"] == ready["status"]["routes"]
        assert late["status"]["routeCount"] == 1
        cluster.routes.say("Sandbox", key, Report())
        await cluster.condition("Ready", "True", "", "both", ROUTE_GROUPS)


async def test_another_namespace_has_to_consent() -> None:
    """Sandboxes elsewhere are matched once their Namespace consents, and no more when it takes that back."""
    async with running(*BASE) as cluster:
        await cluster.cluster.ensure_namespace("maps")
        elsewhere = sandbox("far", fork("tiles"), labels={"feature": "x9"})
        elsewhere["metadata"]["namespace"] = "maps"
        await cluster.client.create(SANDBOXES, elsewhere)
        await cluster.client.create(ROUTE_GROUPS, group(namespaces=[NAMESPACE, "maps"]))
        await cluster.condition("Accepted", "False", "NamespaceNotConsented", "both", ROUTE_GROUPS)

        async def consent(names: str | None) -> None:
            patch = {"metadata": {"annotations": {ALLOW_ROUTE_GROUPS: names}}}
            await cluster.client.patch(NAMESPACES, "maps", patch)

        async def matched() -> bool:
            return (await status(cluster)).get("matchedSandboxes") == [
                {"name": "far", "namespace": "maps", "ready": False}
            ]

        await consent(f"other, {NAMESPACE}")
        await cluster.condition("Accepted", "True", "", "both", ROUTE_GROUPS)
        await cluster.until(matched, "the sandbox elsewhere is matched")
        await consent(None)
        await cluster.condition("Accepted", "False", "NamespaceNotConsented", "both", ROUTE_GROUPS)
        assert "matchedSandboxes" not in await status(cluster)


async def test_a_laptop_is_a_route_of_the_group() -> None:
    """The group's key leads to its sandboxes' local workloads, too."""
    async with running(*BASE) as cluster:
        await cluster.client.create(ROUTE_GROUPS, group())
        local = {"name": "l", "from": {"name": "driver"}, "mappings": [{"port": 8083, "to": "localhost:1"}]}
        await cluster.client.create(SANDBOXES, sandbox("one", fork(), labels={"feature": "x1"}, local=[local]))

        async def both() -> bool:
            routes = (await status(cluster)).get("routes", [])
            return [route["service"] for route in routes] == ["driver", "route"]

        await cluster.until(both, "the laptop's route is told")


async def test_a_label_change_moves_a_sandbox_between_groups() -> None:
    """Groups that match no longer, and those that match now, change at once."""
    async with running(*BASE) as cluster:
        other = group("other")
        other["spec"]["match"] = {"label": {"key": "feature", "value": "y?"}}
        await cluster.client.create(ROUTE_GROUPS, group())
        await cluster.client.create(ROUTE_GROUPS, other)
        await cluster.client.create(SANDBOXES, sandbox("one", fork(), labels={"feature": "x1"}))
        await cluster.condition("Ready", "True", "", "both", ROUTE_GROUPS)
        await cluster.patch(SANDBOXES, "one", {"metadata": {"labels": {"feature": "y1"}}})
        await cluster.condition("Ready", "True", "", "other", ROUTE_GROUPS)
        empty = await cluster.condition("SandboxesReady", "False", "NoMatchedSandboxes", "both", ROUTE_GROUPS)
        assert empty["status"]["unmatchedSince"]
        assert "routes" not in empty["status"]


async def test_routes_go_before_the_group() -> None:
    """A group that is deleted stays until no router serves its routes, and says so."""
    async with running(*BASE) as cluster:
        await cluster.client.create(ROUTE_GROUPS, group())
        await cluster.client.create(SANDBOXES, sandbox("one", fork(), labels={"feature": "x1"}))
        await cluster.condition("Ready", "True", "", "both", ROUTE_GROUPS)
        cluster.routes.say("RouteGroup", Key(NAMESPACE, "both"), Report(served=True, message="router a is behind"))
        await cluster.client.delete(ROUTE_GROUPS, "both", NAMESPACE)

        async def draining() -> bool:
            return (await status(cluster)).get("phase") == "Terminating"

        await cluster.until(draining, "it says that it is going")
        assert "router a is behind" in str((await status(cluster))["conditions"])
        cluster.routes.say("RouteGroup", Key(NAMESPACE, "both"), Report())  # which wakes the group
        await cluster.gone(ROUTE_GROUPS, "both")
        events = await captured_events(cluster.client, NAMESPACE)
        assert {"RouteGroup/both: RoutesProgrammed", "RouteGroup/both: RoutesRemoved"} <= set(events)


async def test_of_two_groups_with_one_key_the_older_has_it() -> None:
    """The younger is refused, with an Event, and takes over when the older is gone."""
    async with running(*BASE) as cluster:
        await cluster.client.create(ROUTE_GROUPS, group("a", routingKey="mine"))
        await cluster.condition("Accepted", "True", "", "a", ROUTE_GROUPS)
        await cluster.client.create(ROUTE_GROUPS, group("b", routingKey="mine"))
        await cluster.condition("Accepted", "False", "RoutingKeyTaken", "b", ROUTE_GROUPS)
        await cluster.client.delete(ROUTE_GROUPS, "a", NAMESPACE)
        await cluster.condition("Accepted", "True", "", "b", ROUTE_GROUPS)
        assert "RouteGroup/b: Refused" in await captured_events(cluster.client, NAMESPACE)


async def test_a_changed_spec_counts_anew_for_last_update() -> None:
    """With a TTL from lastUpdate every change of the spec gives the group its whole time again; an Event comes before the end."""
    clock = ManualClock()
    async with running(clock=clock) as cluster:
        await cluster.cluster.ensure_namespace(NAMESPACE)
        await cluster.client.create(ROUTE_GROUPS, group(ttl={"duration": "1h", "from": "lastUpdate"}))
        await clock.advance(3000)
        await cluster.patch(ROUTE_GROUPS, "both", {"spec": {"description": "still needed"}})
        await clock.advance(3000)
        await cluster.client.get(ROUTE_GROUPS, "both", NAMESPACE)
        await clock.advance(400)
        assert "RouteGroup/both: Expiring" in await captured_events(cluster.client, NAMESPACE)
        await clock.advance(400)
        assert (await cluster.client.list(ROUTE_GROUPS, NAMESPACE)).items == []


@pytest.mark.parametrize(
    "spec",
    [
        {"match": {}},
        {"match": {"label": {"key": "a", "value": "*"}, "any": [{"label": {"key": "a", "value": "*"}}]}},
        {"match": {"label": {"key": "a", "value": "*"}}, "ttl": {"duration": "1y"}},
        {"match": {"label": {"key": "a", "value": "*"}}, "endpoints": [{"name": "Web", "target": "http://x:1"}]},
    ],
)
async def test_the_schema_refuses(spec: Object) -> None:
    """What cannot be is refused without a webhook, by the definition itself."""
    async with running(*BASE) as cluster:
        with pytest.raises(Invalid):
            await cluster.client.create(ROUTE_GROUPS, group() | {"spec": spec})
