"""Defaults and validation of the kinds that are mostly data: policy, networking, storage, RBAC, quotas, webhooks."""

from __future__ import annotations

import ipaddress
from typing import Any

from sandlane.kube.patch.values import equal_json
from sandlane.kube.quantity import parse_quantity
from sandlane.kube.resource import Object
from sandlane.local.apiserver.kinds.field_errors import Faults
from sandlane.local.apiserver.kinds.names import check_selector, dns_label, path_segment, port_number, subdomain


def _unset(target: Object, key: str, value: Any) -> None:
    if target.get(key) in (None, ""):
        target[key] = value


# -- namespaces, nodes, storage -----------------------------------------------------------------------------


def prepare_namespace(obj: Object) -> None:
    """A new Namespace is active and held by the namespace controller's finalizer."""
    spec = obj.setdefault("spec", {})
    finalizers = spec.setdefault("finalizers", [])
    if "kubernetes" not in finalizers:
        finalizers.append("kubernetes")
    obj["status"] = {"phase": "Active"}


def default_namespace(obj: Object) -> None:
    """The label that carries the name."""
    metadata = obj.setdefault("metadata", {})
    if metadata.get("name"):
        metadata.setdefault("labels", {})["kubernetes.io/metadata.name"] = metadata["name"]


def keep_namespace_finalizers(new: Object, old: Object) -> None:
    """`spec.finalizers` is written through /finalize only."""
    new["spec"] = dict(old.get("spec") or {})


def default_node(obj: Object) -> None:
    """A Node's allocatable is its capacity unless it says otherwise."""
    status = obj.get("status") or {}
    if status.get("capacity") and not status.get("allocatable"):
        status["allocatable"] = dict(status["capacity"])


def default_claim(obj: Object) -> None:
    """A PersistentVolumeClaim is for a file system unless it says otherwise."""
    _unset(obj.setdefault("spec", {}), "volumeMode", "Filesystem")


def prepare_claim(obj: Object) -> None:
    """A new claim waits to be bound."""
    obj["status"] = {"phase": "Pending"}


def check_claim(faults: Faults, obj: Object) -> None:
    """A PersistentVolumeClaim's spec."""
    spec = obj["spec"]
    modes = spec.get("accessModes") or []
    if not modes:
        faults.required("spec.accessModes", "at least 1 access mode is required")
    for mode in modes:
        faults.one_of(
            "spec.accessModes",
            mode,
            ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"),
            required=True,
        )
    requests = (spec.get("resources") or {}).get("requests") or {}
    if "storage" not in requests:
        faults.required("spec.resources[storage]")
    elif parse_quantity(requests["storage"]) <= 0:
        faults.invalid("spec.resources[storage]", requests["storage"], "must be greater than zero")


def default_volume(obj: Object) -> None:
    """Defaults of a PersistentVolume."""
    spec = obj.setdefault("spec", {})
    _unset(spec, "persistentVolumeReclaimPolicy", "Retain")
    _unset(spec, "volumeMode", "Filesystem")
    if "hostPath" in spec and spec["hostPath"].get("type") is None:
        spec["hostPath"]["type"] = ""


def prepare_volume(obj: Object) -> None:
    """A new volume is pending."""
    obj["status"] = {"phase": "Pending"}


def default_storage_class(obj: Object) -> None:
    """Defaults of a StorageClass."""
    _unset(obj, "reclaimPolicy", "Delete")
    _unset(obj, "volumeBindingMode", "Immediate")


def check_storage_class(faults: Faults, obj: Object) -> None:
    """A StorageClass names its provisioner."""
    if not obj.get("provisioner"):
        faults.required("provisioner")


# -- policy, scheduling, autoscaling ------------------------------------------------------------------------


def check_disruption_budget(faults: Faults, obj: Object) -> None:
    """A PodDisruptionBudget sets one of its two limits."""
    spec = obj["spec"]
    if spec.get("minAvailable") is not None and spec.get("maxUnavailable") is not None:
        faults.invalid("spec", spec, "minAvailable and maxUnavailable cannot be both set")
    for key in ("minAvailable", "maxUnavailable"):
        value = spec.get(key)
        if isinstance(value, int):
            faults.non_negative(f"spec.{key}", value)
        elif isinstance(value, str) and not value.removesuffix("%").isdecimal():
            faults.invalid(
                f"spec.{key}", value, "a valid percent string must be a numeric string followed by an ending '%'"
            )
    check_selector(faults, spec.get("selector"), "spec.selector")


