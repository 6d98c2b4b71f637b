"""RBAC: which rules a user has, and whether they allow a request. Pure over the store's objects.

Rules: https://kubernetes.io/docs/reference/access-authn-authz/rbac/. Members of `system:masters` may do everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from sandlane.kube.resource import Object

MASTERS = "system:masters"
GROUP = "rbac.authorization.k8s.io"
Objects = Callable[[str], Iterable[Object]]
"""All objects of a resource of the RBAC group, by its plural."""


@dataclass(frozen=True)
class Attributes:
    """What is asked for; `path` is set for requests that are not for a resource."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""


def rules_of(objects: Objects, user: str, groups: Iterable[str], namespace: str) -> Iterator[tuple[Object, str]]:
    """The rules that bind a user in a namespace, each with the binding that gives it."""
    member = set(groups)
    roles = {("ClusterRole", "", r["metadata"]["name"]): r for r in objects("clusterroles")}
    roles |= {("Role", r["metadata"]["namespace"], r["metadata"]["name"]): r for r in objects("roles")}
    bindings = [(b, "") for b in objects("clusterrolebindings")]
    bindings += [(b, b["metadata"]["namespace"]) for b in objects("rolebindings")]
    for binding, where in bindings:
        if where and where != namespace:
            continue
        if not any(_is_subject(subject, user, member, where) for subject in binding.get("subjects") or ()):
            continue
        reference = binding["roleRef"]
        role = roles.get((reference["kind"], where if reference["kind"] == "Role" else "", reference["name"]))
        kind = "RoleBinding" if where else "ClusterRoleBinding"
        for rule in (role or {}).get("rules") or ():
            yield rule, f'{kind} "{binding["metadata"]["name"]}" of {reference["kind"]} "{reference["name"]}"'


def allowed(objects: Objects, user: str, groups: Iterable[str], wanted: Attributes) -> str | None:
    """Why a request is allowed, or None."""
    groups = list(groups)
    if MASTERS in groups:
        return ""
    for rule, source in rules_of(objects, user, groups, wanted.namespace):
        if _fits(rule, wanted):
            return f'RBAC: allowed by {source} to User "{user}"'
    return None


def _is_subject(subject: Object, user: str, groups: set[str], namespace: str) -> bool:
    match subject.get("kind"):
        case "User":
            return bool(subject["name"] == user)
        case "Group":
            return subject["name"] in groups
        case "ServiceAccount":
            where = subject.get("namespace") or namespace
            return user == f"system:serviceaccount:{where}:{subject['name']}"
    return False


def _fits(rule: Object, wanted: Attributes) -> bool:
    if not {"*", wanted.verb} & set(rule.get("verbs") or ()):
        return False
    if wanted.path:
        return any(
            url == "*" or url == wanted.path or (url.endswith("*") and wanted.path.startswith(url[:-1]))
            for url in rule.get("nonResourceURLs") or ()
        )
    if not {"*", wanted.group} & set(rule.get("apiGroups") or ()):
        return False
    name = f"{wanted.resource}/{wanted.subresource}" if wanted.subresource else wanted.resource
    resources = set(rule.get("resources") or ())
    if not {"*", name} & resources and f"*/{wanted.subresource}" not in resources:
        return False
    only = rule.get("resourceNames") or ()
    return not only or wanted.name in only
