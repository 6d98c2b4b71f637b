"""Updates of turned Services are rewritten before anybody sees them."""

from __future__ import annotations

import json
from typing import Any

from sandlane.admission.services import keep_turned
from sandlane.api.labels import ORIGINAL
from sandlane.routing.resources import ROUTER_SELECTOR

SAVED = {"selector": {"app": "s"}, "ports": [{"port": 80, "protocol": "TCP", "targetPort": "http"}]}


def turned() -> dict[str, Any]:
    return {
        "metadata": {"name": "s", "annotations": {ORIGINAL: json.dumps(SAVED)}},
        "spec": {"selector": dict(ROUTER_SELECTOR), "ports": [{"port": 80, "protocol": "TCP", "targetPort": 20000}]},
    }


def test_the_unchanged_manifest_changes_nothing() -> None:
    """kubectl's union of selectors and its targetPort become what they were."""
    written = turned()
    written["spec"]["selector"]["app"] = "s"
    written["spec"]["ports"][0]["targetPort"] = "http"
    kept = keep_turned(written, turned())
    assert kept is not None
    assert kept["spec"] == turned()["spec"]
    assert json.loads(kept["metadata"]["annotations"][ORIGINAL]) == SAVED


def test_a_change_goes_into_the_original() -> None:
    """A new targetPort is saved, and the Service stays turned."""
    written = turned()
    written["spec"]["ports"][0]["targetPort"] = "web"
    kept = keep_turned(written, turned())
    assert kept is not None
    assert kept["spec"] == turned()["spec"]
    assert json.loads(kept["metadata"]["annotations"][ORIGINAL])["ports"][0]["targetPort"] == "web"


def test_turning_and_turning_back_pass() -> None:
    """The steps of the routing controller itself are not touched, nor is a label."""
    plain = {"metadata": {"name": "s"}, "spec": {"selector": {"app": "s"}, "ports": SAVED["ports"]}}
    assert keep_turned(turned(), plain) is None
    assert keep_turned(plain, turned()) is None
    assert keep_turned(turned(), turned()) is None
