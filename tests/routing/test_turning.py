"""Turning a Service to the router, back, and right again after somebody wrote it."""

from __future__ import annotations

import json
from typing import Any

from sandlane.api.labels import ORIGINAL
from sandlane.kube.patch.json_patch import json_patch
from sandlane.routing.resources import ROUTER_SELECTOR, allocate
from sandlane.routing.turning import is_right, is_turned, turn, turn_back
from sandlane.world.records import Service
from sandlane.world.world import decode

LISTENERS = {80: 20000, 9090: 20001}


def service() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "s", "namespace": "n", "uid": "u", "resourceVersion": "7"},
        "spec": {
            "clusterIP": "10.0.0.1",
            "selector": {"app": "s"},
            "ports": [
                {"name": "http", "port": 80, "protocol": "TCP", "targetPort": "http", "nodePort": 30001},
                {"name": "metrics", "port": 9090, "protocol": "TCP", "targetPort": 9090, "appProtocol": "http"},
            ],
        },
    }


def record(obj: dict[str, Any]) -> Service:
    return decode(Service, json.dumps(obj).encode())


def turned() -> dict[str, Any]:
    return json_patch(service(), turn(service(), LISTENERS))


def test_turned_and_back_is_as_before() -> None:
    """A Service that was turned and turned back is exactly as its owner wrote it."""
    there = turned()
    assert is_turned(record(there))
    assert is_right(record(there), LISTENERS)
    assert there["spec"]["selector"] == ROUTER_SELECTOR
    assert [port["targetPort"] for port in there["spec"]["ports"]] == [20000, 20001]
    assert there["spec"]["ports"][0]["nodePort"] == 30001
    back = json_patch(there, turn_back(there, LISTENERS))
    back["metadata"].pop("annotations")
    assert back == service()


def test_kubectl_apply_of_the_unchanged_manifest_is_put_right() -> None:
    """The union of both selectors and the owner's targetPorts, which kubectl leaves, become the router's again."""
    written = turned()
    written["spec"]["selector"] = {"app": "s", **ROUTER_SELECTOR}
    written["spec"]["ports"][0]["targetPort"] = "http"
    written["spec"]["ports"][1]["targetPort"] = 9090
    assert not is_right(record(written), LISTENERS)
    again = json_patch(written, turn(written, LISTENERS))
    assert again["spec"] == turned()["spec"]
    assert json.loads(again["metadata"]["annotations"][ORIGINAL]) == json.loads(
        turned()["metadata"]["annotations"][ORIGINAL]
    )


def test_what_the_owner_changes_meanwhile_is_kept() -> None:
    """A new selector and a new targetPort are in force after the Service is turned back."""
    written = turned()
    written["spec"]["selector"] = {"app": "s2", **ROUTER_SELECTOR}
    written["spec"]["ports"][0]["targetPort"] = "web"
    again = json_patch(written, turn(written, LISTENERS))
    assert is_right(record(again), LISTENERS)
    back = json_patch(again, turn_back(again, LISTENERS))
    assert back["spec"]["selector"] == {"app": "s2"}
    assert [port["targetPort"] for port in back["spec"]["ports"]] == ["web", 9090]


def test_router_ports_are_remembered_and_never_shared() -> None:
    """A port keeps its number; new ones get the lowest that nobody has."""
    assert allocate([80, 81], {80: 20005}, {20000, 20002}) == {80: 20005, 81: 20001}
