"""Every built-in kind in one table: names, scope, verbs, subresources and the rules of each."""

from __future__ import annotations

from functools import cache

from sandlane.kube.resource import Object, Resource
from sandlane.local.apiserver.kinds import (
    access,
    admission,
    configuration,
    conversions,
    data,
    networking,
    pod_rules,
    pod_warnings,
    pods,
    rare,
    security_rules,
    services,
    workloads,
)
from sandlane.local.apiserver.kinds.kind import (
    ALL_VERBS,
    POD_SUBRESOURCES,
    PROXY_VERBS,
    SCALE,
    STATUS,
    Kind,
    Subresource,
    connect,
    kind_row,
)
from sandlane.local.apiserver.kinds.names import dns_label, path_segment
from sandlane.local.apiserver.kinds.strategy import Rules

_CREATE = ("create",)

__all__ = ["ALL_VERBS", "SCALE", "STATUS", "Kind", "Subresource", "builtin_kinds"]


def _prepare_pod(pod: Object) -> None:
    pods.prepare_pod(pod)
    security_rules.apparmor_from_annotations(pod)


_SPEC = ("spec",)
_POD = Rules(
    default=pods.default_pod,
    prepare_create=_prepare_pod,
    check=pod_rules.check_pod,
    check_new=pod_rules.check_new_pod,
    check_update=pod_rules.check_pod_update,
    warn=pod_warnings.warn_pod,
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
    prepare_update=services.prepare_service_update,
    allocate=services.allocate_service,
    check=services.check_service,
    check_update=services.check_service_update,
    warn=services.warn_service,
    name=dns_label,
    status=True,
)
_ROLE = Rules(check=access.check_role, name=path_segment)
_BINDING = Rules(
    default=access.default_role_binding,
    check=access.check_role_binding,
    check_update=access.check_role_binding_update,
    name=path_segment,
)
_VERSIONED = Rules(unconditional=False)
_WEBHOOKS = Rules(
    default=admission.default_webhooks, check=admission.check_webhooks, generation=("webhooks",), unconditional=False
)
_AUTOSCALER = Rules(default=data.default_autoscaler, check=data.check_autoscaler, status=True)
_OLD_AUTOSCALER = Rules(default=data.default_old_autoscaler, check=data.check_autoscaler, status=True)
_EVENT = Rules(check=access.check_core_event, create_on_update=True)

_CORE_EVENTS = Resource("", "v1", "events", "Event")
_AUTOSCALERS = Resource("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
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
        default=data.default_namespace,
        prepare_create=data.prepare_namespace,
        prepare_update=data.keep_namespace_finalizers,
        check=data.check_namespace,
        name=dns_label,
        status=True,
    )
    claim = Rules(
        default=data.default_claim,
        prepare_create=data.prepare_claim,
        check=data.check_claim,
        check_update=data.check_claim_update,
        warn=data.warn_claim,
        status=True,
    )
    volume = Rules(
        default=data.default_volume,
        prepare_create=data.prepare_volume,
        check=rare.check_persistent_volume,
        warn=data.warn_claim,
        status=True,
    )
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
    node = Rules(default=data.default_node, status=True, resets_status=False)
    finalize = Subresource("finalize", ("update",))
    proxy = connect("proxy", "NodeProxyOptions", PROXY_VERBS)
    service_proxy = connect("proxy", "ServiceProxyOptions", PROXY_VERBS)
    return (
        kind_row("v1", "Binding", "bindings", verbs=_CREATE),
        kind_row("v1", "ConfigMap", "configmaps", "cm", rules=config_map),
        kind_row(
            "v1",
            "Endpoints",
            "endpoints",
            "ep",
            rules=Rules(default=networking.default_endpoints, create_on_update=True),
        ),
        kind_row("v1", "Event", "events", "ev", rules=_EVENT),
        kind_row(
            "v1",
            "LimitRange",
            "limitranges",
            "limits",
            rules=Rules(default=data.default_limit_range, check=data.check_limit_range, create_on_update=True),
        ),
        kind_row(
            "v1",
            "Namespace",
            "namespaces",
            "ns",
            cluster=True,
            verbs=_NAMESPACE_VERBS,
            subresources=(finalize,),
            rules=namespace,
        ),
        kind_row("v1", "Node", "nodes", "no", cluster=True, subresources=(proxy,), rules=node),
        kind_row("v1", "PersistentVolumeClaim", "persistentvolumeclaims", "pvc", rules=claim),
        kind_row("v1", "PersistentVolume", "persistentvolumes", "pv", cluster=True, rules=volume),
        kind_row("v1", "Pod", "pods", "po", all_=True, subresources=POD_SUBRESOURCES, rules=_POD),
        kind_row(
            "v1",
            "PodTemplate",
            "podtemplates",
            rules=Rules(default=pods.default_pod_template, check=rare.check_pod_template, generation=("template",)),
        ),
        kind_row(
            "v1",
            "ReplicationController",
            "replicationcontrollers",
            "rc",
            all_=True,
            subresources=(SCALE,),
            rules=controller,
        ),
        kind_row(
            "v1",
            "ResourceQuota",
            "resourcequotas",
            "quota",
            rules=Rules(check=data.check_quota, check_update=data.check_quota_update, status=True),
        ),
        kind_row("v1", "Secret", "secrets", rules=secret),
        kind_row("v1", "ServiceAccount", "serviceaccounts", "sa", subresources=(_TOKEN,)),
        kind_row("v1", "Service", "services", "svc", all_=True, subresources=(service_proxy,), rules=_SERVICE),
    )


