"""Which requests a webhook is asked about, and the configurations that tell the API server so. Pure.

Every field that the API server would fill in is written out, so that what is there can be compared with what is wanted.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec

from sandlane.kube.resource import (
    MUTATING_WEBHOOK_CONFIGURATIONS,
    VALIDATING_WEBHOOK_CONFIGURATIONS,
    Object,
    Resource,
)

DEFAULT_OPERATIONS = ("CREATE", "UPDATE")
CONFIGURATIONS = {"mutate": MUTATING_WEBHOOK_CONFIGURATIONS, "validate": VALIDATING_WEBHOOK_CONFIGURATIONS}


class Hook(msgspec.Struct, frozen=True):
    """One webhook: served at `/verb-group-version-kind`, or at `/name` for another one of a kind.

    `conditions`: name -> CEL expression over `object`, `oldObject` and `request`; it is asked where all hold.
    """

    verb: Literal["mutate", "validate"]
    resource: Resource
    operations: tuple[str, ...] = DEFAULT_OPERATIONS
    name: str = ""
    conditions: Mapping[str, str] = {}
    failure_policy: Literal["Fail", "Ignore"] = "Fail"
    timeout_seconds: int = 10

    @property
    def path(self) -> str:
        """Where it is served, named as controller-runtime does."""
        if self.name:
            return f"/{self.name}"
        group = self.resource.group.replace(".", "-")
        return f"/{self.verb}-{group}-{self.resource.version}-{self.resource.kind.lower()}"


def configurations(
    hooks: Iterable[Hook], name: str, *, service: Object | None = None, url: str = "", bundle: bytes = b""
) -> list[Object]:
    """Webhook configurations for callers that reach us by a Service or by a URL; at most one of each kind."""
    found = []
    hooks = list(hooks)
    for verb, resource in CONFIGURATIONS.items():
        webhooks = [_webhook(hook, name, service, url, bundle) for hook in hooks if hook.verb == verb]
        if webhooks:
            head = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": name}}
            found.append(head | {"webhooks": webhooks})
    return found


def _webhook(hook: Hook, name: str, service: Object | None, url: str, bundle: bytes) -> Object:
    client: dict[str, Any]
    client = (
        {"service": {"port": 443, **service, "path": hook.path}} if service else {"url": url.rstrip("/") + hook.path}
    )
    if bundle:
        client["caBundle"] = base64.b64encode(bundle).decode()
    rule = {
        "apiGroups": [hook.resource.group],
        "apiVersions": [hook.resource.version],
        "resources": [hook.resource.plural],
        "operations": list(hook.operations),
        "scope": "Namespaced" if hook.resource.namespaced else "Cluster",
    }
    webhook: Object = {
        "name": f"{hook.path.strip('/').replace('.', '-')}.{name}.sandlane.dev",
        "clientConfig": client,
        "rules": [rule],
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": hook.failure_policy,
        "timeoutSeconds": hook.timeout_seconds,
        "matchPolicy": "Equivalent",
        "namespaceSelector": {},
        "objectSelector": {},
    }
    if hook.conditions:
        webhook["matchConditions"] = [{"name": key, "expression": value} for key, value in hook.conditions.items()]
    if hook.verb == "mutate":
        webhook["reinvocationPolicy"] = "Never"
    return webhook
