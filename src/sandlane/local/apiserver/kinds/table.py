"""Every built-in kind in one table: names, scope, verbs, subresources and the rules of each."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import msgspec

from sandlane.kube.resource import Object, Resource
from sandlane.local.apiserver.kinds import configuration, conversions, others, pod_rules, pods, services, workloads
from sandlane.local.apiserver.kinds.field_errors import Faults
from sandlane.local.apiserver.kinds.names import dns_label, path_segment
from sandlane.local.apiserver.kinds.strategy import BuiltinStrategy, Rules
from sandlane.local.apiserver.schema import Schema, definition_names

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
_CREATE = ("create",)
_GET = ("get",)
_EDIT = ("get", "patch", "update")
_CONNECT = ("create", "get")


class Subresource(msgspec.Struct, frozen=True):
    """A subresource as discovery shows it; kind and group version are empty where they are the resource's own."""

    name: str
    verbs: tuple[str, ...] = _EDIT
    kind: str = ""
    group: str = ""
    version: str = ""


class Kind(msgspec.Struct, frozen=True):
    """One row. `storage` is the resource whose objects these are, where it is not the kind itself."""

    resource: Resource
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS
    subresources: tuple[Subresource, ...] = ()
    rules: Rules = Rules()
    singular: str = ""
    storage: Resource | None = None
    from_storage: Callable[[Object], Object] | None = None
    to_storage: Callable[[Object], Object] | None = None

    @property
    def definition(self) -> str:
        """The name of its OpenAPI definition."""
        return definition_names()[self.resource.group, self.resource.version, self.resource.kind]

    @property
    def schema(self) -> Schema:
        """Its schema."""
        return Schema.builtin(self.definition)

    @property
    def strategy(self) -> BuiltinStrategy:
        """What the write pipeline asks of it."""
        return BuiltinStrategy(self.definition, self.resource.api_version, self.resource.kind, self.rules)


STATUS = Subresource("status")
SCALE = Subresource("scale", kind="Scale", group="autoscaling", version="v1")


def _check_pod(faults: Faults, obj: Object) -> None:
    pod_rules.check_pod_spec(faults, obj["spec"], "spec")


def _warn_pod(faults: Faults, obj: Object) -> None:
    pod_rules.warn_template(faults, obj.get("spec") or {}, "spec")


def _prepare_daemon_set(obj: Object) -> None:
    workloads.prepare_daemon_set(obj)


def _default_pod_template(obj: Object) -> None:
    pods.default_template(obj.setdefault("template", {}))


_SPEC = ("spec",)
_POD = Rules(
    default=pods.default_pod,
    prepare_create=pods.prepare_pod,
    check=_check_pod,
    check_update=pod_rules.check_pod_update,
    warn=_warn_pod,
    generation=_SPEC,
    status=True,
)
_DEPLOYMENT = Rules(
    default=workloads.default_deployment,
    check=workloads.check_deployment,
    check_update=workloads.check_same_selector,
    warn=workloads.warn_workload,
    generation=("spec", "metadata.annotations"),
    status=True,
)
_SERVICE = Rules(
    default=services.default_service,
    prepare_create=lambda obj: obj.__setitem__("status", {"loadBalancer": {}}),
    prepare_update=services.prepare_service_update,
    allocate=services.allocate_service,
    check=services.check_service,
    check_update=services.check_service_update,
    name=dns_label,
    status=True,
)
_ROLE = Rules(check=others.check_role, name=path_segment)
_BINDING = Rules(
    default=others.default_role_binding,
    check=others.check_role_binding,
    check_update=others.check_role_binding_update,
    name=path_segment,
)
_WEBHOOKS = Rules(default=others.default_webhooks, check=others.check_webhooks, generation=("webhooks",))
_REVIEW = Rules()
_AUTOSCALER = Rules(default=others.default_autoscaler, check=others.check_autoscaler, status=True)
_EVENT = Rules(check=others.check_core_event, create_on_update=True)

_CORE_EVENTS = Resource("", "v1", "events", "Event")
_AUTOSCALERS = Resource("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")


