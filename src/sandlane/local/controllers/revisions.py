"""Revisions of StatefulSets and DaemonSets as `ControllerRevision` objects, which `kubectl rollout` reads: pure makers."""

from __future__ import annotations

from collections.abc import Sequence

from sandlane.kube.resource import Object, Resource
from sandlane.local.controllers.deployment.revision import bare_template, template_hash
from sandlane.local.controllers.objects import annotations_of, controller_reference

CONTROLLER_REVISIONS = Resource("apps", "v1", "controllerrevisions", "ControllerRevision")
HASH_LABEL = "controller-revision-hash"
_CAUSE = "kubernetes.io/change-cause"


def revision_hash(owner: Object) -> str:
    """The hash of an owner's template."""
    return template_hash(owner["spec"]["template"], int((owner.get("status") or {}).get("collisionCount") or 0))


def make_revision(owner: Object, resource: Resource, known: Sequence[Object]) -> tuple[Object | None, Object | None]:
    """(a revision to create, a merge patch for an existing one): the current template's has the highest number."""
    name = f"{owner['metadata']['name']}-{revision_hash(owner)}"
    highest = max((int(r["revision"]) for r in known), default=0)
    found = next((r for r in known if r["metadata"]["name"] == name), None)
    if found is not None:
        if int(found["revision"]) == highest:
            return None, None
        return None, {"metadata": {"name": name}, "revision": highest + 1}
    annotations = {key: text for key, text in annotations_of(owner).items() if key == _CAUSE}
    made: Object = {
        "apiVersion": CONTROLLER_REVISIONS.api_version,
        "kind": CONTROLLER_REVISIONS.kind,
        "metadata": {
            "name": name,
            "namespace": owner["metadata"]["namespace"],
            "labels": {
                **(owner["spec"]["selector"].get("matchLabels") or {}),
                HASH_LABEL: revision_hash(owner),
            },
            "annotations": annotations,
            "ownerReferences": [controller_reference(owner, resource)],
        },
        "data": {"spec": {"template": {**bare_template(owner["spec"]["template"]), "$patch": "replace"}}},
        "revision": highest + 1,
    }
    return made, None


def outdated(owner: Object, known: Sequence[Object], used: set[str]) -> list[Object]:
    """Revisions beyond `revisionHistoryLimit` that no Pod runs, oldest first."""
    current = revision_hash(owner)
    idle = [r for r in known if (r["metadata"].get("labels") or {}).get(HASH_LABEL) not in used | {current}]
    idle.sort(key=lambda r: int(r["revision"]))
    limit = owner["spec"].get("revisionHistoryLimit")
    return idle[: max(len(idle) - (10 if limit is None else int(limit)), 0)]