def default_priority_class(obj: Object) -> None:
    """A PriorityClass preempts unless it says otherwise."""
    _unset(obj, "preemptionPolicy", "PreemptLowerPriority")


def check_priority_class(faults: Faults, obj: Object) -> None:
    """Values above a billion belong to the system."""
    name, value = obj["metadata"].get("name", ""), obj.get("value", 0)
    if name.startswith("system-") and name not in ("system-node-critical", "system-cluster-critical"):
        faults.forbidden(
            "metadata.name", "priority class names with 'system-' prefix are reserved for system use only. error: "
        )
    if not name.startswith("system-") and value > 1_000_000_000:
        faults.forbidden("value", "maximum allowed value of a user defined priority is 1000000000")


def check_priority_class_update(faults: Faults, new: Object, old: Object) -> None:
    """Value and policy may not change."""
    if new.get("value", 0) != old.get("value", 0):
        faults.forbidden("value", "may not be changed in an update.")
    faults.immutable(
        "preemptionPolicy", new.get("preemptionPolicy"), same=new.get("preemptionPolicy") == old.get("preemptionPolicy")
    )


def default_autoscaler(obj: Object) -> None:
    """Defaults of a HorizontalPodAutoscaler (v2)."""
    spec = obj.setdefault("spec", {})
    if spec.get("minReplicas") is None:
        spec["minReplicas"] = 1
    if not spec.get("metrics"):
        target = {"type": "Utilization", "averageUtilization": 80}
        spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]


def check_autoscaler(faults: Faults, obj: Object) -> None:
    """A HorizontalPodAutoscaler's spec."""
    spec = obj["spec"]
    minimum, maximum = spec.get("minReplicas"), spec.get("maxReplicas", 0)
    if minimum is not None and minimum < 1:
        faults.invalid("spec.minReplicas", minimum, "must be greater than or equal to 1")
    if maximum < 1:
        faults.invalid("spec.maxReplicas", maximum, "must be greater than 0")
    if minimum is not None and maximum < minimum:
        faults.invalid("spec.maxReplicas", maximum, "must be greater than or equal to `minReplicas`")
    target = spec.get("scaleTargetRef") or {}
    for key in ("kind", "name"):
        if not target.get(key):
            faults.required(f"spec.scaleTargetRef.{key}")


# -- networking ---------------------------------------------------------------------------------------------


def default_network_policy(obj: Object) -> None:
    """Defaults of a NetworkPolicy."""
    spec = obj.setdefault("spec", {})
    for rule in [*(spec.get("ingress") or []), *(spec.get("egress") or [])]:
        for port in rule.get("ports") or []:
            _unset(port, "protocol", "TCP")
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", *(["Egress"] if spec.get("egress") else [])]


def check_network_policy(faults: Faults, obj: Object) -> None:
    """A NetworkPolicy's spec."""
    spec = obj["spec"]
    check_selector(faults, spec.get("podSelector"), "spec.podSelector")
    for index, kind in enumerate(spec.get("policyTypes") or []):
        faults.one_of(f"spec.policyTypes[{index}]", kind, ("Egress", "Ingress"), required=True)
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(direction) or []):
            for place, peer in enumerate(rule.get(peers) or []):
                at = f"spec.{direction}[{index}].{peers}[{place}]"
                if not any(key in peer for key in ("podSelector", "namespaceSelector", "ipBlock")):
                    faults.required(at, "must specify a peer")
                for key in ("podSelector", "namespaceSelector"):
                    check_selector(faults, peer.get(key), f"{at}.{key}")
                _check_block(faults, peer.get("ipBlock"), f"{at}.ipBlock")


def _check_block(faults: Faults, block: Object | None, at: str) -> None:
    if block is None:
        return
    try:
        ipaddress.ip_network(block.get("cidr", ""), strict=False)
    except ValueError:
        faults.invalid(
            f"{at}.cidr", block.get("cidr", ""), "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
        )


