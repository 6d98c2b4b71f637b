"""The columns that `kubectl get` shows of built-in kinds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sandlane.kube.resource import Object
from sandlane.local.apiserver import pod_cells
from sandlane.local.apiserver.resource_type import Column

Read = Callable[[Object], Any]


def _at(path: str, default: Any = "") -> Read:
    keys = path.split(".")

    def read(obj: Object) -> Any:
        value: Any = obj
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return default if value is None else value

    return read


def _number(path: str) -> Read:
    return _at(path, 0)


AGE = Column("Age", read=_at("metadata.creationTimestamp", None))


def _text(name: str, read: Read, priority: int = 0, type_: str = "string") -> Column:
    return Column(name, type_, priority=priority, read=read)


def _labels(labels: dict[str, str] | None) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items())) or "<none>"


def _selector(path: str) -> Read:
    read = _at(path, None)

    def show(obj: Object) -> str:
        selector = read(obj) or {}
        if "matchLabels" not in selector and "matchExpressions" not in selector:
            return _labels(selector)
        parts = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
        for expression in selector.get("matchExpressions") or ():
            values = ",".join(sorted(expression.get("values") or ()))
            operator = expression["operator"]
            shown = {"Exists": expression["key"], "DoesNotExist": f"!{expression['key']}"}
            parts.append(shown.get(operator, f"{expression['key']} {operator.lower()} ({values})"))
        return ",".join(parts) or "<none>"

    return show


def _containers(what: str, path: str = "spec.template.spec.containers") -> Read:
    read = _at(path, ())
    return lambda obj: ",".join(container.get(what, "") for container in read(obj))


# -- services ---------------------------------------------------------------------------------------------


def _service_ports(service: Object) -> str:
    shown = []
    for port in service["spec"].get("ports") or ():
        node = f":{port['nodePort']}" if port.get("nodePort") else ""
        shown.append(f"{port['port']}{node}/{port.get('protocol', 'TCP')}")
    return ",".join(shown) or "<none>"


def _external_ip(service: Object) -> str:
    spec = service["spec"]
    external = ",".join(spec.get("externalIPs") or ())
    match spec.get("type"):
        case "ExternalName":
            return str(spec.get("externalName", ""))
        case "LoadBalancer":
            ingress = service.get("status", {}).get("loadBalancer", {}).get("ingress") or ()
            found = [entry.get("ip") or entry.get("hostname", "") for entry in ingress]
            return ",".join([*found, *(spec.get("externalIPs") or ())]) or "<pending>"
    return external or "<none>"


def _endpoints(obj: Object) -> str:
    shown = []
    for subset in obj.get("subsets") or ():
        for port in subset.get("ports") or ():
            shown += [f"{address['ip']}:{port['port']}" for address in subset.get("addresses") or ()]
    more = len(shown) - 3
    return (",".join(shown[:3]) + (f" + {more} more..." if more > 0 else "")) or "<none>"


def _slice_ports(obj: Object) -> str:
    ports = obj.get("ports") or ()
    return ",".join(str(port.get("port", "*")) for port in ports) or "<unset>"


def _slice_addresses(obj: Object) -> str:
    found = [address for endpoint in obj.get("endpoints") or () for address in endpoint.get("addresses") or ()]
    more = len(found) - 3
    return (",".join(found[:3]) + (f" + {more} more..." if more > 0 else "")) or "<unset>"


# -- the rest ---------------------------------------------------------------------------------------------


def _node_status(node: Object) -> str:
    conditions = {c["type"]: c["status"] for c in node.get("status", {}).get("conditions") or ()}
    text = {"True": "Ready", "False": "NotReady"}.get(conditions.get("Ready", ""), "Unknown")
    return text + (",SchedulingDisabled" if node.get("spec", {}).get("unschedulable") else "")


def _node_roles(node: Object) -> str:
    prefix = "node-role.kubernetes.io/"
    roles = [key.removeprefix(prefix) for key in node["metadata"].get("labels") or {} if key.startswith(prefix)]
    return ",".join(sorted(roles)) or "<none>"


def _address(kind: str) -> Read:
    def read(node: Object) -> str:
        found = [a["address"] for a in node.get("status", {}).get("addresses") or () if a["type"] == kind]
        return found[0] if found else "<none>"

    return read


def _deployment_ready(obj: Object) -> str:
    return f"{obj.get('status', {}).get('readyReplicas', 0)}/{obj['spec'].get('replicas', 0)}"


def _job_status(obj: Object) -> str:
    for condition in obj.get("status", {}).get("conditions") or ():
        if condition["status"] == "True" and condition["type"] in ("Complete", "Failed", "Suspended"):
            return str(condition["type"])
    return "Terminating" if obj["metadata"].get("deletionTimestamp") else "Running"


def _job_completions(obj: Object) -> str:
    done, wanted = obj.get("status", {}).get("succeeded", 0), obj["spec"].get("completions")
    parallel = obj["spec"].get("parallelism", 1)
    return f"{done}/{wanted}" if wanted is not None else f"{done}/1 of {parallel}" if parallel > 1 else f"{done}/1"


def _requested_duration(obj: Object) -> str:
    from sandlane.local.apiserver.tables import duration

    seconds = obj["spec"].get("expirationSeconds")
    return "<none>" if seconds is None else duration(seconds)


def _job_duration(obj: Object) -> str:
    from sandlane.kube.clock import parse_timestamp
    from sandlane.local.apiserver.tables import age, duration

    status = obj.get("status", {})
    if not status.get("startTime"):
        return ""
    if not status.get("completionTime"):
        return age(status["startTime"])
    took = parse_timestamp(status["completionTime"]) - parse_timestamp(status["startTime"])
    return duration(took.total_seconds())


def _event_object(obj: Object) -> str:
    about = obj.get("involvedObject") or obj.get("regarding") or {}
    return f"{about.get('kind', '').lower()}/{about.get('name', '')}"


def _event_seen(obj: Object) -> Any:
    series = obj.get("series") or {}
    return (
        series.get("lastObservedTime")
        or obj.get("lastTimestamp")
        or obj.get("eventTime")
        or obj.get("deprecatedLastTimestamp")
    )


def _event_last(obj: Object) -> str:
    from sandlane.local.apiserver.tables import age

    return age(_event_seen(obj))


def _subjects(kind: str) -> Read:
    def read(obj: Object) -> str:
        names = []
        for subject in obj.get("subjects") or ():
            if subject["kind"] == kind:
                prefix = f"{subject.get('namespace', '')}/" if kind == "ServiceAccount" else ""
                names.append(prefix + subject["name"])
        return ", ".join(names)

    return read


def _role(obj: Object) -> str:
    return f"{obj['roleRef']['kind']}/{obj['roleRef']['name']}"


def _condition_list(obj: Object) -> str:
    kinds = [condition["type"] for condition in obj.get("status", {}).get("conditions") or ()]
    if not kinds:
        return "Pending"
    shown = "Denied" if "Denied" in kinds else "Approved" if "Approved" in kinds else ""
    shown += ",Failed" if "Failed" in kinds else ""
    return shown + (",Issued" if obj.get("status", {}).get("certificate") else "")


_IMAGES = (
    _text("Containers", _containers("name"), 1),
    _text("Images", _containers("image"), 1),
)
_DAEMON = [
    (name, _number(f"status.{field}"))
    for name, field in (
        ("Desired", "desiredNumberScheduled"),
        ("Current", "currentNumberScheduled"),
        ("Ready", "numberReady"),
        ("Up-to-date", "updatedNumberScheduled"),
        ("Available", "numberAvailable"),
    )
]
_EVENT_COLUMNS = (
    _text("Last Seen", _event_last),
    _text("Type", _at("type")),
    _text("Reason", _at("reason")),
    _text("Object", _event_object),
    _text("Subobject", _at("involvedObject.fieldPath"), 1),
    _text("Source", lambda obj: obj.get("source", {}).get("component") or obj.get("reportingComponent", ""), 1),
    _text("Message", lambda obj: (obj.get("message") or obj.get("note") or "").strip()),
    _text("First Seen", _event_last, 1),
    _text("Count", lambda obj: obj.get("count") or obj.get("series", {}).get("count") or 1, 1),
    _text("Name", _at("metadata.name"), 1),
)

PRINTERS: dict[tuple[str, str], tuple[Column, ...]] = {
    ("", "Pod"): (
        _text("Ready", pod_cells.ready),
        _text("Status", pod_cells.status_text),
        _text("Restarts", pod_cells.restarts),
        AGE,
        _text("IP", _at("status.podIP", "<none>"), 1),
        _text("Node", lambda pod: pod["spec"].get("nodeName") or "<none>", 1),
        _text("Nominated Node", lambda pod: pod.get("status", {}).get("nominatedNodeName") or "<none>", 1),
        _text("Readiness Gates", pod_cells.gates, 1),
    ),
    ("", "Service"): (
        _text("Type", _at("spec.type")),
        _text("Cluster-IP", lambda obj: obj["spec"].get("clusterIP") or "<none>"),
        _text("External-IP", _external_ip),
        _text("Port(s)", _service_ports),
        AGE,
        _text("Selector", _selector("spec.selector"), 1),
    ),
    ("", "Namespace"): (_text("Status", _at("status.phase")), AGE),
    ("", "ConfigMap"): (
        _text("Data", lambda obj: len(obj.get("data") or ()) + len(obj.get("binaryData") or ())),
        AGE,
    ),
    ("", "Secret"): (
        _text("Type", _at("type")),
        _text("Data", lambda obj: len(obj.get("data") or ())),
        AGE,
    ),
    ("", "ServiceAccount"): (AGE,),
    ("", "Endpoints"): (_text("Endpoints", _endpoints), AGE),
    ("", "Node"): (
        _text("Status", _node_status),
        _text("Roles", _node_roles),
        AGE,
        _text("Version", _at("status.nodeInfo.kubeletVersion")),
        _text("Internal-IP", _address("InternalIP"), 1),
        _text("External-IP", _address("ExternalIP"), 1),
        _text("OS-Image", _at("status.nodeInfo.osImage", "<unknown>"), 1),
        _text("Kernel-Version", _at("status.nodeInfo.kernelVersion", "<unknown>"), 1),
        _text("Container-Runtime", _at("status.nodeInfo.containerRuntimeVersion", "<unknown>"), 1),
    ),
    ("", "Event"): _EVENT_COLUMNS,
    ("events.k8s.io", "Event"): _EVENT_COLUMNS,
    ("", "ResourceQuota"): (
        _text("Request", lambda obj: _quota(obj, limits=False)),
        _text("Limit", lambda obj: _quota(obj, limits=True)),
        AGE,
    ),
    ("", "LimitRange"): (Column("Created At", "date", read=_at("metadata.creationTimestamp", None)),),
    ("apps", "Deployment"): (
        _text("Ready", _deployment_ready),
        _text("Up-to-date", _number("status.updatedReplicas")),
        _text("Available", _number("status.availableReplicas")),
        AGE,
        *_IMAGES,
        _text("Selector", _selector("spec.selector"), 1),
    ),
    ("apps", "ReplicaSet"): (
        _text("Desired", _number("spec.replicas"), type_="integer"),
        _text("Current", _number("status.replicas"), type_="integer"),
        _text("Ready", _number("status.readyReplicas"), type_="integer"),
        AGE,
        *_IMAGES,
        _text("Selector", _selector("spec.selector"), 1),
    ),
    ("apps", "StatefulSet"): (_text("Ready", _deployment_ready), AGE, *_IMAGES),
    ("apps", "DaemonSet"): (
        *(_text(name, read, type_="integer") for name, read in _DAEMON),
        _text("Node Selector", _selector("spec.template.spec.nodeSelector")),
        AGE,
        *_IMAGES,
        _text("Selector", _selector("spec.selector"), 1),
    ),
    ("batch", "Job"): (
        _text("Status", _job_status),
        _text("Completions", _job_completions),
        _text("Duration", _job_duration),
        AGE,
        *_IMAGES,
        _text("Selector", _selector("spec.selector"), 1),
    ),
    ("discovery.k8s.io", "EndpointSlice"): (
        _text("AddressType", _at("addressType")),
        _text("Ports", _slice_ports),
        _text("Endpoints", _slice_addresses),
        AGE,
    ),
    ("coordination.k8s.io", "Lease"): (_text("Holder", _at("spec.holderIdentity")), AGE),
    ("rbac.authorization.k8s.io", "RoleBinding"): (
        _text("Role", _role),
        AGE,
        _text("Users", _subjects("User"), 1),
        _text("Groups", _subjects("Group"), 1),
        _text("ServiceAccounts", _subjects("ServiceAccount"), 1),
    ),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): (
        _text("Role", _role),
        AGE,
        _text("Users", _subjects("User"), 1),
        _text("Groups", _subjects("Group"), 1),
        _text("ServiceAccounts", _subjects("ServiceAccount"), 1),
    ),
    ("policy", "PodDisruptionBudget"): (
        _text("Min Available", lambda obj: str(obj["spec"].get("minAvailable", "N/A"))),
        _text("Max Unavailable", lambda obj: str(obj["spec"].get("maxUnavailable", "N/A"))),
        _text("Allowed Disruptions", _number("status.disruptionsAllowed"), type_="integer"),
        AGE,
    ),
    ("networking.k8s.io", "NetworkPolicy"): (_text("Pod-Selector", _selector("spec.podSelector")), AGE),
    ("certificates.k8s.io", "CertificateSigningRequest"): (
        AGE,
        _text("SignerName", _at("spec.signerName")),
        _text("Requestor", _at("spec.username")),
        _text("RequestedDuration", _requested_duration),
        _text("Condition", _condition_list),
    ),
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"): (
        _text("Webhooks", lambda obj: len(obj.get("webhooks") or ()), type_="integer"),
        AGE,
    ),
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"): (
        _text("Webhooks", lambda obj: len(obj.get("webhooks") or ()), type_="integer"),
        AGE,
    ),
}


def _quota(obj: Object, *, limits: bool) -> str:
    status = obj.get("status", {})
    hard, used = status.get("hard") or {}, status.get("used") or {}
    shown = [
        f"{name}: {used.get(name, '0')}/{hard[name]}" for name in sorted(hard) if name.startswith("limits.") == limits
    ]
    return ", ".join(shown)
