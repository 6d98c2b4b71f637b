"""Who may do what: the manager's own rights, no more than it uses, and roles for users. Pure.

A test runs the product with these rights and compares them with what was asked for. Applying needs `create` beside `patch`:
the API server asks for both where the object is not there yet.
"""

from __future__ import annotations

from collections.abc import Iterable

from sandlane.api.places import MANAGER_NAME, WEBHOOK_SERVICE
from sandlane.kube.resource import Object
from sandlane.preview.resources import XDS_SECRET as PREVIEW_SECRET
from sandlane.routing.envoy.identity import CERTIFICATE
from sandlane.routing.names import ROUTER_SECRET
from sandlane.tunnel.authority import SECRET as AUTHORITY
from sandlane.tunnel.identity import SIGNER
from sandlane.tunnel.resources import NAME as TUNNEL
from sandlane.tunnel.resources import XDS_SECRET

RBAC = "rbac.authorization.k8s.io"
SECRETS = (AUTHORITY, CERTIFICATE, f"{WEBHOOK_SERVICE}-certificate")
"""In our own namespace, beside the tunnel servers' certificate."""
CONNECT = "sandlane-connect"
FORWARD = "sandlane-port-forward"
_OURS = ("localworkloads", "routegroups", "sandboxes")
_WATCH = ("list", "watch")


def manager_rules() -> list[Object]:
    """In all namespaces."""
    return [
        _rule("sandlane.dev", _OURS, (*_WATCH, "patch")),
        _rule("sandlane.dev", ("routegroups", "sandboxes"), ("delete",)),  # when their time is over
        _rule("sandlane.dev", ("localworkloads",), ("get", "create", "delete")),  # those of sandboxes
        _rule("sandlane.dev", (f"{name}/status" for name in _OURS), ("patch",)),
        # Where OwnerReferencesPermissionEnforcement is on, as on OpenShift: owners whose deletion waits for what they own.
        _rule("sandlane.dev", ("sandboxes/finalizers",), ("update",)),
        _rule("apps", ("deployments",), (*_WATCH, "get", "create", "patch", "delete")),
        _rule("", ("services",), (*_WATCH, "get", "create", "patch", "delete")),
        _rule("policy", ("poddisruptionbudgets",), ("get", "create", "patch", "delete")),
        # The certificate that a namespace's routers show to the xDS server. `create` cannot be bound to a name.
        _rule("", ("secrets",), ("create",)),
        _rule("", ("secrets",), ("get", "patch", "delete"), names=(ROUTER_SECRET,)),
        _rule("", ("namespaces", "persistentvolumeclaims", "pods", "resourcequotas"), _WATCH),
        _rule("", ("pods/log",), ("get",)),
        _rule("discovery.k8s.io", ("endpointslices",), _WATCH),
        _rule("networking.k8s.io", ("networkpolicies",), _WATCH),
        _rule("events.k8s.io", ("events",), ("create", "patch")),
        _rule("authentication.k8s.io", ("tokenreviews",), ("create",)),  # with metricsAuth, routesAuth
        _rule("authorization.k8s.io", ("subjectaccessreviews",), ("create",)),
        _rule("certificates.k8s.io", ("certificatesigningrequests",), _WATCH),
        _rule(
            "certificates.k8s.io",
            ("certificatesigningrequests/approval", "certificatesigningrequests/status"),
            ("update",),
        ),
        _rule("certificates.k8s.io", ("signers",), ("approve", "sign"), names=(SIGNER,)),
        _rule(
            "admissionregistration.k8s.io",
            ("mutatingwebhookconfigurations", "validatingwebhookconfigurations"),
            ("get", "patch"),
            names=(WEBHOOK_SERVICE,),
        ),
    ]


def own_rules() -> list[Object]:
    """In the manager's own namespace. `create` cannot be bound to a name."""
    return [
        _rule("coordination.k8s.io", ("leases",), ("create",)),
        _rule("coordination.k8s.io", ("leases",), ("get", "update", "watch"), names=(MANAGER_NAME,)),
        _rule("", ("secrets",), ("get", "update"), names=SECRETS),
        _rule("", ("secrets",), ("get", "patch"), names=(XDS_SECRET,)),
        _rule("", ("secrets",), ("get", "patch", "delete"), names=(PREVIEW_SECRET,)),
        _rule("", ("configmaps",), ("create",)),
        _rule("", ("configmaps",), ("get", "patch"), names=(TUNNEL,)),
    ]


def rights(namespace: str) -> list[Object]:
    """ServiceAccount, roles and bindings."""
    subject = {"kind": "ServiceAccount", "name": MANAGER_NAME, "namespace": namespace}
    everybody = {"kind": "Group", "name": "system:authenticated", "apiGroup": RBAC}
    readable = [_rule("", ("configmaps",), ("get",), names=(TUNNEL,))]
    view = [_rule("sandlane.dev", _OURS, ("get", *_WATCH))]
    edit = [_rule("sandlane.dev", _OURS, ("get", *_WATCH, "create", "delete", "deletecollection", "patch", "update"))]
    edit += [_rule("sandlane.dev", ("localworkloads",), ("connect",))]
    connect = [_rule("certificates.k8s.io", ("certificatesigningrequests",), ("create", "get"))]
    # For users, bound by nobody but who installs: laptops that reach the tunnel servers by port-forward.
    forward = [_rule("", ("pods",), ("list",)), _rule("", ("pods/portforward",), ("create", "get"))]
    return [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": MANAGER_NAME, "namespace": namespace},
            "automountServiceAccountToken": False,
        },
        _role("ClusterRole", MANAGER_NAME, manager_rules()),
        _binding("ClusterRole", MANAGER_NAME, subject),
        _role("Role", MANAGER_NAME, own_rules(), namespace),
        _binding("Role", MANAGER_NAME, subject, namespace),
        _role("ClusterRole", "sandlane-view", view, labels=_gathered("view", "edit", "admin")),
        _role("ClusterRole", "sandlane-edit", edit, labels=_gathered("edit", "admin")),
        _role("ClusterRole", CONNECT, connect),
        _role("Role", CONNECT, readable, namespace),
        _role("Role", FORWARD, forward, namespace),
        _binding("Role", CONNECT, everybody, namespace),
    ]


def _rule(group: str, resources: Iterable[str], verbs: Iterable[str], *, names: Iterable[str] = ()) -> Object:
    rule: Object = {"apiGroups": [group], "resources": list(resources)}
    if listed := list(names):
        rule["resourceNames"] = listed
    return rule | {"verbs": sorted(verbs)}


def _gathered(*roles: str) -> dict[str, str]:
    return {f"{RBAC}/aggregate-to-{role}": "true" for role in roles}


def _role(
    kind: str, name: str, rules: list[Object], namespace: str = "", labels: dict[str, str] | None = None
) -> Object:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {}) | ({"labels": labels} if labels else {})
    return {"apiVersion": f"{RBAC}/v1", "kind": kind, "metadata": metadata, "rules": rules}


def _binding(kind: str, name: str, subject: Object, namespace: str = "") -> Object:
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": f"{kind}Binding",
        "metadata": {"name": name} | ({"namespace": namespace} if namespace else {}),
        "roleRef": {"apiGroup": RBAC, "kind": kind, "name": name},
        "subjects": [subject],
    }
