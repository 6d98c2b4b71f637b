"""Nobody gives rights that they do not have: roles and bindings are checked against the rights of who writes them.

The verb `escalate` on a role, and `bind` on the role of a binding, lift this.
"""

from __future__ import annotations

from sandlane.kube.resource import Object
from sandlane.local.apiserver.auth.rbac import GROUP, Attributes, Rbac, covers
from sandlane.local.apiserver.auth.user import MASTERS, User
from sandlane.local.apiserver.status import forbidden, not_found
from sandlane.local.apiserver.writer import Write

_ROLES = ("roles", "clusterroles")
_BINDINGS = ("rolebindings", "clusterrolebindings")


class Escalation:
    """Checks writes of the RBAC group."""

    def __init__(self, rbac: Rbac) -> None:
        self._rbac = rbac

    def check(self, write: Write, new: Object | None, old: Object | None) -> None:
        """Raises `StatusError` 403 for a role or binding that gives more than its author has."""
        resource, user = write.type_.resource, write.user
        if resource.group != GROUP or new is None or user is None or MASTERS in user.groups:
            return
        if resource.plural in _ROLES:
            if old is not None and old.get("rules") == new.get("rules") and _gathers(old) == _gathers(new):
                return
            if self._may(user, "escalate", resource.plural, write.namespace, new["metadata"].get("name", "")):
                return
            rules = list(new.get("rules") or ())
            if _gathers(new):
                rules.append({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]})
        elif resource.plural in _BINDINGS:
            reference = new["roleRef"]
            if old is not None and old.get("subjects") == new.get("subjects") and old["roleRef"] == reference:
                return
            if self._may(user, "bind", reference["kind"].lower() + "s", write.namespace, reference["name"]):
                return
            given = self._rbac.role_rules(reference, write.namespace)
            if given is None:
                raise not_found(GROUP, f"{reference['kind'].lower()}s", reference["name"])
            rules = given
        else:
            return
        own = [rule for rule, _ in self._rbac.rules(user.name, user.groups, write.namespace)]
        missing = [rule for rule in rules if not covers(own, rule)]
        if missing:
            groups = ", ".join(f'"{group}"' for group in user.groups)
            why = (
                f'user "{user.name}" (groups=[{groups}]) is attempting to grant RBAC permissions not currently held:\n'
            )
            why += "\n".join(_text(rule) for rule in missing)
            raise forbidden(GROUP, resource.plural, new["metadata"].get("name", ""), why)

    def _may(self, user: User, verb: str, plural: str, namespace: str, name: str) -> bool:
        wanted = Attributes(verb, GROUP, plural, namespace=namespace, name=name)
        return self._rbac.allowed(user.name, user.groups, wanted) is not None


def _gathers(role: Object) -> object:
    return role.get("aggregationRule") or None


def _text(rule: Object) -> str:
    titles = {
        "apiGroups": "APIGroups",
        "resources": "Resources",
        "resourceNames": "ResourceNames",
        "nonResourceURLs": "NonResourceURLs",
        "verbs": "Verbs",
    }
    shown = []
    for key, title in titles.items():
        if rule.get(key):
            shown.append(f"{title}:[" + ", ".join(f'"{value}"' for value in rule[key]) + "]")
    return "{" + ", ".join(shown) + "}"
