"""Which requests the webhooks are asked about: those that change a spec or forge its requester, and no other ones."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from sandlane.admission.hooks import DEFAULTING, TURNED_SERVICES, VALIDATING, all_hooks
from sandlane.api.labels import ORIGINAL, REQUESTED_BY
from sandlane.kube.resource import SANDBOXES
from sandlane.local.apiserver.admission.expressions import conditions_hold
from sandlane.runtime.webhook_rules import Hook

OLD: dict[str, Any] = {
    "metadata": {"name": "s", "annotations": {REQUESTED_BY: "alice", "a": "b"}, "finalizers": ["f"]},
    "spec": {"forks": [{"forkOf": {"name": "eta"}}]},
    "status": {"phase": "Ready"},
}
BARE: dict[str, Any] = {"metadata": {"name": "s"}, "spec": {"forks": []}}


def changed(old: dict[str, Any], **parts: Any) -> dict[str, Any]:
    """An object with other metadata or another spec."""
    new = deepcopy(old)
    new["metadata"] |= parts.pop("metadata", {})
    return new | parts


def asked(hook: Hook, new: Any, old: Any) -> bool:
    """Whether a webhook is asked."""
    conditions = [{"name": name, "expression": text} for name, text in hook.conditions.items()]
    return conditions_hold(conditions, {"object": new, "oldObject": old})


@pytest.mark.parametrize(
    ("new", "old", "defaulting", "validating"),
    [
        pytest.param(BARE, None, True, True, id="create"),
        pytest.param({"metadata": {"name": "s"}}, None, True, True, id="create without a spec"),
        pytest.param(changed(OLD, spec={"forks": []}), OLD, True, True, id="spec"),
        pytest.param({"metadata": {"name": "s"}}, BARE, True, True, id="spec removed"),
        pytest.param(changed(OLD, metadata={"labels": {"a": "b"}}), OLD, False, False, id="labels"),
        pytest.param(changed(OLD, metadata={"finalizers": []}), OLD, False, False, id="finalizers"),
        pytest.param(changed(OLD, status={}), OLD, False, False, id="status"),
        pytest.param(changed(OLD, metadata={"annotations": {REQUESTED_BY: "eve"}}), OLD, True, False, id="forged"),
        pytest.param(changed(OLD, metadata={"annotations": {}}), OLD, True, False, id="requester removed"),
        pytest.param(changed(BARE, metadata={"annotations": {REQUESTED_BY: "e"}}), BARE, True, False, id="added"),
        pytest.param(changed(BARE, metadata={"annotations": {"x": "y"}}), BARE, False, False, id="other annotation"),
        pytest.param(
            changed(OLD, spec={}), changed(OLD, metadata={"deletionTimestamp": "t"}), False, False, id="being deleted"
        ),
    ],
)
def test_only_specs_and_their_requester_matter(new: Any, old: Any, defaulting: bool, validating: bool) -> None:
    """A row per change; what is not asked about works while no manager answers."""
    assert asked(DEFAULTING[SANDBOXES], new, old) is defaulting
    assert asked(VALIDATING[SANDBOXES], new, old) is validating


def test_only_turned_services_matter() -> None:
    """An update of any other Service is never sent to us, and never waits for us."""
    turned = {"metadata": {"annotations": {ORIGINAL: "{}"}}, "spec": {}}
    assert asked(TURNED_SERVICES, turned, turned)
    assert not asked(TURNED_SERVICES, turned, BARE)
    assert not asked(TURNED_SERVICES, turned, OLD)
    assert TURNED_SERVICES.failure_policy == "Ignore"


def test_nobody_is_asked_about_deleting() -> None:
    """Whatever becomes of the manager, objects can be deleted."""
    assert {operation for hook in all_hooks() for operation in hook.operations} == {"CREATE", "UPDATE"}
    assert len({hook.path for hook in all_hooks()}) == len(list(all_hooks()))
