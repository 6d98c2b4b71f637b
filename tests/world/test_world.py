"""Lookups of the world."""

from __future__ import annotations

from typing import Any

from sandlane.kube.resource import Key, Object
from sandlane.world.records import Deployment, Service
from sandlane.world.world import World, original, ours


def service(name: str, selector: dict[str, str] | None, **metadata: Any) -> Object:
    """A Service."""
    spec: Object = {"ports": [{"port": 80}]}
    if selector is not None:
        spec["selector"] = selector
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "n"} | metadata,
        "spec": spec,
    }


def test_services_that_select_pods() -> None:
    """By the whole selector, in order of name; Services of our own and without selector do not count."""
    owner = {"apiVersion": "v1", "kind": "Service", "name": "b", "uid": "u", "controller": True}
    shadow = service("shadow", {"a": "1"}, labels={"app.kubernetes.io/managed-by": "sandlane"}, ownerReferences=[owner])
    objects = [
        service("c", {"a": "1"}),
        service("b", {"a": "1", "b": "2"}),
        service("d", {"a": "2"}),
        service("e", None),
    ]
    world = World.of([*objects, shadow])
    found = world.services_selecting("n", {"a": "1", "b": "2", "c": "3"})
    assert [each.metadata.name for each in found] == ["b", "c"]
    assert world.services_selecting("other", {"a": "1"}) == []
    held = world.services.get(Key("n", "shadow"))
    assert held is not None
    assert ours(held)


def test_a_turned_service_is_seen_as_its_owner_wrote_it() -> None:
    """The saved fields go over the present ones; what somebody has broken is taken as it is."""
    saved = '{"selector":{"a":"1"},"ports":[{"port":80,"targetPort":"web"}]}'
    turned = service("b", {"router": "1"}, annotations={"sandlane.dev/original": saved})
    world = World.of([turned])
    found = world.services_selecting("n", {"a": "1"})
    assert [port.target for port in found[0].spec.ports] == ["web"]
    broken = World.of([service("b", {"router": "1"}, annotations={"sandlane.dev/original": "{"})])
    held = broken.services.get(Key("n", "b"))
    assert held is not None
    assert original(held).spec.selector == {"router": "1"}


def test_records_keep_the_whole_object_without_managed_fields() -> None:
    """A copy can be made from a record, and changing that copy changes nothing."""
    data = b'{"metadata":{"name":"a","managedFields":[{}]},"spec":{"template":{"x":1}}}'
    record = Deployment.from_bytes(data)
    whole = record.object()
    assert whole == {"metadata": {"name": "a"}, "spec": {"template": {"x": 1}}}
    whole["spec"] = {}
    assert record.object()["spec"] == {"template": {"x": 1}}
    assert Service.from_bytes(b'{"metadata":{"name":"a"},"spec":{"clusterIP":"None"}}').headless


def test_who_has_a_routing_key() -> None:
    """The oldest of all that claim a key, whatever the kind."""

    def claim(kind: str, name: str, created: str, **spec: Any) -> Object:
        metadata = {"name": name, "namespace": "n", "uid": name, "creationTimestamp": created}
        body = {"routingKey": "k"} | spec
        return {"apiVersion": "sandlane.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": body}

    match = {"match": {"label": {"key": "a", "value": "*"}}}
    objects = [
        claim("Sandbox", "young", "2026-01-02T00:00:00Z"),
        claim("RouteGroup", "old", "2026-01-01T00:00:00Z", **match),
    ]
    assert [each.metadata.name for each in World.of(objects).with_key("k")] == ["old", "young"]