def _kind(
    api_version: str,
    kind: str,
    plural: str,
    *short_names: str,
    cluster: bool = False,
    all_: bool = False,
    extensions: bool = False,
    status: bool = False,
    subresources: tuple[Subresource, ...] = (),
    verbs: tuple[str, ...] = ALL_VERBS,
    rules: Rules | None = None,
    singular: str = "",
    storage: Resource | None = None,
    from_storage: Callable[[Object], Object] | None = None,
    to_storage: Callable[[Object], Object] | None = None,
) -> Kind:
    group, _, version = api_version.rpartition("/")
    if status or (rules is not None and rules.status):
        subresources = tuple(sorted((*subresources, STATUS), key=lambda each: each.name))
    return Kind(
        resource=Resource(group, version, plural, kind, namespaced=not cluster),
        short_names=short_names,
        categories=("all",) if all_ else ("api-extensions",) if extensions else (),
        verbs=verbs,
        subresources=subresources,
        rules=rules or Rules(status=status),
        singular=singular or kind.lower(),
        storage=storage,
        from_storage=from_storage,
        to_storage=to_storage,
    )


def _connect(name: str, kind: str, verbs: tuple[str, ...] = _CONNECT) -> Subresource:
    return Subresource(name, verbs, kind)


_PROXY_VERBS = ("create", "delete", "get", "patch", "update")
_POD_SUBRESOURCES = (
    _connect("attach", "PodAttachOptions"),
    _connect("binding", "Binding", _CREATE),
    Subresource("ephemeralcontainers"),
    Subresource("eviction", _CREATE, "Eviction", "policy", "v1"),
    _connect("exec", "PodExecOptions"),
    Subresource("log", _GET),
    _connect("portforward", "PodPortForwardOptions"),
    _connect("proxy", "PodProxyOptions", _PROXY_VERBS),
    Subresource("resize"),
)
_NAMESPACE_VERBS = tuple(verb for verb in ALL_VERBS if verb != "deletecollection")
_TOKEN = Subresource("token", _CREATE, "TokenRequest", "authentication.k8s.io", "v1")


@cache
def builtin_kinds() -> tuple[Kind, ...]:
    """All built-in kinds, by group and plural."""
    return (
        *_core(),
        *_apps_and_batch(),
        *_networking(),
        *_policy_and_scaling(),
        *_access(),
        *_extensions(),
        *_storage(),
    )


def _core() -> tuple[Kind, ...]:
    namespace = Rules(
        default=others.default_namespace,
        prepare_create=others.prepare_namespace,
        prepare_update=others.keep_namespace_finalizers,
        name=dns_label,
        status=True,
    )
    claim = Rules(
        default=others.default_claim, prepare_create=others.prepare_claim, check=others.check_claim, status=True
    )
    volume = Rules(default=others.default_volume, prepare_create=others.prepare_volume, status=True)
    config_map = Rules(check=configuration.check_config_map, check_update=configuration.check_config_map_update)
    secret = Rules(
        default=configuration.default_secret,
        check=configuration.check_secret,
        check_update=configuration.check_secret_update,
    )
    controller = Rules(
        default=workloads.default_replication_controller,
        check=workloads.check_replication_controller,
        warn=workloads.warn_workload,
        generation=_SPEC,
        status=True,
    )
    node = Rules(default=others.default_node, status=True, resets_status=False)
    finalize = Subresource("finalize", ("update",))
    proxy = _connect("proxy", "NodeProxyOptions", _PROXY_VERBS)
    service_proxy = _connect("proxy", "ServiceProxyOptions", _PROXY_VERBS)
    return (
        _kind("v1", "Binding", "bindings", verbs=_CREATE),
        _kind("v1", "ConfigMap", "configmaps", "cm", rules=config_map),
        _kind(
            "v1", "Endpoints", "endpoints", "ep", rules=Rules(default=others.default_endpoints, create_on_update=True)
        ),
        _kind("v1", "Event", "events", "ev", rules=_EVENT),
        _kind(
            "v1",
            "LimitRange",
            "limitranges",
            "limits",
            rules=Rules(default=others.default_limit_range, create_on_update=True),
        ),
        _kind(
            "v1",
            "Namespace",
            "namespaces",
            "ns",
            cluster=True,
            verbs=_NAMESPACE_VERBS,
            subresources=(finalize,),
            rules=namespace,
        ),
        _kind("v1", "Node", "nodes", "no", cluster=True, subresources=(proxy,), rules=node),
        _kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims", "pvc", rules=claim),
        _kind("v1", "PersistentVolume", "persistentvolumes", "pv", cluster=True, rules=volume),
        _kind("v1", "Pod", "pods", "po", all_=True, subresources=_POD_SUBRESOURCES, rules=_POD),
        _kind(
            "v1", "PodTemplate", "podtemplates", rules=Rules(default=_default_pod_template, generation=("template",))
        ),
        _kind(
            "v1",
            "ReplicationController",
            "replicationcontrollers",
            "rc",
            all_=True,
            subresources=(SCALE,),
            rules=controller,
        ),
        _kind("v1", "ResourceQuota", "resourcequotas", "quota", rules=Rules(check=others.check_quota, status=True)),
        _kind("v1", "Secret", "secrets", rules=secret),
        _kind("v1", "ServiceAccount", "serviceaccounts", "sa", subresources=(_TOKEN,)),
        _kind("v1", "Service", "services", "svc", all_=True, subresources=(service_proxy,), rules=_SERVICE),
    )