def check_ingress(faults: Faults, obj: Object) -> None:
    """An Ingress' rules and backends."""
    spec = obj["spec"]
    if not spec.get("rules") and not spec.get("defaultBackend"):
        faults.invalid("spec", spec, "either `defaultBackend` or `rules` must be specified")
    if spec.get("defaultBackend"):
        _check_backend(faults, spec["defaultBackend"], "spec.defaultBackend")
    for index, rule in enumerate(spec.get("rules") or []):
        at = f"spec.rules[{index}]"
        host = rule.get("host", "")
        if host and not host.startswith("*."):
            for detail in subdomain(host):
                faults.invalid(f"{at}.host", host, detail)
        paths = (rule.get("http") or {}).get("paths") or []
        if "http" in rule and not paths:
            faults.required(f"{at}.http.paths")
        for place, path in enumerate(paths):
            where = f"{at}.http.paths[{place}]"
            kinds = ("Exact", "ImplementationSpecific", "Prefix")
            if path.get("pathType") is None:
                faults.required(f"{where}.pathType", "pathType must be specified")
            else:
                faults.one_of(f"{where}.pathType", path["pathType"], kinds, required=True)
            if path.get("pathType") in ("Exact", "Prefix") and not path.get("path", "").startswith("/"):
                faults.invalid(f"{where}.path", path.get("path", ""), "must be an absolute path")
            _check_backend(faults, path.get("backend") or {}, f"{where}.backend")


def _check_backend(faults: Faults, backend: Object, at: str) -> None:
    service = backend.get("service")
    if service is None:
        if not backend.get("resource"):
            faults.required(at, "must specify a service or a resource backend")
        return
    for detail in dns_label(service.get("name", "")):
        faults.invalid(f"{at}.service.name", service.get("name", ""), detail)
    port = service.get("port") or {}
    if not port.get("name") and not port.get("number"):
        faults.required(f"{at}.service.port", "port name or number is required")
    if port.get("number"):
        for detail in port_number(port["number"]):
            faults.invalid(f"{at}.service.port.number", port["number"], detail)


def default_endpoints(obj: Object) -> None:
    """Ports of Endpoints are TCP unless they say otherwise."""
    for subset in obj.get("subsets") or []:
        for port in subset.get("ports") or []:
            _unset(port, "protocol", "TCP")


def default_endpoint_slice(obj: Object) -> None:
    """Ports of an EndpointSlice have a name and a protocol."""
    for port in obj.get("ports") or []:
        if port.get("name") is None:
            port["name"] = ""
        _unset(port, "protocol", "TCP")


def check_endpoint_slice(faults: Faults, obj: Object) -> None:
    """An EndpointSlice's addresses and ports."""
    faults.one_of("addressType", obj.get("addressType"), ("FQDN", "IPv4", "IPv6"), required=True)
    for index, endpoint in enumerate(obj.get("endpoints") or []):
        at = f"endpoints[{index}]"
        if not endpoint.get("addresses"):
            faults.required(f"{at}.addresses", "must contain at least 1 address")
        for place, address in enumerate(endpoint.get("addresses") or []):
            if obj.get("addressType") in ("IPv4", "IPv6") and not _is_address(address, obj["addressType"]):
                faults.invalid(
                    f"{at}.addresses[{place}]", address, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
                )
    names: set[str] = set()
    for index, port in enumerate(obj.get("ports") or []):
        if port.get("name", "") in names:
            faults.duplicate(f"ports[{index}].name", port.get("name", ""))
        names.add(port.get("name", ""))


