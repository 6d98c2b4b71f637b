"""Random worlds and random changes of them, small enough that everything meets everything."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import strategies as st

from sandlane.api.labels import ALLOW_ROUTE_GROUPS, EDGE, MANAGED_BY, MANAGER, ORIGINAL
from sandlane.kube.resource import Key, Object
from sandlane.routing.live import Changed
from sandlane.routing.names import LISTENERS, SHADOW_OF, shadow_name
from sandlane.world.world import KINDS, World, decode

NAMESPACES = ("n", "m")
SERVICES = ("eta", "fare")
SANDBOXES = ("a", "b", "c")
LOCALS = ("l", "k")
_KIND = {resource.kind: (attribute, record) for attribute, (resource, record) in KINDS.items()}

namespace_names = st.sampled_from(NAMESPACES)
service_names = st.sampled_from(SERVICES)
uids = st.sampled_from(("1", "1", "1", "2"))
stamps = st.sampled_from(("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"))
keys = st.sampled_from(("", "key-a", "key-b", "key-c"))


def _meta(draw: Any, name: str, namespace: str, kind: str, **more: Any) -> Object:
    metadata = {"name": name, "namespace": namespace, "uid": f"{kind}-{namespace}-{name}-{draw(uids)}"}
    metadata["creationTimestamp"] = draw(stamps)
    return metadata | more


@st.composite
def services(draw: Any) -> Object:
    """A Service of an application, turned or not."""
    name, namespace = draw(service_names), draw(namespace_names)
    ports: list[dict[str, Any]] = [
        {"name": draw(st.sampled_from(("http", "web", "tcp-x"))), "port": 80, "targetPort": "http"}
    ]
    if draw(st.booleans()):
        ports.append({"name": "dns", "port": 53, "targetPort": 53, "protocol": draw(st.sampled_from(("UDP", "TCP")))})
    spec = {"selector": {"app": draw(service_names)}, "ports": ports}
    spec["sessionAffinity"] = draw(st.sampled_from(("None", "ClientIP")))
    annotations = {EDGE: "strip"} if draw(st.integers(0, 4)) == 0 else {}
    if draw(st.booleans()):
        annotations[ORIGINAL] = json.dumps(spec)
        spec = {**spec, "selector": {"r": "r"}}
    metadata = _meta(draw, name, namespace, "s", annotations=annotations)
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


@st.composite
def shadows(draw: Any) -> Object:
    """The shadow of a Service, which may be another object by now."""
    name, namespace = draw(service_names), draw(namespace_names)
    number = 20_000 + NAMESPACES.index(namespace) * 10 + SERVICES.index(name) * 2
    annotations = {LISTENERS: json.dumps({"80": number, "53": number + 1}), SHADOW_OF: name}
    owner = {"apiVersion": "v1", "kind": "Service", "name": name, "uid": f"s-{namespace}-{name}-{draw(uids)}"}
    owners = {"ownerReferences": [owner | {"controller": True}]}
    metadata = _meta(draw, shadow_name(name), namespace, "x", annotations=annotations, **owners)
    metadata["labels"] = {MANAGED_BY: MANAGER}
    ports = [{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"selector": {"app": name}, "ports": ports},
    }


@st.composite
def fork_services(draw: Any) -> Object:
    """The Service of a fork."""
    name, namespace = f"{draw(service_names)}-{draw(st.sampled_from(SANDBOXES))}", draw(namespace_names)
    owner = {"apiVersion": "sandlane.dev/v1alpha1", "kind": "Sandbox", "name": "x", "uid": "x", "controller": True}
    metadata = _meta(draw, name, namespace, "f", labels={MANAGED_BY: MANAGER}, ownerReferences=[owner])
    spec = {"selector": {"fork": name}, "ports": [{"name": "http", "port": 80}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


@st.composite
def endpoint_slices(draw: Any) -> Object:
    """Some endpoints of some Service."""
    own = [f"{service}-{sandbox}" for service in SERVICES for sandbox in SANDBOXES]
    name, namespace = draw(st.sampled_from([*own, *map(shadow_name, SERVICES)])), draw(namespace_names)
    addresses = draw(st.lists(st.sampled_from(("10.0.0.1", "10.0.0.2", "10.0.0.3")), max_size=3, unique=True))
    ready = draw(st.booleans())
    metadata = _meta(draw, f"{name}-{draw(uids)}", namespace, "e", labels={"kubernetes.io/service-name": name})
    endpoints = [{"addresses": [address], "conditions": {"ready": ready}} for address in addresses]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata,
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8084}, {"name": "dns", "port": 53, "protocol": "UDP"}],
    }


@st.composite
def sandboxes(draw: Any) -> Object:
    """A sandbox, with what its forks have come to."""
    name, namespace = draw(st.sampled_from(SANDBOXES)), draw(namespace_names)
    forked = draw(st.lists(service_names, max_size=2, unique=True))
    forks = [{"forkOf": {"kind": "Deployment", "name": each}} for each in forked]
    status = [
        {
            "baseline": {"kind": "Deployment", "name": each, "uid": "d", "generation": 1},
            "workload": f"{each}-{name}",
            "everReady": draw(st.booleans()) or draw(st.booleans()),
            "services": [{"from": each, "to": f"{each}-{name}", "ports": [{"port": 80, "name": "http"}]}],
        }
        for each in draw(st.lists(service_names, max_size=2, unique=True))
    ]
    metadata = _meta(draw, name, namespace, "b", labels={"team": draw(st.sampled_from(("x", "y")))})
    if draw(st.integers(0, 5)) == 0:
        metadata["deletionTimestamp"] = "2026-01-03T00:00:00Z"
    spec = {"routingKey": draw(keys), "forks": forks, "suspended": draw(st.integers(0, 5)) == 0}
    made = {"apiVersion": "sandlane.dev/v1alpha1", "kind": "Sandbox", "metadata": metadata, "spec": spec}
    return made | {"status": {"forks": status}}


@st.composite
def groups(draw: Any) -> Object:
    """A route group of one or both namespaces."""
    value = draw(st.sampled_from(("x", "y", "*")))
    spec: Object = {"routingKey": draw(keys), "match": {"label": {"key": "team", "value": value}}}
    if draw(st.booleans()):
        spec["namespaces"] = draw(st.lists(namespace_names, max_size=2, unique=True))
    metadata = _meta(draw, draw(st.sampled_from(("g", "h"))), draw(namespace_names), "g")
    if draw(st.integers(0, 5)) == 0:
        metadata["deletionTimestamp"] = "2026-01-03T00:00:00Z"
    return {"apiVersion": "sandlane.dev/v1alpha1", "kind": "RouteGroup", "metadata": metadata, "spec": spec}


@st.composite
def locals_(draw: Any) -> Object:
    """A laptop."""
    name, namespace = draw(st.sampled_from(LOCALS)), draw(namespace_names)
    spec = {
        "sandbox": draw(st.sampled_from(SANDBOXES)),
        "from": {"kind": "Deployment", "name": draw(service_names)},
        "mappings": [{"port": draw(st.sampled_from((8084, 53))), "to": "localhost:1"}],
        "onDisconnect": draw(st.sampled_from(("Fail", "Baseline", "Hold"))),
    }
    metadata = _meta(draw, name, namespace, "l")
    return {"apiVersion": "sandlane.dev/v1alpha1", "kind": "LocalWorkload", "metadata": metadata, "spec": spec}


@st.composite
def deployments(draw: Any) -> Object:
    """A baseline."""
    name = draw(service_names)
    ports = [{"name": "http", "containerPort": draw(st.sampled_from((8084, 8085)))}]
    template = {
        "metadata": {"labels": {"app": draw(service_names)}},
        "spec": {"containers": [{"name": name, "image": "i", "ports": ports}]},
    }
    metadata = _meta(draw, name, draw(namespace_names), "d")
    spec = {"selector": {"matchLabels": {"app": name}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


@st.composite
def namespaces(draw: Any) -> Object:
    """A namespace that lets others match its sandboxes, or not."""
    name, allowed = draw(namespace_names), draw(st.sampled_from(("", "*", "n", "m")))
    annotations = {ALLOW_ROUTE_GROUPS: allowed} if allowed else {}
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "uid": name, "annotations": annotations},
    }


objects = st.one_of(
    services(), shadows(), shadows(), sandboxes(), sandboxes(), groups(), locals_(), deployments(), namespaces(), fork_services(), endpoint_slices()
)  # fmt: skip
held = st.dictionaries(
    st.builds("l-{}-{}-{}".format, namespace_names, st.sampled_from(LOCALS), uids),
    st.just(frozenset({"10.0.0.9"})),
    max_size=3,
)
"""Which laptops are connected."""
changes = st.lists(st.tuples(st.booleans(), objects), max_size=4)
"""Objects that are written, or (True) deleted."""


def _plain(kind: str, name: str, namespace: str, **more: Any) -> Object:
    made = {"name": name, "namespace": namespace, "uid": f"{kind}-{namespace}-{name}-1"}
    return made | {"creationTimestamp": "2026-01-01T00:00:00Z"} | more


def base() -> list[tuple[bool, Object]]:
    """Changes that make a world in which everything is routed: where most histories should begin."""
    made: list[Object] = []
    for number, namespace in enumerate(NAMESPACES):
        for index, name in enumerate(SERVICES):
            port = {"name": "http", "port": 80, "targetPort": "http"}
            spec = {"selector": {"app": name}, "ports": [port, {"name": "dns", "port": 53, "protocol": "UDP"}]}
            made.append({"apiVersion": "v1", "kind": "Service", "metadata": _plain("s", name, namespace), "spec": spec})
            first = 20_000 + number * 10 + index * 2
            owner = {"apiVersion": "v1", "kind": "Service", "name": name, "uid": f"s-{namespace}-{name}-1"}
            shadow = _plain("x", shadow_name(name), namespace, labels={MANAGED_BY: MANAGER})
            shadow["annotations"] = {LISTENERS: json.dumps({"80": first, "53": first + 1}), SHADOW_OF: name}
            shadow["ownerReferences"] = [owner | {"controller": True}]
            made.append({"apiVersion": "v1", "kind": "Service", "metadata": shadow, "spec": spec})
            container = {"name": name, "image": "i", "ports": [{"name": "http", "containerPort": 8084}]}
            template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}}
            workload = {"selector": {"matchLabels": {"app": name}}, "template": template}
            metadata = _plain("d", name, namespace)
            made.append({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": workload})
        match = {"label": {"key": "team", "value": "x"}}
        group = {"routingKey": f"key-g{namespace}", "match": match, "namespaces": list(NAMESPACES)}
        kind = {"apiVersion": "sandlane.dev/v1alpha1"}
        made.append(kind | {"kind": "RouteGroup", "metadata": _plain("g", "g", namespace), "spec": group})
        for name in SANDBOXES:
            forks = [{"forkOf": {"kind": "Deployment", "name": "eta"}}]
            fork = {
                "baseline": {"kind": "Deployment", "name": "eta", "uid": "d", "generation": 1},
                "workload": f"eta-{name}",
                "everReady": True,
                "services": [{"from": "eta", "to": f"eta-{name}", "ports": [{"port": 80, "name": "http"}]}],
            }
            metadata = _plain("b", name, namespace, labels={"team": "x"})
            sandbox = {"routingKey": f"key-{name}" if namespace == "n" else "", "forks": forks}
            made.append(kind | {"kind": "Sandbox", "metadata": metadata, "spec": sandbox, "status": {"forks": [fork]}})
        for count, name in enumerate(SANDBOXES):  # no endpoint, one, two
            own = f"eta-{name}"
            fork_owner = {**kind, "kind": "Sandbox", "name": name, "uid": "x", "controller": True}
            metadata = _plain("f", own, namespace, labels={MANAGED_BY: MANAGER}, ownerReferences=[fork_owner])
            spec = {"selector": {"fork": own}, "ports": [{"name": "http", "port": 80}]}
            made.append({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
            endpoints = [{"addresses": [f"10.0.0.{each + 1}"], "conditions": {"ready": True}} for each in range(count)]
            found = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4"}
            metadata = _plain("e", f"{own}-1", namespace, labels={"kubernetes.io/service-name": own})
            made.append(
                found | {"metadata": metadata, "endpoints": endpoints, "ports": [{"name": "http", "port": 8084}]}
            )
        local = {"sandbox": "b", "from": {"kind": "Deployment", "name": "fare"}}
        local |= {"mappings": [{"port": 8084, "to": "localhost:1"}], "onDisconnect": "Fail"}
        made.append(kind | {"kind": "LocalWorkload", "metadata": _plain("l", "l", namespace), "spec": local})
    return [(False, obj) for obj in made]


def apply(world: World, some: list[tuple[bool, Object]]) -> list[Changed]:
    """Make changes in a world; gives what changed."""
    made = []
    for delete, obj in some:
        attribute, record_type = _KIND[obj["kind"]]
        store = getattr(world, attribute)
        key = Key(obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        if delete:
            store.remove(key)
        else:
            store.set(decode(record_type, msgspec.json.encode(obj)))
        made.append(Changed(attribute, key))
    return made
