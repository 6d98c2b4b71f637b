"""The ClusterRoles and ClusterRoleBindings that every cluster has, as far as they concern users and ServiceAccounts.

As upstream, `cluster-admin`, `admin`, `edit` and `view` are for people to bind; the `system:` ones say what everybody may do. Other
ClusterRoles join `admin`, `edit` and `view` by the labels `rbac.authorization.k8s.io/aggregate-to-*`.
"""

from __future__ import annotations

from collections.abc import Iterable

from sandlane.kube.resource import Object
from sandlane.local.apiserver.auth.rbac import GROUP
from sandlane.local.apiserver.auth.user import AUTHENTICATED, MASTERS, SERVICE_ACCOUNTS, UNAUTHENTICATED

_READ = ("get", "list", "watch")
_WRITE = ("create", "delete", "deletecollection", "patch", "update")
_AUTOUPDATE = {"rbac.authorization.kubernetes.io/autoupdate": "true"}
_LABELS = {"kubernetes.io/bootstrapping": "rbac-defaults"}

_VIEWED: dict[str, str] = {
    "": "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods replicationcontrollers "
    "replicationcontrollers/scale serviceaccounts services services/status bindings events limitranges "
    "namespaces/status pods/log pods/status replicationcontrollers/status resourcequotas resourcequotas/status "
    "namespaces",
    "discovery.k8s.io": "endpointslices",
    "apps": "controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status "
    "replicasets replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status",
    "autoscaling": "horizontalpodautoscalers horizontalpodautoscalers/status",
    "batch": "cronjobs cronjobs/status jobs jobs/status",
    "policy": "poddisruptionbudgets poddisruptionbudgets/status",
    "networking.k8s.io": "ingresses ingresses/status networkpolicies",
}
_EDITED: dict[str, str] = {
    "": "configmaps events persistentvolumeclaims pods pods/attach pods/exec pods/portforward pods/proxy "
    "replicationcontrollers replicationcontrollers/scale secrets serviceaccounts services services/proxy",
    "apps": "daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale "
    "statefulsets statefulsets/scale",
    "autoscaling": "horizontalpodautoscalers",
    "batch": "cronjobs jobs",
    "policy": "poddisruptionbudgets",
    "networking.k8s.io": "ingresses networkpolicies",
    "coordination.k8s.io": "leases",
}


def bootstrap_roles() -> list[Object]:
    """The ClusterRoles."""
    every = _rule("*", "*", ("*",))
    paths: Object = {"nonResourceURLs": ["*"], "verbs": ["*"]}
    view = [_rule(group, names, _READ) for group, names in _VIEWED.items()]
    edit = [
        _rule("", "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy", _READ),
        _rule("", "serviceaccounts", ("impersonate",)),
        *(_rule(group, names, _WRITE) for group, names in _EDITED.items()),
        _rule("", "pods/eviction serviceaccounts/token", ("create",)),
        _rule("coordination.k8s.io", "leases", _READ),
    ]
    admin = [
        _rule("authorization.k8s.io", "localsubjectaccessreviews", ("create",)),
        _rule(GROUP, "rolebindings roles", (*_WRITE, *_READ)),
    ]
    reviews = [
        _rule("authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews", ("create",)),
        _rule("authentication.k8s.io", "selfsubjectreviews", ("create",)),
    ]
    delegator = [
        _rule("authentication.k8s.io", "tokenreviews", ("create",)),
        _rule("authorization.k8s.io", "subjectaccessreviews", ("create",)),
    ]
    public = ("/healthz", "/livez", "/readyz", "/version", "/version/")
    found = (*public, "/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*")
    issuer = ("/.well-known/openid-configuration", "/.well-known/openid-configuration/", "/openid/v1/jwks")
    return [
        _role("cluster-admin", [every, paths]),
        _gathering("admin"),
        _gathering("edit", "admin"),
        _gathering("view", "edit"),
        _role("system:aggregate-to-admin", admin, "admin"),
        _role("system:aggregate-to-edit", edit, "edit", "admin"),
        _role("system:aggregate-to-view", view, "view", "edit", "admin"),
        _role("system:auth-delegator", delegator),
        _role("system:basic-user", reviews),
        _role("system:discovery", [_paths(found)]),
        _role("system:monitoring", [_paths((*public, "/metrics", "/metrics/slis", "/livez/*", "/readyz/*"))]),
        _role("system:public-info-viewer", [_paths(public)]),
        _role("system:service-account-issuer-discovery", [_paths(issuer)]),
    ]


def bootstrap_bindings() -> list[Object]:
    """The ClusterRoleBindings."""
    return [
        _binding("cluster-admin", MASTERS),
        _binding("system:basic-user", AUTHENTICATED),
        _binding("system:discovery", AUTHENTICATED),
        _binding("system:monitoring", "system:monitoring"),
        _binding("system:public-info-viewer", AUTHENTICATED, UNAUTHENTICATED),
        _binding("system:service-account-issuer-discovery", SERVICE_ACCOUNTS),
    ]


def _rule(group: str, resources: str, verbs: Iterable[str]) -> Object:
    return {"apiGroups": [group], "resources": sorted(resources.split()), "verbs": sorted(verbs)}


def _paths(paths: Iterable[str]) -> Object:
    return {"nonResourceURLs": sorted(paths), "verbs": ["get"]}


def _metadata(name: str, labels: dict[str, str]) -> Object:
    return {"name": name, "labels": {**_LABELS, **labels}, "annotations": dict(_AUTOUPDATE)}


def _role(name: str, rules: list[Object], *gathered_by: str) -> Object:
    labels = {f"{GROUP}/aggregate-to-{role}": "true" for role in gathered_by}
    return {"apiVersion": f"{GROUP}/v1", "kind": "ClusterRole", "metadata": _metadata(name, labels), "rules": rules}


def _gathering(name: str, *gathered_by: str) -> Object:
    selector = {"matchLabels": {f"{GROUP}/aggregate-to-{name}": "true"}}
    return _role(name, [], *gathered_by) | {"aggregationRule": {"clusterRoleSelectors": [selector]}}


def _binding(role: str, *groups: str) -> Object:
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": _metadata(role, {}),
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": GROUP, "kind": "Group", "name": group} for group in groups],
    }
