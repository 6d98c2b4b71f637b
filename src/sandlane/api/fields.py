"""What the CRDs say about each field beyond its type: description, pattern, limits, list keys.

`crd.py` walks the types and asks here; every field must be here, and nothing else may be.
"""

from __future__ import annotations

from typing import Any

from sandlane.api import types as t

Facts = dict[str, Any]

DNS_LABEL = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
DNS_SUBDOMAIN = r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$"
ROUTING_KEY = r"^([a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?)?$"
ENDPOINT_NAME = r"^[a-z]([-a-z0-9]{0,18}[a-z0-9])?$"
ENDPOINT_TARGET = r"^http://[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)?:[0-9]{1,5}$"
DURATION = r"^[1-9][0-9]{0,4}[mhdw]$"
LOCAL_ADDRESS = r"^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9]([-A-Za-z0-9._]*[A-Za-z0-9])?):[0-9]{1,5}$"
ENV_NAME = r"^[^=]+$"
LABEL_KEY = r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"

PORT: Facts = {"minimum": 1, "maximum": 65535}
TIME: Facts = {"format": "date-time"}
UNTYPED: Facts = {"type": None, "x-kubernetes-preserve-unknown-fields": True}
NAME: Facts = {"minLength": 1, "maxLength": 253, "pattern": DNS_SUBDOMAIN}
CONTAINER: Facts = {"maxLength": 63}
QUANTITIES: Facts = {
    "additionalProperties": {
        "x-kubernetes-int-or-string": True,
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "pattern": r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$",
    },
}
KEY_REFERENCE: Facts = {
    "type": "object",
    "required": ["name", "key"],
    "properties": {
        "name": {"type": "string", "description": "Name of the object.", "minLength": 1, "maxLength": 253},
        "key": {"type": "string", "description": "Which of its keys.", "minLength": 1, "maxLength": 253},
        "optional": {"type": "boolean", "description": "Whether it may be missing."},
    },
    "x-kubernetes-map-type": "atomic",
}


