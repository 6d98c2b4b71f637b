"""Who owns whom, over every kind: a pure graph by uid, and what should happen to one of its objects.

The rules are those of https://kubernetes.io/docs/concepts/architecture/garbage-collection/: an object goes when none of
its owners exists any more; foreground deletion waits for the dependents that block it; orphaning lets them live.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from sandlane.kube.metadata import ObjectMeta, OwnerReference
from sandlane.kube.resource import Key, Resource

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
REMEMBERED = 8192


class Propagation(StrEnum):
    """`propagationPolicy` of a delete request."""

    BACKGROUND = "Background"
    FOREGROUND = "Foreground"
    ORPHAN = "Orphan"


@dataclass(frozen=True)
class Node:
    """What the graph knows of one object."""

    resource: Resource
    key: Key
    uid: str
    version: str
    owners: tuple[OwnerReference, ...]
    deleting: bool
    finalizers: tuple[str, ...]

    @classmethod
    def of(cls, resource: Resource, metadata: ObjectMeta) -> Node:
        """The node of an object's metadata."""
        return cls(
            resource,
            metadata.key,
            metadata.uid,
            metadata.resource_version,
            metadata.owner_references,
            metadata.deleting,
            metadata.finalizers,
        )

    @property
    def foreground(self) -> bool:
        """Whether the object is being deleted and waits for its dependents."""
        return self.deleting and FOREGROUND in self.finalizers

    @property
    def orphaning(self) -> bool:
        """Whether the object is being deleted and its dependents shall live."""
        return self.deleting and ORPHAN in self.finalizers

    def blocks(self, owner: str) -> bool:
        """Whether the foreground deletion of this owner waits for the object."""
        return any(ref.uid == owner and ref.block_owner_deletion for ref in self.owners)


@dataclass(frozen=True)
class Ask:
    """Owners that the graph has not seen: ask the server whether they exist, then decide again."""

    owners: tuple[OwnerReference, ...]


@dataclass(frozen=True)
class Delete:
    """Delete the object with this policy."""

    propagation: Propagation


@dataclass(frozen=True)
class DropOwners:
    """Remove the references to these uids: their owners are gone, but another owner lives."""

    uids: tuple[str, ...]


@dataclass(frozen=True)
class RemoveFinalizer:
    """Nothing holds the object's deletion any more."""

    finalizer: str


@dataclass(frozen=True)
class Orphan:
    """Remove the references of these dependents to the object, then its finalizer."""

    dependents: tuple[Node, ...]


@dataclass(frozen=True)
class Look:
    """Decide about these dependents, which hold the object's foreground deletion."""

    dependents: tuple[str, ...]


Action = Ask | Delete | DropOwners | RemoveFinalizer | Orphan | Look | None


class Graph:
    """Every object by uid, and the dependents of each owner, known or not."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._dependents: dict[str, dict[str, None]] = {}
        self._gone: OrderedDict[str, None] = OrderedDict()  # uids never come back

    def __len__(self) -> int:
        return len(self._nodes)

    def get(self, uid: str) -> Node | None:
        """The node of a uid."""
        return self._nodes.get(uid)

    def dependents(self, uid: str) -> list[Node]:
        """The known objects that name `uid` as an owner."""
        return [self._nodes[dependent] for dependent in self._dependents.get(uid, ())]

    def add(self, node: Node) -> list[str]:
        """Learn of an object as it is now; the uids to decide about because of that."""
        old = self._nodes.get(node.uid)
        self._nodes[node.uid] = node
        before = {owner.uid for owner in old.owners} if old else set()
        now = {owner.uid for owner in node.owners}
        for uid in before - now:
            self._unlink(uid, node.uid)
        for uid in now - before:
            self._dependents.setdefault(uid, {})[node.uid] = None
        touched = [node.uid] if node.owners or node.foreground or node.orphaning else []
        for uid in before | now:  # an owner that waits for this object
            owner = self._nodes.get(uid)
            if owner is not None and (owner.foreground or owner.orphaning):
                touched.append(uid)
        if node.foreground and not (old and old.foreground):
            touched += self._dependents.get(node.uid, ())
        return touched

    def remove(self, uid: str) -> list[str]:
        """Learn that an object is gone; the uids to decide about because of that."""
        node = self._nodes.pop(uid, None)
        self._gone[uid] = None
        if len(self._gone) > REMEMBERED:
            self._gone.popitem(last=False)
        touched = list(self._dependents.get(uid, ()))
        for owner in node.owners if node else ():
            self._unlink(owner.uid, uid)
            if owner.uid in self._nodes:
                touched.append(owner.uid)
        return touched

    def _unlink(self, owner: str, dependent: str) -> None:
        links = self._dependents.get(owner)
        if links is not None:
            links.pop(dependent, None)
            if not links:
                del self._dependents[owner]

    def decide(self, uid: str, absent: Collection[str] = (), present: Collection[str] = ()) -> Action:
        """What to do about an object. `absent` and `present` are owner uids of which the server said so."""
        node = self._nodes.get(uid)
        if node is None:
            return None
        if node.deleting:
            return self._decide_deleting(node)
        if not node.owners:
            return None
        gone = {o.uid for o in node.owners if o.uid in absent or o.uid in self._gone}
        rest = [o for o in node.owners if o.uid not in gone]
        unknown = tuple(o for o in rest if o.uid not in present and not self._is_owner(o, node))
        if unknown:
            return Ask(unknown)
        waiting = {o.uid for o in rest if (known := self._nodes.get(o.uid)) is not None and known.foreground}
        if len(rest) > len(waiting):
            drop = tuple(o.uid for o in node.owners if o.uid in gone or o.uid in waiting)
            return DropOwners(drop) if drop else None
        if waiting and self._dependents.get(uid):
            return Delete(Propagation.FOREGROUND)
        if ORPHAN in node.finalizers:
            return Delete(Propagation.ORPHAN)
        if FOREGROUND in node.finalizers:
            return Delete(Propagation.FOREGROUND)
        return Delete(Propagation.BACKGROUND)

    def _is_owner(self, owner: OwnerReference, node: Node) -> bool:
        """Whether a reference points to a known object of that kind, in reach (its namespace or cluster-wide)."""
        known = self._nodes.get(owner.uid)
        if known is None or known.resource.kind != owner.kind or known.key.name != owner.name:
            return False
        return known.key.namespace in ("", node.key.namespace)

    def _decide_deleting(self, node: Node) -> Action:
        dependents = self.dependents(node.uid)
        if node.orphaning:
            return Orphan(tuple(dependents)) if dependents else RemoveFinalizer(ORPHAN)
        if node.foreground:
            if not any(d.blocks(node.uid) for d in dependents):
                return RemoveFinalizer(FOREGROUND)
            return Look(tuple(d.uid for d in dependents if not d.deleting))
        return None
