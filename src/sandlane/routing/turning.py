"""How a Service is turned to the router, turned back, and put right when somebody writes it meanwhile. Pure.

Turned means: its selector is the router's label, each port's targetPort is the router's port for it, and what its owner wrote is saved in
the annotation `sandlane.dev/original`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sandlane.api.labels import ORIGINAL
from sandlane.kube.resource import Object
from sandlane.routing.names import FIRST_LISTENER, LAST_LISTENER
from sandlane.routing.resources import ROUTER_SELECTOR
from sandlane.world.records import Service

Patch = list[dict[str, Any]]
_ANNOTATION = "/metadata/annotations/" + ORIGINAL.replace("/", "~1")


def is_turned(service: Service) -> bool:
    """Whether a Service is turned (or was, and somebody wrote it)."""
    return ORIGINAL in service.metadata.annotations


def is_right(service: Service, listeners: Mapping[int, int]) -> bool:
    """Whether a turned Service is as it should be."""
    if dict(service.spec.selector or {}) != ROUTER_SELECTOR:
        return False
    return all(port.target_port == listeners.get(port.port) for port in service.spec.ports)


def owners_wish(obj: Object, listeners: Mapping[int, int]) -> Object:
    """What the owner of a turned Service wants now: what was saved, with what somebody has written since over it.

    `kubectl apply` of an unchanged manifest leaves the union of both selectors, and the owner's targetPorts.
    """
    saved: Object = json.loads(obj["metadata"]["annotations"][ORIGINAL])
    spec = obj["spec"]
    written = {key: value for key, value in (spec.get("selector") or {}).items() if ROUTER_SELECTOR.get(key) != value}
    before = {(port["port"], port.get("protocol", "TCP")): port for port in saved["ports"]}
    ports = []
    for port in spec.get("ports") or ():
        known = before.get((port["port"], port.get("protocol", "TCP")))
        if known is not None and _is_ours(port, listeners):
            port = {**port, "targetPort": known.get("targetPort", port["port"])}
        ports.append(port)
    return {"selector": written or saved["selector"], "ports": ports}


def _is_ours(port: Mapping[str, Any], listeners: Mapping[int, int]) -> bool:
    """Whether a targetPort is the router's: as remembered, or by its number where that is forgotten."""
    target, remembered = port.get("targetPort"), listeners.get(port["port"])
    if remembered is None:
        return isinstance(target, int) and FIRST_LISTENER <= target <= LAST_LISTENER
    return target == remembered


def turn(obj: Object, listeners: Mapping[int, int]) -> Patch:
    """The JSON patch that turns a Service, or puts a turned one right."""
    metadata = obj["metadata"]
    if ORIGINAL in (metadata.get("annotations") or {}):
        wish = owners_wish(obj, listeners)
    else:
        wish = {"selector": obj["spec"].get("selector") or {}, "ports": obj["spec"]["ports"]}
    saved = json.dumps(wish, separators=(",", ":"))
    ports = [{**port, "targetPort": listeners[port["port"]]} for port in wish["ports"]]
    patch = _fence(obj)
    if not metadata.get("annotations"):
        patch.append({"op": "add", "path": "/metadata/annotations", "value": {ORIGINAL: saved}})
    else:
        patch.append({"op": "add", "path": _ANNOTATION, "value": saved})
    patch.append({"op": "add", "path": "/spec/selector", "value": dict(ROUTER_SELECTOR)})
    patch.append({"op": "replace", "path": "/spec/ports", "value": ports})
    return patch


def turn_back(obj: Object, listeners: Mapping[int, int]) -> Patch:
    """The JSON patch that gives a turned Service back to its owner, exactly as they want it."""
    wish = owners_wish(obj, listeners)
    return [
        *_fence(obj),
        {"op": "replace", "path": "/spec/selector", "value": wish["selector"]},
        {"op": "replace", "path": "/spec/ports", "value": wish["ports"]},
        {"op": "remove", "path": _ANNOTATION},
    ]


def _fence(obj: Object) -> Patch:
    """The patch applies only to the object that it was computed from."""
    return [{"op": "test", "path": "/metadata/resourceVersion", "value": obj["metadata"]["resourceVersion"]}]
