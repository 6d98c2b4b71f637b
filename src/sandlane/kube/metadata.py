"""`ObjectMeta` and `OwnerReference` as frozen records, the part that all Kubernetes objects share."""

from __future__ import annotations

import msgspec

from sandlane.kube.resource import Key


class OwnerReference(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """A reference from an object to one that owns it."""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool = False
    block_owner_deletion: bool = False


class ObjectMeta(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """Metadata of an object, without `managedFields`."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str = ""
    deletion_timestamp: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: tuple[OwnerReference, ...] = ()
    finalizers: tuple[str, ...] = ()

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return Key(self.namespace, self.name)

    @property
    def deleting(self) -> bool:
        """Whether deletion has been asked for."""
        return self.deletion_timestamp is not None

    @property
    def controller(self) -> OwnerReference | None:
        """The owner that controls the object, if any."""
        return next((owner for owner in self.owner_references if owner.controller), None)
