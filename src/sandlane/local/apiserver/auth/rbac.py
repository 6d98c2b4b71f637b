"""RBAC: which rules a user has, and whether they allow a request.

Rules: https://kubernetes.io/docs/reference/access-authn-authz/rbac/. Members of `system:masters` may do everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec

from sandlane.kube.resource import Object
from sandlane.kube.selectors import matches, selector_of
from sandlane.local.apiserver.auth.user import MASTERS, SERVICE_ACCOUNT
from sandlane.local.apiserver.resource_type import StorageKey
from sandlane.local.apiserver.store.objects import Event, ObjectStore

GROUP = "rbac.authorization.k8s.io"


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


class Rbac:
    """The rules in a store, decoded once per change."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._decoded: dict[str, list[Object]] = {}
        store.on_write.append(self._written)

    def allowed(self, user: str, groups: Iterable[str], wanted: Attributes) -> str | None:
        """Why a request is allowed, or None."""
        groups = list(groups)
        if MASTERS in groups:
            return ""
        for rule, source in self.rules(user, groups, wanted.namespace):
            if _fits(rule, wanted):
                return f"RBAC: allowed by {source} to {_subject_text(user)}"
        return None

    def rules(self, user: str, groups: Iterable[str], namespace: str) -> Iterator[tuple[Object, str]]:
        """The rules that a user has in a namespace (everywhere, where it is empty), with the bindings that give them."""
        member = set(groups)
        for binding in self._objects("clusterrolebindings"):
            if _binds(binding, user, member, ""):
                yield from self._rules_of(binding, "")
        for binding in self._objects("rolebindings") if namespace else ():
            if binding["metadata"]["namespace"] == namespace and _binds(binding, user, member, namespace):
                yield from self._rules_of(binding, namespace)

    def role_rules(self, reference: Object, namespace: str) -> list[Object] | None:
        """The rules of a role by reference; None where it is not there. A ClusterRole may gather those of others, at once:
        what a controller has written into it from them does not count."""
        found = self._objects("clusterroles")
        if reference["kind"] == "Role":
            found = [role for role in self._objects("roles") if role["metadata"]["namespace"] == namespace]
        role = next((role for role in found if role["metadata"]["name"] == reference["name"]), None)
        if role is None:
            return None
        aggregation = (role.get("aggregationRule") or {}).get("clusterRoleSelectors") or ()
        rules = [] if aggregation else list(role.get("rules") or ())
        selectors = [selector for each in aggregation if (selector := selector_of(each)) is not None]
        for other in self._objects("clusterroles") if selectors else ():
            labels = other["metadata"].get("labels") or {}
            if other is not role and any(matches(selector, labels) for selector in selectors):
                rules += other.get("rules") or ()
        return rules

    def _rules_of(self, binding: Object, namespace: str) -> Iterator[tuple[Object, str]]:
        reference = binding["roleRef"]
        name = binding["metadata"]["name"]
        where = f'RoleBinding "{name}/{namespace}"' if namespace else f'ClusterRoleBinding "{name}"'
        for rule in self.role_rules(reference, namespace) or ():
            yield rule, f'{where} of {reference["kind"]} "{reference["name"]}"'

    def _objects(self, plural: str) -> list[Object]:
        if plural not in self._decoded:
            storage: StorageKey = (GROUP, plural)
            self._decoded[plural] = [msgspec.json.decode(stored.data) for _, stored in self._store.list(storage)]
        return self._decoded[plural]

    def _written(self, storage: StorageKey, event: Event) -> None:
        if storage[0] == GROUP:
            self._decoded.pop(storage[1], None)


def covers(rules: Iterable[Object], wanted: Object) -> bool:
    """Whether rules allow all that one rule does, item by item."""
    rules = list(rules)
    names = wanted.get("resourceNames") or [""]
    asked = [
        Attributes(verb, group, *_split(resource), name=name)
        for verb in wanted.get("verbs") or ()
        for group in wanted.get("apiGroups") or ()
        for resource in wanted.get("resources") or ()
        for name in names
    ]
    asked += [Attributes(v, path=p) for v in wanted.get("verbs") or () for p in wanted.get("nonResourceURLs") or ()]
    return all(any(_fits(rule, each) for rule in rules) for each in asked)


def _split(resource: str) -> tuple[str, str]:
    name, _, subresource = resource.partition("/")
    return name, subresource


def _subject_text(user: str) -> str:
    if user.startswith(SERVICE_ACCOUNT):
        namespace, _, name = user.removeprefix(SERVICE_ACCOUNT).partition(":")
        return f'ServiceAccount "{name}/{namespace}"'
    return f'User "{user}"'


def _binds(binding: Object, user: str, groups: set[str], namespace: str) -> bool:
    for subject in binding.get("subjects") or ():
        name = subject["name"]
        match subject.get("kind"):
            case "User" if name == user:
                return True
            case "Group" if name in groups:
                return True
            case "ServiceAccount" if user == f"{SERVICE_ACCOUNT}{subject.get('namespace') or namespace}:{name}":
                return True
    return False


def _fits(rule: Object, wanted: Attributes) -> bool:
    if not {"*", wanted.verb} & set(rule.get("verbs") or ()):
        return False
    if wanted.path:
        return any(
            url in ("*", wanted.path) or (url.endswith("*") and wanted.path.startswith(url[:-1]))
            for url in rule.get("nonResourceURLs") or ()
        )
    if not {"*", wanted.group} & set(rule.get("apiGroups") or ()):
        return False
    name = f"{wanted.resource}/{wanted.subresource}" if wanted.subresource else wanted.resource
    resources = set(rule.get("resources") or ())
    if not {"*", name} & resources and not (wanted.subresource and f"*/{wanted.subresource}" in resources):
        return False
    only = rule.get("resourceNames") or ()
    return not only or wanted.name in only
