"""The EndpointSlice plan: who is an endpoint, in which slice, with which ports and conditions."""

from __future__ import annotations

from typing import Any

from sandlane.local.controllers.endpointslice.plan import MOST, SERVICE_NAME, Plan, make_plan


def service(*ports: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """A Service named `app`."""
    return {
        "metadata": {"name": "app", "namespace": "rides", "uid": "uid-app", "labels": {"team": "eta"}},
        "spec": {"selector": {"app": "app"}, "clusterIP": "127.20.1.1", "ports": list(ports), **spec},
    }


HTTP = {"name": "http", "port": 80, "targetPort": "web"}


def carry_out(slices: list[dict[str, Any]], plan: Plan) -> list[dict[str, Any]]:
    """The slices after a plan, as the server would keep them."""
    by_name = {s["metadata"]["name"]: s for s in slices}
    for made in (*plan.create, *plan.replace):
        by_name[made["metadata"]["name"]] = {**made, "metadata": {**made["metadata"], "resourceVersion": "1"}}
    for gone in plan.delete:
        del by_name[gone["metadata"]["name"]]
    return list(by_name.values())


def settled(svc: dict[str, Any], pods: list[dict[str, Any]], slices: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The slices after a plan, which a second plan must leave alone."""
    after = carry_out(slices, make_plan(svc, pods, slices))
    assert make_plan(svc, pods, after) == Plan()
    return after


def test_named_ports_resolve_per_pod(make: Any) -> None:
    """Pods whose named port has different numbers are in different slices."""
    pods = [
        make.pod("a", "127.20.64.1", ports=({"name": "web", "containerPort": 8080},)),
        make.pod("b", "127.20.64.2", ports=({"name": "web", "containerPort": 9090},)),
    ]
    slices = settled(service(HTTP), pods, [])
    assert sorted((s["ports"][0]["port"], s["endpoints"][0]["addresses"][0]) for s in slices) == [
        (8080, "127.20.64.1"),
        (9090, "127.20.64.2"),
    ]
    assert all(
        s["metadata"]["labels"] | {"team": "eta", SERVICE_NAME: "app"} == s["metadata"]["labels"] for s in slices
    )


def test_conditions(make: Any) -> None:
    """Ready, serving and terminating follow the Pod; publishNotReadyAddresses makes every Pod ready."""
    pods = [
        make.pod("good", "127.20.64.1"),
        make.pod("sick", "127.20.64.2", ready=False),
        make.pod("dying", "127.20.64.3", deleting=True),
        make.pod("ended", "127.20.64.4", phase="Succeeded"),
        make.pod("without-address"),
        make.pod("other", "127.20.64.5", labels={"app": "b"}),
    ]
    (only,) = settled(service({"port": 80}), pods, [])
    seen = {e["targetRef"]["name"]: tuple(e["conditions"].values()) for e in only["endpoints"]}
    assert seen == {"good": (True, True, False), "sick": (False, False, False), "dying": (False, True, True)}
    (only,) = settled(service({"port": 80}, publishNotReadyAddresses=True), pods, [])
    assert all(e["conditions"]["ready"] for e in only["endpoints"])


def test_many_endpoints_fill_several_slices(make: Any) -> None:
    """A slice holds at most 100; when endpoints go, those that stay do not move."""
    pods = [make.pod(f"p{i}", f"127.20.64.{i % 250}") for i in range(2 * MOST + 1)]
    slices = settled(service({"port": 80}), pods, [])
    assert sorted(len(s["endpoints"]) for s in slices) == [1, MOST, MOST]
    place = {e["targetRef"]["name"]: s["metadata"]["name"] for s in slices for e in s["endpoints"]}
    fewer = settled(service({"port": 80}), pods[::2], slices)
    assert all(place[e["targetRef"]["name"]] == s["metadata"]["name"] for s in fewer for e in s["endpoints"])


def test_a_service_without_pods_keeps_one_empty_slice(make: Any) -> None:
    """The slice stays the same object when the last Pod goes and when one comes back."""
    pods = [make.pod("a", "127.20.64.1")]
    before = settled(service({"port": 80}), pods, [])
    empty = settled(service({"port": 80}), [], before)
    assert [s["endpoints"] for s in empty] == [[]]
    again = settled(service({"port": 80}), pods, empty)
    assert [s["metadata"]["name"] for s in again] == [s["metadata"]["name"] for s in before]