def _is_address(text: str, family: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == (4 if family == "IPv4" else 6)
    except ValueError:
        return False


def check_endpoint_slice_update(faults: Faults, new: Object, old: Object) -> None:
    """The address type may not change."""
    faults.immutable("addressType", new.get("addressType"), same=new.get("addressType") == old.get("addressType"))


# -- RBAC, leases, events, quotas ---------------------------------------------------------------------------


def default_role_binding(obj: Object) -> None:
    """Groups of subjects and of the role follow from their kinds."""
    reference = obj.setdefault("roleRef", {})
    _unset(reference, "apiGroup", "rbac.authorization.k8s.io")
    for subject in obj.get("subjects") or []:
        if not subject.get("apiGroup") and subject.get("kind") in ("User", "Group"):
            subject["apiGroup"] = "rbac.authorization.k8s.io"


def check_role(faults: Faults, obj: Object) -> None:
    """A Role's rules."""
    for index, rule in enumerate(obj.get("rules") or []):
        at = f"rules[{index}]"
        if not rule.get("verbs"):
            faults.required(f"{at}.verbs", "verbs must contain at least one value")
        if rule.get("nonResourceURLs"):
            if obj["metadata"].get("namespace"):
                text = "namespaced rules cannot apply to non-resource URLs"
                faults.invalid(f"{at}.nonResourceURLs", rule["nonResourceURLs"], text)
            if rule.get("apiGroups") or rule.get("resources") or rule.get("resourceNames"):
                text = "rules cannot apply to both regular resources and non-resource URLs"
                faults.invalid(f"{at}.nonResourceURLs", rule["nonResourceURLs"], text)
            continue
        if not rule.get("apiGroups"):
            faults.required(f"{at}.apiGroups", "resource rules must supply at least one api group")
        if not rule.get("resources"):
            faults.required(f"{at}.resources", "resource rules must supply at least one resource")


def check_role_binding(faults: Faults, obj: Object) -> None:
    """A RoleBinding's role and subjects."""
    reference = obj.get("roleRef") or {}
    kinds = ("ClusterRole", "Role") if obj["metadata"].get("namespace") else ("ClusterRole",)
    if reference.get("apiGroup") != "rbac.authorization.k8s.io":
        faults.not_supported("roleRef.apiGroup", reference.get("apiGroup"), ("rbac.authorization.k8s.io",))
    if reference.get("kind") not in kinds:
        faults.not_supported("roleRef.kind", reference.get("kind", ""), kinds)
    if not reference.get("name"):
        faults.required("roleRef.name")
    else:
        for detail in path_segment(reference["name"]):
            faults.invalid("roleRef.name", reference["name"], detail)
    for index, subject in enumerate(obj.get("subjects") or []):
        at = f"subjects[{index}]"
        if not subject.get("name"):
            faults.required(f"{at}.name")
        faults.one_of(f"{at}.kind", subject.get("kind"), ("Group", "ServiceAccount", "User"), required=True)
        if subject.get("kind") == "ServiceAccount" and not subject.get("namespace"):
            faults.required(f"{at}.namespace")


def check_role_binding_update(faults: Faults, new: Object, old: Object) -> None:
    """The role of a binding may not change."""
    if not equal_json(new.get("roleRef"), old.get("roleRef")):
        faults.invalid("roleRef", new.get("roleRef"), "cannot change roleRef")


def check_lease(faults: Faults, obj: Object) -> None:
    """A Lease's numbers."""
    spec = obj.get("spec") or {}
    duration = spec.get("leaseDurationSeconds")
    if duration is not None and duration <= 0:
        faults.invalid("spec.leaseDurationSeconds", duration, "must be greater than 0")
    faults.non_negative("spec.leaseTransitions", spec.get("leaseTransitions"))


def check_core_event(faults: Faults, obj: Object) -> None:
    """An Event is about an object of its own namespace."""
    namespace = obj["metadata"].get("namespace", "")
    involved = (obj.get("involvedObject") or {}).get("namespace", "")
    if involved != namespace and not (not involved and namespace == "default"):
        faults.invalid("involvedObject.namespace", involved, "does not match event.namespace")


def check_new_event(faults: Faults, obj: Object) -> None:
    """An Event of events.k8s.io, as stored: times, reporter, action, reason and type are required."""
    if not obj.get("eventTime"):
        faults.required("eventTime")
    if not obj.get("reportingComponent"):
        faults.required("reportingController")
    if not obj.get("reportingInstance"):
        faults.required("reportingInstance")
    if not obj.get("action"):
        faults.required("action")
    if not obj.get("reason"):
        faults.required("reason")
    if obj.get("type") not in ("Normal", "Warning"):
        faults.invalid("type", obj.get("type", ""), "has invalid value: " + str(obj.get("type", "")))
    if len(obj.get("message", "")) > 1024:
        faults.invalid("note", "", "can have at most 1024 characters")
    check_core_event(faults, obj)


def check_quota(faults: Faults, obj: Object) -> None:
    """A ResourceQuota's limits."""
    for name, text in ((obj.get("spec") or {}).get("hard") or {}).items():
        if parse_quantity(text) < 0:
            faults.invalid(f"spec.hard[{name}]", text, "must be greater than or equal to 0")


def default_limit_range(obj: Object) -> None:
    """A limit for containers: default and defaultRequest follow from max and default."""
    for limit in (obj.setdefault("spec", {})).get("limits") or []:
        if limit.get("type") != "Container":
            continue
        default = limit.setdefault("default", {})
        request = limit.setdefault("defaultRequest", {})
        for name, value in (limit.get("max") or {}).items():
            default.setdefault(name, value)
        for name, value in default.items():
            request.setdefault(name, value)
        for name, value in (limit.get("min") or {}).items():
            request.setdefault(name, value)
        for key in ("default", "defaultRequest"):
            if not limit[key]:
                del limit[key]


# -- webhooks, certificates ---------------------------------------------------------------------------------


def default_webhooks(obj: Object) -> None:
    """Defaults of the webhooks of a configuration."""
    mutating = obj.get("kind") == "MutatingWebhookConfiguration"
    for hook in obj.get("webhooks") or []:
        for key, value in (("failurePolicy", "Fail"), ("matchPolicy", "Equivalent"), ("timeoutSeconds", 10)):
            if hook.get(key) is None:
                hook[key] = value
        for key in ("namespaceSelector", "objectSelector"):
            if hook.get(key) is None:
                hook[key] = {}
        if mutating and hook.get("reinvocationPolicy") is None:
            hook["reinvocationPolicy"] = "Never"
        service = (hook.get("clientConfig") or {}).get("service")
        if service is not None and service.get("port") is None:
            service["port"] = 443
        for rule in hook.get("rules") or []:
            if rule.get("scope") is None:
                rule["scope"] = "*"


def check_webhooks(faults: Faults, obj: Object) -> None:
    """The webhooks of a configuration."""
    names: set[str] = set()
    for index, hook in enumerate(obj.get("webhooks") or []):
        at, name = f"webhooks[{index}]", hook.get("name", "")
        if name.count(".") < 2:
            faults.invalid(f"{at}.name", name, "should be a domain with at least three segments separated by dots")
        if name in names:
            faults.duplicate(f"{at}.name", name)
        names.add(name)
        if not hook.get("admissionReviewVersions"):
            faults.required(f"{at}.admissionReviewVersions", "must specify one of v1, v1beta1")
        elif not {"v1", "v1beta1"} & set(hook["admissionReviewVersions"]):
            faults.invalid(
                f"{at}.admissionReviewVersions",
                hook["admissionReviewVersions"],
                "must include at least one of v1, v1beta1",
            )
        if hook.get("sideEffects") not in ("None", "NoneOnDryRun"):
            if hook.get("sideEffects") is None:
                faults.required(f"{at}.sideEffects", "must specify one of None, NoneOnDryRun")
            else:
                faults.not_supported(f"{at}.sideEffects", hook["sideEffects"], ("None", "NoneOnDryRun"))
        faults.one_of(f"{at}.failurePolicy", hook.get("failurePolicy"), ("Fail", "Ignore"), required=True)
        if not 1 <= hook.get("timeoutSeconds", 10) <= 30:
            faults.invalid(
                f"{at}.timeoutSeconds", hook["timeoutSeconds"], "the timeout value must be between 1 and 30 seconds"
            )
        client = hook.get("clientConfig") or {}
        if ("url" in client) == ("service" in client):
            faults.required(f"{at}.clientConfig", "exactly one of url or service is required")


def check_signing_request(faults: Faults, obj: Object) -> None:
    """A CertificateSigningRequest's spec."""
    spec = obj["spec"]
    if not spec.get("request"):
        faults.required("spec.request")
    if not spec.get("signerName"):
        faults.required("spec.signerName")
    elif "/" not in spec["signerName"]:
        faults.invalid(
            "spec.signerName",
            spec["signerName"],
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        )
    if not spec.get("usages"):
        faults.required("spec.usages")


def check_signing_request_update(faults: Faults, new: Object, old: Object) -> None:
    """What is asked for may not change."""
    faults.immutable("spec", new.get("spec"), same=equal_json(new.get("spec"), old.get("spec")))