def _apps_and_batch() -> tuple[Kind, ...]:
    daemon_set = Rules(
        default=workloads.default_daemon_set,
        prepare_create=_prepare_daemon_set,
        check=workloads.check_daemon_set,
        check_update=workloads.check_same_selector,
        warn=workloads.warn_workload,
        generation=_SPEC,
        status=True,
    )
    replica_set = Rules(
        default=workloads.default_replica_set,
        check=workloads.check_replica_set,
        check_update=workloads.check_same_selector,
        warn=workloads.warn_workload,
        generation=_SPEC,
        status=True,
    )
    stateful_set = Rules(
        default=workloads.default_stateful_set,
        check=workloads.check_stateful_set,
        check_update=workloads.check_stateful_set_update,
        warn=workloads.warn_workload,
        generation=_SPEC,
        status=True,
    )
    job = Rules(
        default=workloads.default_job,
        prepare_create=workloads.prepare_job,
        check=workloads.check_job,
        check_update=workloads.check_job_update,
        warn=workloads.warn_workload,
        generation=_SPEC,
        status=True,
    )
    cron_job = Rules(
        default=workloads.default_cron_job,
        check=workloads.check_cron_job,
        warn=workloads.warn_workload,
        generation=_SPEC,
        status=True,
    )
    return (
        _kind("apps/v1", "ControllerRevision", "controllerrevisions"),
        _kind("apps/v1", "DaemonSet", "daemonsets", "ds", all_=True, rules=daemon_set),
        _kind("apps/v1", "Deployment", "deployments", "deploy", all_=True, subresources=(SCALE,), rules=_DEPLOYMENT),
        _kind("apps/v1", "ReplicaSet", "replicasets", "rs", all_=True, subresources=(SCALE,), rules=replica_set),
        _kind("apps/v1", "StatefulSet", "statefulsets", "sts", all_=True, subresources=(SCALE,), rules=stateful_set),
        _kind("batch/v1", "CronJob", "cronjobs", "cj", all_=True, rules=cron_job),
        _kind("batch/v1", "Job", "jobs", all_=True, rules=job),
    )


def _networking() -> tuple[Kind, ...]:
    endpoint_slice = Rules(
        default=others.default_endpoint_slice,
        check=others.check_endpoint_slice,
        check_update=others.check_endpoint_slice_update,
        generation=("endpoints", "ports", "addressType", "metadata.labels"),
    )
    policy = Rules(default=others.default_network_policy, check=others.check_network_policy, generation=_SPEC)
    ingress = Rules(
        prepare_create=lambda obj: obj.__setitem__("status", {"loadBalancer": {}}),
        check=others.check_ingress,
        generation=_SPEC,
        status=True,
    )
    lease = Rules(check=others.check_lease, create_on_update=True)
    return (
        _kind("discovery.k8s.io/v1", "EndpointSlice", "endpointslices", rules=endpoint_slice),
        _kind("coordination.k8s.io/v1", "Lease", "leases", rules=lease),
        _kind(
            "events.k8s.io/v1",
            "Event",
            "events",
            "ev",
            rules=Rules(check=others.check_new_event, create_on_update=True),
            storage=_CORE_EVENTS,
            from_storage=conversions.event_from_core,
            to_storage=conversions.event_to_core,
        ),
        _kind("networking.k8s.io/v1", "Ingress", "ingresses", "ing", rules=ingress),
        _kind("networking.k8s.io/v1", "IngressClass", "ingressclasses", cluster=True, rules=Rules(generation=_SPEC)),
        _kind("networking.k8s.io/v1", "IPAddress", "ipaddresses", "ip", cluster=True),
        _kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies", "netpol", rules=policy),
        _kind("networking.k8s.io/v1", "ServiceCIDR", "servicecidrs", cluster=True, status=True),
    )


