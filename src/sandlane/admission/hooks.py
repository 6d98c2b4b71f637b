"""The webhooks of the product: which requests are asked about, on a laptop and on a real cluster. Pure.

Deleting, finalizers, labels and status never depend on the manager: only what changes a spec, or the annotation that says
who asked for it, does. Webhooks of turned Services are passed over when nobody answers: a watch repairs what they miss.
"""

from __future__ import annotations

from collections.abc import Iterator

from sandlane.api.labels import ORIGINAL, REQUESTED_BY
from sandlane.kube.resource import LOCAL_WORKLOADS, ROUTE_GROUPS, SANDBOXES, SERVICES
from sandlane.runtime.webhook_rules import Hook


def _requester(of: str) -> str:
    annotations = f"{of}.metadata.annotations"
    return f"(has({annotations}) && '{REQUESTED_BY}' in {annotations} ? {annotations}['{REQUESTED_BY}'] : '')"


LIVING = {"not-being-deleted": "oldObject == null || !has(oldObject.metadata.deletionTimestamp)"}
SPEC_CHANGES = "!has(object.spec) || object.spec != oldObject.spec"
SPEC = {"spec-changes": f"oldObject == null || {SPEC_CHANGES}"}
SPEC_OR_REQUESTER = {
    "spec-or-requester-changes": (
        f"oldObject == null || {SPEC_CHANGES} || {_requester('object')} != {_requester('oldObject')}"
    )
}
TURNED = {"turned": f"has(oldObject.metadata.annotations) && '{ORIGINAL}' in oldObject.metadata.annotations"}

KINDS = (SANDBOXES, ROUTE_GROUPS, LOCAL_WORKLOADS)
DEFAULTING = {resource: Hook("mutate", resource, conditions=LIVING | SPEC_OR_REQUESTER) for resource in KINDS}
VALIDATING = {resource: Hook("validate", resource, conditions=LIVING | SPEC) for resource in KINDS}
TURNED_SERVICES = Hook("mutate", SERVICES, ("UPDATE",), conditions=TURNED, failure_policy="Ignore", timeout_seconds=2)


def all_hooks() -> Iterator[Hook]:
    """Every webhook."""
    yield from DEFAULTING.values()
    yield TURNED_SERVICES
    yield from VALIDATING.values()
