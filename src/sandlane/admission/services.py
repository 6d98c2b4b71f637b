"""Updates of turned Services: what their owner writes goes into the saved original, never into what routes. Pure.

`kubectl apply` of an unchanged manifest would leave the union of both selectors, which selects nothing, until the watch repairs
it; here the update is rewritten before anybody sees it.
"""

from __future__ import annotations

import json
from typing import Any

from sandlane.api.labels import ORIGINAL
from sandlane.kube.resource import Object
from sandlane.routing.resources import ROUTER_SELECTOR
from sandlane.routing.turning import owners_wish


def keep_turned(new: Object, old: Object) -> Object | None:
    """The update with the Service still turned, or None when there is nothing to change.

    A Service that was not turned, or is being given back (its annotation goes), is left alone.
    """
    saved = (old["metadata"].get("annotations") or {}).get(ORIGINAL)
    if saved is None or ORIGINAL not in (new["metadata"].get("annotations") or {}):
        return None
    if old["spec"].get("selector") != ROUTER_SELECTOR:
        return None
    listeners: dict[int, Any] = {port["port"]: port.get("targetPort") for port in old["spec"].get("ports") or ()}
    wish = owners_wish(new, listeners)
    ports = [{**port, "targetPort": listeners.get(port["port"], port.get("targetPort"))} for port in wish["ports"]]
    spec = {**new["spec"], "selector": dict(ROUTER_SELECTOR), "ports": ports}
    if spec == new["spec"]:
        return None
    annotations = {**new["metadata"]["annotations"], ORIGINAL: json.dumps(wish, separators=(",", ":"))}
    return {**new, "metadata": {**new["metadata"], "annotations": annotations}, "spec": spec}