def by(*keys: str, limit: int) -> Facts:
    """A list whose items are told apart by these fields."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys), "maxItems": limit}


def atomic(limit: int | None = None) -> Facts:
    """A list that is owned whole."""
    return {"x-kubernetes-list-type": "atomic"} | ({"maxItems": limit} if limit else {})


def says(text: str, *facts: Facts, **more: Any) -> Facts:
    """The facts of a field, its description first."""
    merged: Facts = {"description": text}
    for each in facts:
        merged |= each
    return merged | more


FIELDS: dict[type, dict[str, Facts]] = {
    t.Condition: {
        "type": says("What the condition is about.", maxLength=316),
        "status": says("True, False or Unknown.", enum=["True", "False", "Unknown"]),
        "reason": says("A stable word for the cause.", maxLength=1024, minLength=1),
        "message": says("The cause and the next step, for people.", maxLength=32768),
        "lastTransitionTime": says("When the status last changed.", TIME),
        "observedGeneration": says("The generation of the spec that this was said about.", format="int64", minimum=0),
    },
    t.Endpoint: {
        "name": says(
            "Part of the host name under which the preview gateway serves it, `<name>--<routing key>`.",
            {"pattern": ENDPOINT_NAME, "maxLength": 20},
        ),
        "target": says("Where requests go: `http://SERVICE[.NAMESPACE]:PORT`.", pattern=ENDPOINT_TARGET, maxLength=200),
    },
    t.EndpointStatus: {
        "name": says("The endpoint."),
        "url": says("Where it can be reached."),
        "message": says("Why it is not served."),
    },
    t.Ttl: {
        "duration": says("How long: a whole number of minutes, hours, days or weeks, such as `2d`.", pattern=DURATION),
        "from": says("Since when it is counted."),
    },
    t.WorkloadReference: {
        "apiGroup": says("API group of the workload.", enum=["apps"]),
        "kind": says("Kind of the workload.", enum=["Deployment"]),
        "name": says("Name of the workload.", NAME),
        "namespace": says("Reserved: only the object's own namespace is accepted.", maxLength=63),
    },
    t.PortMapping: {
        "port": says("The port of the baseline's CONTAINER that is replaced.", PORT),
        "to": says("Where it goes on the laptop: `HOST:PORT`.", pattern=LOCAL_ADDRESS, maxLength=259),
        "allConnections": says(
            "For a port of plain TCP, whose connections carry no routing key: take all of them, of everybody."
        ),
    },
    t.ImageOverride: {
        "container": says("Which container, init containers included; may be left out when there is one.", CONTAINER),
        "image": says("The image to run.", minLength=1, maxLength=1024),
    },
    t.ForkValue: {
        "forkOf": says("Which fork of this sandbox, by its baseline."),
        "service": says("Which of the baseline's Services; may be left out when there is one.", maxLength=63),
        "port": says(
            "Port of the Service, by name or number; may be left out when there is one.", {"intOrString": True}
        ),
        "field": says("What of it.", enum=["host", "port", "address"]),
    },
    t.EnvSource: {
        "secretKeyRef": says("A key of a Secret in this namespace.", KEY_REFERENCE),
        "configMapKeyRef": says("A key of a ConfigMap in this namespace.", KEY_REFERENCE),
        "fieldRef": says(
            "A field of the Pod.",
            {
                "type": "object",
                "required": ["fieldPath"],
                "properties": {
                    "fieldPath": {"type": "string", "description": "Path of the field.", "minLength": 1},
                    "apiVersion": {"type": "string", "description": "Version of the path's schema."},
                },
                "x-kubernetes-map-type": "atomic",
            },
        ),
        "fork": says("Where another fork of this sandbox answers."),
    },
    t.EnvOverride: {
        "name": says("Name of the variable.", pattern=ENV_NAME, maxLength=253),
        "value": says("Its value.", maxLength=32768),
        "valueFrom": says("Where its value comes from, instead of `value`."),
        "container": says("Which container; left out: all of them.", CONTAINER),
        "operation": says("`upsert` sets the variable, `delete` removes it.", enum=["upsert", "delete"]),
    },
    t.Patch: {
        "type": says("How `value` is applied.", enum=["strategic", "merge", "json"]),
        "value": says("An object (strategic, merge) or a list of operations (json).", UNTYPED),
    },
    t.Customizations: {
        "images": says("Containers that run another image.", atomic(50)),
        "env": says("Environment variables set or removed.", atomic(200)),
        "patch": says("A patch of the fork's whole Deployment, applied after images and env."),
        "replicas": says(
            "How many Pods; the baseline's number does not matter.", format="int32", minimum=0, maximum=100
        ),
    },
    t.Fork: {
        "forkOf": says("The workload that is copied. It is never changed itself."),
        "customizations": says("How the copy differs, applied in the order images, env, patch, replicas."),
        "resources": says(
            "Requests and limits for every container that sets none.",
            {
                "type": "object",
                "additionalProperties": None,
                "properties": {
                    "limits": {"type": "object", "description": "Limits by resource."} | QUANTITIES,
                    "requests": {"type": "object", "description": "Requests by resource."} | QUANTITIES,
                },
            },
        ),
        "preservedLabels": says(
            "RE2 patterns: labels of the baseline's Pods whose keys match one of them are kept.",
            atomic(50),
            items={"type": "string", "minLength": 1, "maxLength": 256},
        ),
    },
    t.Local: {
        "name": says("Name of the LocalWorkload that is made.", {"pattern": DNS_LABEL, "maxLength": 63}),
        "from": says("The workload that a process on a laptop stands in for."),
        "mappings": says("Which ports go where on the laptop.", by("port", limit=50), minItems=1),
        "onDisconnect": says("What callers get while no laptop is connected."),
        "holdSeconds": says("With `Hold`: how long a request waits for a laptop.", minimum=1, maximum=300),
    },
    t.DefaultRouteGroup: {"endpoints": says("Preview endpoints under the sandbox's own key.", by("name", limit=20))},
    t.SandboxSpec: {
        "description": says("What it is for, for people.", maxLength=1024),
        "ttl": says("When the sandbox is deleted by itself; left out: never."),
        "routingKey": says("A key of one's own, which survives re-creation; left out: derived.", pattern=ROUTING_KEY),
        "suspended": says("Forks at no replicas and routes out; everything else is kept."),
        "forks": says("Workloads that are copied and changed.", atomic(50)),
        "local": says("Workloads replaced by a process on a laptop.", by("name", limit=50)),
        "defaultRouteGroup": says("What is offered under the sandbox's own key."),
    },
    t.BaselineStatus: {
        "kind": says("Kind of the workload."),
        "name": says("Name of the workload."),
        "uid": says("Which object of that name."),
        "generation": says("Which generation of it was copied.", format="int64"),
    },
    t.ServicePortStatus: {
        "port": says("The Service's port."),
        "name": says("The port's name."),
        "protocol": says("TCP, UDP or SCTP."),
    },
    t.ServiceStatus: {
        "from": says("The Service of the baseline."),
        "to": says("The fork's own Service."),
        "ports": says("Ports that the fork serves.", atomic()),
        "missingPorts": says("Ports of the Service that no container of the fork has.", atomic()),
    },
    t.ForkStatus: {
        "baseline": says("What it was copied from."),
        "workload": says("The fork's Deployment."),
        "ready": says("How many of its Pods are ready."),
        "desired": says("How many there should be."),
        "everReady": says("Whether it was ready once: from then on its routes stay."),
        "services": says("The Services that it stands in for.", atomic()),
        "reason": says("Why it is not ready, as a stable word."),
        "message": says("Why it is not ready, in words."),
    },
    t.SandboxStatus: {
        "observedGeneration": says("The generation of the spec that this status is about.", format="int64"),
        "phase": says("A summary for people: Pending, Progressing, Ready, Failed or Terminating."),
        "routingKey": says("The key that requests carry to reach the forks."),
        "routeGroups": says("The RouteGroups that match this sandbox.", atomic()),
        "lastUpdateTime": says("When the spec last changed.", TIME),
        "expiresAt": says("When the sandbox will be deleted.", TIME),
        "forks": says("Each fork.", atomic()),
        "endpoints": says("Preview endpoints.", by("name", limit=20)),
        "conditions": says(
            "Accepted, WithinLimits, ForksReady, LocalReady, RoutesProgrammed, Ready.", by("type", limit=20)
        ),
    },
    t.LabelMatch: {
        "key": says("Key of a label of the sandbox.", pattern=LABEL_KEY, maxLength=317),
        "value": says("A glob for its value: `*` any text, `?` any character.", maxLength=128),
    },
    t.Match: {
        "any": says("At least one of these.", atomic(20), minItems=1),
        "all": says("All of these.", atomic(20), minItems=1),
        "label": says("A label of the sandbox."),
    },
    t.RouteGroupSpec: {
        "match": says("Which sandboxes: exactly one of any, all, label."),
        "routingKey": says("A key of one's own, which survives re-creation; left out: derived.", pattern=ROUTING_KEY),
        "namespaces": says(
            "Where sandboxes are looked for; left out: the own namespace. Others only where they consent.",
            {"x-kubernetes-list-type": "set", "maxItems": 50},
            items={"type": "string", "pattern": DNS_LABEL, "maxLength": 63},
        ),
        "endpoints": says("Preview endpoints under the group's key.", by("name", limit=20)),
        "ttl": says("When the group is deleted by itself; left out: never."),
        "description": says("What it is for, for people.", maxLength=1024),
    },
    t.MatchedSandbox: {
        "name": says("The sandbox."),
        "ready": says("Whether it is ready."),
        "namespace": says("Its namespace, when it is another one."),
    },
    t.CompiledRoute: {
        "service": says("The Service that is dialled."),
        "port": says("Its port."),
        "sandbox": says("The sandbox that answers."),
        "to": says("The Service or LocalWorkload that takes the request."),
        "namespace": says("Namespace of the Service, when it is another one."),
    },
    t.RouteConflict: {
        "baseline": says("The workload that more than one matched sandbox replaces."),
        "sandboxes": says("Those sandboxes.", atomic()),
        "winner": says("The one whose route counts: the oldest."),
    },
    t.RouteGroupStatus: {
        "observedGeneration": says("The generation of the spec that this status is about.", format="int64"),
        "phase": says("A summary for people: Pending, Progressing, Ready, Failed or Terminating."),
        "routingKey": says("The key that requests carry to reach all matched sandboxes at once."),
        "lastUpdateTime": says("When the spec last changed.", TIME),
        "expiresAt": says("When the group will be deleted.", TIME),
        "unmatchedSince": says("Since when no sandbox matches.", TIME),
        "matchedSandboxes": says("The sandboxes that match.", atomic()),
        "routes": says("The group's routes, the first hundred.", atomic(100)),
        "routeCount": says("How many routes there are."),
        "conflicts": says("Workloads that more than one matched sandbox replaces.", atomic()),
        "endpoints": says("Preview endpoints.", by("name", limit=20)),
        "conditions": says("Accepted, Conflicted, SandboxesReady, RoutesProgrammed, Ready.", by("type", limit=20)),
    },
    t.LocalWorkloadSpec: {
        "sandbox": says("The sandbox, in this namespace, whose key reaches the laptop.", NAME),
        "from": says("The workload that a process on a laptop stands in for."),
        "mappings": says("Which ports go where on the laptop.", by("port", limit=50), minItems=1),
        "onDisconnect": says("What callers get while no laptop is connected."),
        "holdSeconds": says("With `Hold`: how long a request waits for a laptop.", minimum=1, maximum=300),
    },
    t.ConnectionStatus: {
        "client": says("Who is connected."),
        "connectedAt": says("Since when.", TIME),
        "lastSeen": says("When it was last heard from.", TIME),
        "tunnels": says("How many connections it holds."),
        "remoteAddress": says("Where it comes from."),
        "session": says("The client of this user that holds it: another one here than before has taken over."),
    },
    t.LocalWorkloadStatus: {
        "observedGeneration": says("The generation of the spec that this status is about.", format="int64"),
        "phase": says("A summary for people: Pending, Connected, Disconnected, Failed or Terminating."),
        "connection": says("The tunnel, as the data plane reports it."),
        "conditions": says("Accepted, Connected, RoutesProgrammed, Ready.", by("type", limit=20)),
    },
}