def _policy_and_scaling() -> tuple[Kind, ...]:
    budget = Rules(check=others.check_disruption_budget, generation=_SPEC, status=True)
    priority = Rules(
        default=others.default_priority_class,
        check=others.check_priority_class,
        check_update=others.check_priority_class_update,
        generation=("value",),
    )
    return (
        _kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", "pdb", rules=budget),
        _kind(
            "autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", "hpa", all_=True, rules=_AUTOSCALER
        ),
        _kind(
            "autoscaling/v1",
            "HorizontalPodAutoscaler",
            "horizontalpodautoscalers",
            "hpa",
            all_=True,
            rules=_AUTOSCALER,
            storage=_AUTOSCALERS,
            from_storage=conversions.autoscaler_to_v1,
            to_storage=conversions.autoscaler_from_v1,
        ),
        _kind("scheduling.k8s.io/v1", "PriorityClass", "priorityclasses", "pc", cluster=True, rules=priority),
        _kind("node.k8s.io/v1", "RuntimeClass", "runtimeclasses", cluster=True),
    )


def _access() -> tuple[Kind, ...]:
    rbac, authentication = "rbac.authorization.k8s.io/v1", "authentication.k8s.io/v1"
    authorization = "authorization.k8s.io/v1"
    signing = Rules(check=others.check_signing_request, check_update=others.check_signing_request_update, status=True)
    return (
        _kind(rbac, "ClusterRoleBinding", "clusterrolebindings", cluster=True, rules=_BINDING),
        _kind(rbac, "ClusterRole", "clusterroles", cluster=True, rules=_ROLE),
        _kind(rbac, "RoleBinding", "rolebindings", rules=_BINDING),
        _kind(rbac, "Role", "roles", rules=_ROLE),
        _kind(authentication, "SelfSubjectReview", "selfsubjectreviews", cluster=True, verbs=_CREATE, rules=_REVIEW),
        _kind(authentication, "TokenReview", "tokenreviews", cluster=True, verbs=_CREATE, rules=_REVIEW),
        _kind(authorization, "LocalSubjectAccessReview", "localsubjectaccessreviews", verbs=_CREATE, rules=_REVIEW),
        _kind(
            authorization,
            "SelfSubjectAccessReview",
            "selfsubjectaccessreviews",
            cluster=True,
            verbs=_CREATE,
            rules=_REVIEW,
        ),
        _kind(
            authorization,
            "SelfSubjectRulesReview",
            "selfsubjectrulesreviews",
            cluster=True,
            verbs=_CREATE,
            rules=_REVIEW,
        ),
        _kind(authorization, "SubjectAccessReview", "subjectaccessreviews", cluster=True, verbs=_CREATE, rules=_REVIEW),
        _kind(
            "certificates.k8s.io/v1",
            "CertificateSigningRequest",
            "certificatesigningrequests",
            "csr",
            cluster=True,
            subresources=(Subresource("approval"),),
            rules=signing,
        ),
    )


def _extensions() -> tuple[Kind, ...]:
    admission = "admissionregistration.k8s.io/v1"
    policy = Rules(generation=_SPEC, status=True)
    crd = Rules(generation=_SPEC, status=True)
    return (
        _kind(
            admission,
            "MutatingWebhookConfiguration",
            "mutatingwebhookconfigurations",
            cluster=True,
            extensions=True,
            rules=_WEBHOOKS,
        ),
        _kind(
            admission,
            "ValidatingAdmissionPolicy",
            "validatingadmissionpolicies",
            cluster=True,
            extensions=True,
            rules=policy,
        ),
        _kind(
            admission,
            "ValidatingAdmissionPolicyBinding",
            "validatingadmissionpolicybindings",
            cluster=True,
            extensions=True,
            rules=Rules(generation=_SPEC),
        ),
        _kind(
            admission,
            "ValidatingWebhookConfiguration",
            "validatingwebhookconfigurations",
            cluster=True,
            extensions=True,
            rules=_WEBHOOKS,
        ),
        _kind(
            "apiextensions.k8s.io/v1",
            "CustomResourceDefinition",
            "customresourcedefinitions",
            "crd",
            "crds",
            cluster=True,
            extensions=True,
            rules=crd,
        ),
    )


def _storage() -> tuple[Kind, ...]:
    storage_class = Rules(default=others.default_storage_class, check=others.check_storage_class)
    return (
        _kind("storage.k8s.io/v1", "CSIDriver", "csidrivers", cluster=True),
        _kind("storage.k8s.io/v1", "CSINode", "csinodes", cluster=True),
        _kind("storage.k8s.io/v1", "CSIStorageCapacity", "csistoragecapacities"),
        _kind("storage.k8s.io/v1", "StorageClass", "storageclasses", "sc", cluster=True, rules=storage_class),
        _kind("storage.k8s.io/v1", "VolumeAttachment", "volumeattachments", cluster=True, status=True),
    )
