"""Which changes matter to a controller: plain functions of a change, to be combined with `any_of`."""

from __future__ import annotations

from typing import Any

from sandlane.kube.informer import Change
from sandlane.runtime.builder import Predicate


def generation_changed(change: Change[Any]) -> bool:
    """The spec changed, or the object came, went, or began to go."""
    if change.old is None or change.new is None:
        return True
    old, new = change.old.metadata, change.new.metadata
    return bool(old.generation != new.generation or old.uid != new.uid or old.deleting != new.deleting)


def labels_changed(change: Change[Any]) -> bool:
    """The labels changed, or the object came or went."""
    if change.old is None or change.new is None:
        return True
    return bool(change.old.metadata.labels != change.new.metadata.labels)


def annotations_changed(change: Change[Any]) -> bool:
    """The annotations changed, or the object came or went."""
    return (
        change.old is None or change.new is None or change.old.metadata.annotations != change.new.metadata.annotations
    )


def any_of(*predicates: Predicate) -> Predicate:
    """Any of several."""
    return lambda change: any(predicate(change) for predicate in predicates)
