"""The EndpointSlices that a Service should have, given its Pods: a pure function.

IPv4 only, as the local cluster is. Pods on which the Service's named target ports resolve to different numbers go to
different slices; a slice holds at most 100 endpoints, and an endpoint stays in the slice where it is.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sandlane.kube.resource import SERVICES, Object
from sandlane.local.controllers.objects import controller_reference, deleting, is_ready, labels_of

SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
MANAGER = "endpointslice-controller.k8s.io"
HEADLESS = "service.kubernetes.io/headless"
MOST = 100

Ports = tuple[tuple[str, str, int, str], ...]  # (name, protocol, number, appProtocol), sorted


@dataclass(frozen=True)
class Plan:
    """Slices to create, to replace (whole objects that carry their resourceVersion), and to delete."""

    create: tuple[Object, ...] = ()
    replace: tuple[Object, ...] = ()
    delete: tuple[Object, ...] = ()


def selects_pods(service: Object) -> bool:
    """Whether the Service's slices are made here: it has a selector and is not an alias."""
    spec = service["spec"]
    return bool(spec.get("selector")) and spec.get("type") != "ExternalName"


def is_ours(slice_: Object) -> bool:
    """Whether an EndpointSlice was made by this controller."""
    return labels_of(slice_).get(MANAGED_BY) == MANAGER


def make_plan(service: Object, pods: Sequence[Object], slices: Sequence[Object]) -> Plan:
    """Bring our slices of a Service to what its Pods are. `pods` and `slices` are of its namespace."""
    wanted: dict[Ports, dict[str, Object]] = defaultdict(dict)
    selector: Mapping[str, str] = service["spec"]["selector"]
    for pod in pods:
        if selector.items() <= labels_of(pod).items() and _is_endpoint(pod):
            wanted[_ports(service, pod)][pod["metadata"]["uid"]] = _endpoint(service, pod)
    mine = [s for s in slices if is_ours(s) and labels_of(s).get(SERVICE_NAME) == service["metadata"]["name"]]
    if not wanted:  # one empty slice says that the Service is known and has nobody
        wanted[_ports_of(mine[0]) if mine else ()] = {}
    create: list[Object] = []
    replace: list[Object] = []
    taken: set[str] = set()
    for ports, endpoints in wanted.items():
        existing = sorted((s for s in mine if _ports_of(s) == ports), key=lambda s: s["metadata"]["name"])
        filled = _fill(endpoints, existing)
        for slice_, content in zip(existing, filled, strict=False):
            if not content and len(filled) > 1:
                continue
            taken.add(slice_["metadata"]["name"])
            new = _make(service, slice_["metadata"]["name"], ports, content)
            if not _same(slice_, new):
                new["metadata"]["resourceVersion"] = slice_["metadata"]["resourceVersion"]
                replace.append(new)
        for index, content in enumerate(filled[len(existing) :], len(existing)):
            name = _name(service, ports, index, {s["metadata"]["name"] for s in mine} | taken)
            taken.add(name)
            create.append(_make(service, name, ports, content))
    delete = tuple(s for s in mine if s["metadata"]["name"] not in taken)
    return Plan(tuple(create), tuple(replace), delete)


def _fill(endpoints: Mapping[str, Object], existing: Sequence[Object]) -> list[list[Object]]:
    """Endpoints by slice: those already placed stay, new ones take free places, the rest opens further slices."""
    left = dict(endpoints)
    filled: list[list[Object]] = []
    for slice_ in existing:
        uids = [(e.get("targetRef") or {}).get("uid", "") for e in slice_.get("endpoints") or ()]
        filled.append([left.pop(uid) for uid in uids if uid in left])
    rest = [left[uid] for uid in sorted(left)]
    for content in filled:
        while rest and len(content) < MOST:
            content.append(rest.pop(0))
    filled += [rest[start : start + MOST] for start in range(0, len(rest), MOST)]
    return filled or [[]]


def _is_endpoint(pod: Object) -> bool:
    status = pod.get("status") or {}
    return bool(status.get("podIP")) and status.get("phase") not in ("Succeeded", "Failed")


def _endpoint(service: Object, pod: Object) -> Object:
    ready, going = is_ready(pod), deleting(pod)
    always = bool(service["spec"].get("publishNotReadyAddresses"))
    endpoint: Object = {
        "addresses": [pod["status"]["podIP"]],
        "conditions": {"ready": always or (ready and not going), "serving": ready, "terminating": going},
        "targetRef": {
            "kind": "Pod",
            "namespace": pod["metadata"]["namespace"],
            "name": pod["metadata"]["name"],
            "uid": pod["metadata"]["uid"],
        },
    }
    if node := pod["spec"].get("nodeName"):
        endpoint["nodeName"] = node
    hostname, subdomain = pod["spec"].get("hostname"), pod["spec"].get("subdomain")
    if hostname and subdomain == service["metadata"]["name"]:
        endpoint["hostname"] = hostname
    return endpoint


def _ports(service: Object, pod: Object) -> Ports:
    found = []
    for port in service["spec"].get("ports") or ():
        protocol = port.get("protocol", "TCP")
        number = _resolve(port.get("targetPort", port["port"]), port["port"], protocol, pod)
        if number:
            found.append((port.get("name", ""), protocol, number, port.get("appProtocol", "")))
    return tuple(sorted(found))


def _resolve(target: int | str, port: int, protocol: str, pod: Object) -> int | None:
    if isinstance(target, int):
        return target or port
    sidecars = [c for c in pod["spec"].get("initContainers") or () if c.get("restartPolicy") == "Always"]
    for container in [*pod["spec"]["containers"], *sidecars]:
        for offered in container.get("ports") or ():
            if offered.get("name") == target and offered.get("protocol", "TCP") == protocol:
                return int(offered["containerPort"])
    return None


def _ports_of(slice_: Object) -> Ports:
    return tuple(
        sorted(
            (p.get("name") or "", p.get("protocol", "TCP"), p["port"], p.get("appProtocol") or "")
            for p in slice_.get("ports") or ()
        )
    )


def _name(service: Object, ports: Ports, index: int, taken: set[str]) -> str:
    attempt = 0
    while True:
        text = json.dumps([service["metadata"]["uid"], ports, index, attempt])
        name = f"{service['metadata']['name'][:55]}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"
        if name not in taken:
            return name
        attempt += 1


def _make(service: Object, name: str, ports: Ports, endpoints: Sequence[Object]) -> Object:
    labels = {SERVICE_NAME: service["metadata"]["name"], MANAGED_BY: MANAGER}
    inherited = {k: v for k, v in labels_of(service).items() if k not in (HEADLESS, SERVICE_NAME, MANAGED_BY)}
    if service["spec"].get("clusterIP") == "None":
        labels[HEADLESS] = ""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": service["metadata"]["namespace"],
            "labels": {**inherited, **labels},
            "ownerReferences": [controller_reference(service, SERVICES)],
        },
        "addressType": "IPv4",
        "endpoints": list(endpoints),
        "ports": [
            {"name": name_, "protocol": protocol, "port": number, **({"appProtocol": app} if app else {})}
            for name_, protocol, number, app in ports
        ],
    }


def _same(old: Object, new: Object) -> bool:
    return (
        labels_of(old) == labels_of(new)
        and (old.get("endpoints") or []) == new["endpoints"]
        and _ports_of(old) == _ports_of(new)
        and old["metadata"].get("ownerReferences") == new["metadata"]["ownerReferences"]
    )
