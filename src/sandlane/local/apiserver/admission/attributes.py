"""One write as admission sees it, and which rules of a configuration it falls under. Pure but for the store's namespaces.

Matching: https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#matching-requests-rules.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from sandlane.kube.resource import Key, Object
from sandlane.kube.selectors import matches, selector_of
from sandlane.local.apiserver.registry import Registry
from sandlane.local.apiserver.resource_type import ResourceType
from sandlane.local.apiserver.store.objects import ObjectStore
from sandlane.local.apiserver.writer import Write

EXEMPT_GROUP = "admissionregistration.k8s.io"


@dataclass(frozen=True)
class Attributes:
    """A write: `operation` is CREATE, UPDATE, DELETE or CONNECT; `new` or `old` is None where there is none."""

    write: Write
    operation: str
    new: Object | None
    old: Object | None

    @property
    def type_(self) -> ResourceType:
        """What is written."""
        return self.write.type_

    @property
    def kind(self) -> dict[str, str]:
        """The group, version and kind of the objects."""
        what = self.write.seen or self.type_.resource
        return {"group": what.group, "version": what.version, "kind": what.kind}

    @property
    def namespace(self) -> str:
        """Where it is written; a Namespace counts as in itself."""
        return self.name if self.type_.storage_key == ("", "namespaces") else self.write.namespace

    @property
    def name(self) -> str:
        """The object's name; empty while it is to be generated, and where many are deleted at once."""
        if self.write.one_of_many:
            return ""
        return str(self.write.name or (self.new or {}).get("metadata", {}).get("name", ""))

    def options(self) -> Object | None:
        """The options of the operation."""
        if self.operation == "CONNECT":
            return None
        options: Object = {"kind": f"{self.operation.capitalize()}Options", "apiVersion": "meta.k8s.io/v1"}
        if self.write.dry_run:
            options["dryRun"] = ["All"]
        return options | {key: value for key, value in self.write.options.items() if key not in ("kind", "apiVersion")}


def user_info(user: Any) -> Object:
    """`authentication.k8s.io/v1` UserInfo."""
    info: Object = {"username": user.name, "groups": list(user.groups)}
    if user.uid:
        info["uid"] = user.uid
    if user.extra:
        info["extra"] = {key: list(values) for key, values in user.extra.items()}
    return info


class Matcher:
    """Decides which webhooks and policies a write concerns."""

    def __init__(self, store: ObjectStore, registry: Registry) -> None:
        self._store = store
        self._registry = registry

    def namespace(self, at: Attributes) -> Object | None:
        """The Namespace that a write happens in, or that is written; None for other cluster-scoped objects."""
        if at.type_.storage_key == ("", "namespaces"):
            return at.new or at.old
        if not at.type_.resource.namespaced:
            return None
        stored = self._store.get(("", "namespaces"), Key("", at.write.namespace))
        return msgspec.json.decode(stored.data) if stored is not None else None

    def served_as(
        self, at: Attributes, rules: Iterable[Object], policy: str, excluded: Iterable[Object] = ()
    ) -> ResourceType | None:
        """The version of the resource by which a rule matches, or None. Equivalent versions count where asked."""
        types = [at.type_]
        if policy != "Exact":
            types += [t for t in self._registry if t.storage_key == at.type_.storage_key and t is not at.type_]
        if any(_fits(rule, at, type_) for rule in excluded for type_ in types):
            return None
        return next((type_ for type_ in types for rule in rules if _fits(rule, at, type_)), None)

    def selected(self, at: Attributes, namespaces: Object | None, objects: Object | None) -> bool:
        """Whether the selectors of a webhook or policy admit the write."""
        if namespaces:
            namespace = self.namespace(at)
            if namespace is not None and not _selects(namespaces, namespace):
                return False
        if not objects:
            return True
        return any(each is not None and _selects(objects, each) for each in (at.new, at.old))


def _selects(selector: Object, obj: Object) -> bool:
    parsed = selector_of(selector)
    return parsed is not None and matches(parsed, obj["metadata"].get("labels") or {})


def _fits(rule: Object, at: Attributes, type_: ResourceType) -> bool:
    resource, subresource = type_.resource, at.write.subresource
    scope = rule.get("scope") or "*"
    if scope != "*" and (scope == "Namespaced") != resource.namespaced:
        return False
    if not {"*", at.operation} & set(rule.get("operations") or ()):
        return False
    if not {"*", resource.group} & set(rule.get("apiGroups") or ()):
        return False
    if not {"*", resource.version} & set(rule.get("apiVersions") or ()):
        return False
    only = rule.get("resourceNames") or ()
    if only and at.name not in only:
        return False
    return any(_names(each, resource.plural, subresource) for each in rule.get("resources") or ())


def _names(pattern: str, plural: str, subresource: str) -> bool:
    name, _, sub = pattern.partition("/")
    return name in ("*", plural) and sub in ("*", subresource)
