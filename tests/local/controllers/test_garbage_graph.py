"""The garbage graph: what happens to dependents when owners go, in each way of going."""

from __future__ import annotations

from sandlane.kube.metadata import OwnerReference
from sandlane.kube.resource import CONFIG_MAPS, DEPLOYMENTS, PODS, REPLICA_SETS, Key, Resource
from sandlane.local.controllers.garbage.graph import (
    FOREGROUND,
    ORPHAN,
    Ask,
    Delete,
    DropOwners,
    Graph,
    Look,
    Node,
    Orphan,
    Propagation,
    RemoveFinalizer,
)

KINDS = {"d": DEPLOYMENTS, "r": REPLICA_SETS, "p": PODS, "c": CONFIG_MAPS}


def kind(name: str) -> Resource:
    """The kind that the first letter of a name stands for."""
    return KINDS[name[0]]


def owned_by(*names: str, block: bool = True) -> tuple[OwnerReference, ...]:
    """References to owners, whose uid is their name."""
    return tuple(OwnerReference(kind(n).api_version, kind(n).kind, n, n, block_owner_deletion=block) for n in names)


def node(name: str, *owners: str, finalizers: tuple[str, ...] = (), deleting: bool = False, block: bool = True) -> Node:
    """An object whose uid is its name."""
    return Node(kind(name), Key("ns", name), name, "1", owned_by(*owners, block=block), deleting, finalizers)


def graph(*nodes: Node) -> Graph:
    """A graph of these objects."""
    made = Graph()
    for each in nodes:
        made.add(each)
    return made


def test_background_deletion_cascades() -> None:
    """When an owner has gone its dependents are looked at, and deleted."""
    made = graph(node("d"), node("r", "d"), node("p", "r"))
    assert made.decide("r") is None
    assert made.remove("d") == ["r"]
    assert made.decide("r") == Delete(Propagation.BACKGROUND)
    assert made.remove("r") == ["p"]
    assert made.decide("p") == Delete(Propagation.BACKGROUND)


def test_unseen_owners_are_asked_for() -> None:
    """An owner that the graph does not know is never taken for gone before the server said so."""
    made = graph(node("r", "d"))
    assert made.decide("r") == Ask(owned_by("d"))
    assert made.decide("r", present={"d"}) is None
    assert made.decide("r", absent={"d"}) == Delete(Propagation.BACKGROUND)


def test_one_living_owner_is_enough() -> None:
    """References to owners that are gone are dropped while another owner lives."""
    made = graph(node("d1"), node("d2"), node("r", "d1", "d2"))
    made.remove("d1")
    assert made.decide("r") == DropOwners(("d1",))


def test_foreground_deletion_waits_for_blocking_dependents() -> None:
    """A foreground deletion ends only when every dependent that blocks it is gone."""
    made = graph(node("d"), node("r", "d"), node("p", "r"))
    touched = made.add(node("d", deleting=True, finalizers=(FOREGROUND,)))
    assert set(touched) == {"d", "r"}
    assert made.decide("d") == Look(("r",))
    assert made.decide("r") == Delete(Propagation.FOREGROUND)
    made.add(node("r", "d", deleting=True, finalizers=(FOREGROUND,)))
    assert made.decide("p") == Delete(Propagation.BACKGROUND)
    assert "r" in made.remove("p")
    assert made.decide("r") == RemoveFinalizer(FOREGROUND)
    assert "d" in made.remove("r")
    assert made.decide("d") == RemoveFinalizer(FOREGROUND)


def test_dependents_that_do_not_block_are_not_waited_for() -> None:
    """Without blockOwnerDeletion a dependent does not hold its owner."""
    made = graph(node("d", deleting=True, finalizers=(FOREGROUND,)), node("c", "d", block=False))
    assert made.decide("d") == RemoveFinalizer(FOREGROUND)


def test_orphaning_unties_dependents() -> None:
    """With the orphan finalizer dependents lose their reference and live."""
    made = graph(node("d"), node("r", "d"))
    made.add(node("d", deleting=True, finalizers=(ORPHAN,)))
    assert made.decide("d") == Orphan((node("r", "d"),))
    made.add(node("r"))
    assert made.decide("d") == RemoveFinalizer(ORPHAN)
    made.remove("d")
    assert made.decide("r") is None


def test_a_reference_by_the_wrong_name_or_namespace_is_asked_for() -> None:
    """A uid alone does not make an owner: kind, name and namespace must fit."""
    made = graph(node("d"))
    stranger = Node(PODS, Key("elsewhere", "p"), "p", "1", owned_by("d"), False, ())
    made.add(stranger)
    assert made.decide("p") == Ask(owned_by("d"))
