"""Owner references: set when an object is made, asked before it is changed."""

from __future__ import annotations

from sandlane.kube.metadata import ObjectMeta
from sandlane.kube.resource import Object, Resource


def controller_reference(resource: Resource, owner: ObjectMeta) -> Object:
    """The reference that makes `owner` the controller of an object, as it goes on the wire."""
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "name": owner.name,
        "uid": owner.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def controlled_by(metadata: ObjectMeta, owner: ObjectMeta) -> bool:
    """Whether `owner` (this very object, by uid) controls the object with this metadata."""
    controller = metadata.controller
    return controller is not None and controller.uid == owner.uid