def _apps_and_batch() -> tuple[Kind, ...]:
    daemon_set = Rules(
        default=workloads.default_daemon_set,
        prepare_create=workloads.prepare_daemon_set,
        prepare_update=workloads.prepare_daemon_set_update,
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
        kind_row(
            "apps/v1", "ControllerRevision", "controllerrevisions", rules=Rules(check=rare.check_controller_revision)
        ),
        kind_row("apps/v1", "DaemonSet", "daemonsets", "ds", all_=True, rules=daemon_set),
        kind_row("apps/v1", "Deployment", "deployments", "deploy", all_=True, subresources=(SCALE,), rules=_DEPLOYMENT),
        kind_row("apps/v1", "ReplicaSet", "replicasets", "rs", all_=True, subresources=(SCALE,), rules=replica_set),
        kind_row("apps/v1", "StatefulSet", "statefulsets", "sts", all_=True, subresources=(SCALE,), rules=stateful_set),
        kind_row("batch/v1", "CronJob", "cronjobs", "cj", all_=True, rules=cron_job),
        kind_row("batch/v1", "Job", "jobs", all_=True, rules=job),
    )


def _networking() -> tuple[Kind, ...]:
    endpoint_slice = Rules(
        default=networking.default_endpoint_slice,
        check=networking.check_endpoint_slice,
        check_update=networking.check_endpoint_slice_update,
        generation=("endpoints", "ports", "addressType", "metadata.labels"),
    )
    policy = Rules(default=networking.default_network_policy, check=networking.check_network_policy, generation=_SPEC)
    ingress = Rules(check=networking.check_ingress, warn=networking.warn_ingress, generation=_SPEC, status=True)
    lease = Rules(check=access.check_lease, create_on_update=True, unconditional=False)
    return (
        kind_row("discovery.k8s.io/v1", "EndpointSlice", "endpointslices", rules=endpoint_slice),
        kind_row("coordination.k8s.io/v1", "Lease", "leases", rules=lease),
        kind_row(
            "events.k8s.io/v1",
            "Event",
            "events",
            "ev",
            rules=Rules(check=access.check_event, create_on_update=True),
            storage=_CORE_EVENTS,
            from_storage=conversions.event_from_core,
            to_storage=conversions.event_to_core,
        ),
        kind_row("networking.k8s.io/v1", "Ingress", "ingresses", "ing", rules=ingress),
        kind_row(
            "networking.k8s.io/v1",
            "IngressClass",
            "ingressclasses",
            cluster=True,
            rules=Rules(check=rare.check_ingress_class, generation=_SPEC),
        ),
        kind_row("networking.k8s.io/v1", "IPAddress", "ipaddresses", "ip", cluster=True),
        kind_row("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies", "netpol", rules=policy),
        kind_row("networking.k8s.io/v1", "ServiceCIDR", "servicecidrs", cluster=True, status=True),
    )


def _policy_and_scaling() -> tuple[Kind, ...]:
    budget = Rules(check=data.check_disruption_budget, generation=_SPEC, status=True, unconditional=False)
    priority = Rules(
        default=data.default_priority_class,
        check=data.check_priority_class,
        check_update=data.check_priority_class_update,
        generation=("value",),
    )
    flow, flow_rules = "flowcontrol.apiserver.k8s.io/v1", Rules(generation=_SPEC, status=True)
    return (
        kind_row("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", "pdb", rules=budget),
        kind_row(
            "autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", "hpa", all_=True, rules=_AUTOSCALER
        ),
        kind_row(
            "autoscaling/v1",
            "HorizontalPodAutoscaler",
            "horizontalpodautoscalers",
            "hpa",
            all_=True,
            rules=_OLD_AUTOSCALER,
            storage=_AUTOSCALERS,
            from_storage=conversions.autoscaler_to_v1,
            to_storage=conversions.autoscaler_from_v1,
        ),
        kind_row("scheduling.k8s.io/v1", "PriorityClass", "priorityclasses", "pc", cluster=True, rules=priority),
        kind_row(
            "node.k8s.io/v1",
            "RuntimeClass",
            "runtimeclasses",
            cluster=True,
            rules=Rules(check=rare.check_runtime_class, unconditional=False),
        ),
        kind_row(flow, "FlowSchema", "flowschemas", cluster=True, rules=flow_rules),
        kind_row(flow, "PriorityLevelConfiguration", "prioritylevelconfigurations", cluster=True, rules=flow_rules),
    )


def _access() -> tuple[Kind, ...]:
    rbac, authentication = "rbac.authorization.k8s.io/v1", "authentication.k8s.io/v1"
    authorization = "authorization.k8s.io/v1"
    signing = Rules(check=access.check_signing_request, prepare_update=access.keep_signing_request, status=True)
    return (
        kind_row(rbac, "ClusterRoleBinding", "clusterrolebindings", cluster=True, rules=_BINDING),
        kind_row(rbac, "ClusterRole", "clusterroles", cluster=True, rules=_ROLE),
        kind_row(rbac, "RoleBinding", "rolebindings", rules=_BINDING),
        kind_row(rbac, "Role", "roles", rules=_ROLE),
        kind_row(authentication, "SelfSubjectReview", "selfsubjectreviews", cluster=True, verbs=_CREATE),
        kind_row(authentication, "TokenReview", "tokenreviews", cluster=True, verbs=_CREATE),
        kind_row(authorization, "LocalSubjectAccessReview", "localsubjectaccessreviews", verbs=_CREATE),
        kind_row(authorization, "SelfSubjectAccessReview", "selfsubjectaccessreviews", cluster=True, verbs=_CREATE),
        kind_row(authorization, "SelfSubjectRulesReview", "selfsubjectrulesreviews", cluster=True, verbs=_CREATE),
        kind_row(authorization, "SubjectAccessReview", "subjectaccessreviews", cluster=True, verbs=_CREATE),
        kind_row(
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
    registration = "admissionregistration.k8s.io/v1"
    policy = Rules(
        default=admission.default_admission_policy,
        check=admission.check_admission_policy,
        generation=_SPEC,
        status=True,
        unconditional=False,
    )
    binding = Rules(
        default=admission.default_admission_policy,
        check=admission.check_policy_binding,
        generation=_SPEC,
        unconditional=False,
    )
    crd = Rules(generation=_SPEC, status=True)
    return (
        kind_row(
            registration,
            "MutatingWebhookConfiguration",
            "mutatingwebhookconfigurations",
            cluster=True,
            extensions=True,
            rules=_WEBHOOKS,
        ),
        kind_row(
            registration,
            "ValidatingAdmissionPolicy",
            "validatingadmissionpolicies",
            cluster=True,
            extensions=True,
            rules=policy,
        ),
        kind_row(
            registration,
            "ValidatingAdmissionPolicyBinding",
            "validatingadmissionpolicybindings",
            cluster=True,
            extensions=True,
            rules=binding,
        ),
        kind_row(
            registration,
            "ValidatingWebhookConfiguration",
            "validatingwebhookconfigurations",
            cluster=True,
            extensions=True,
            rules=_WEBHOOKS,
        ),
        kind_row(
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
    storage_class = Rules(
        default=data.default_storage_class,
        check=data.check_storage_class,
        check_update=rare.check_storage_class_update,
    )
    return (
        kind_row(
            "storage.k8s.io/v1",
            "CSIDriver",
            "csidrivers",
            cluster=True,
            rules=Rules(default=data.default_csi_driver, unconditional=False),
        ),
        kind_row("storage.k8s.io/v1", "CSINode", "csinodes", cluster=True, rules=_VERSIONED),
        kind_row("storage.k8s.io/v1", "CSIStorageCapacity", "csistoragecapacities", rules=_VERSIONED),
        kind_row("storage.k8s.io/v1", "StorageClass", "storageclasses", "sc", cluster=True, rules=storage_class),
        kind_row("storage.k8s.io/v1", "VolumeAttributesClass", "volumeattributesclasses", "vac", cluster=True),
        kind_row(
            "storage.k8s.io/v1",
            "VolumeAttachment",
            "volumeattachments",
            cluster=True,
            rules=Rules(status=True, unconditional=False),
        ),
    )
