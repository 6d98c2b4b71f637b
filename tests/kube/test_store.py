"""The store: records by key, by namespace and by index, whatever comes and goes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandlane.kube.metadata import ObjectMeta
from sandlane.kube.resource import Key
from sandlane.kube.store import Store
from sandlane.kube.unstructured import Unstructured


def record(namespace: str, name: str, label: str = "") -> Unstructured:
    """A record with a label."""
    return Unstructured(ObjectMeta(name=name, namespace=namespace, labels={"l": label} if label else {}), b"{}")


def labels(record: Unstructured) -> list[str]:
    """The index."""
    return list(record.metadata.labels.values())


STEPS = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.sampled_from(["", "p", "q"]), st.booleans())
)


@given(STEPS)
def test_every_way_to_find_agrees(steps: list[tuple[str, str, str, bool]]) -> None:
    """After any sequence of sets and removes, indexes and namespaces hold exactly what is there."""
    store: Store[Unstructured] = Store()
    store.add_index("label", labels)
    model: dict[Key, str] = {}
    for namespace, name, label, keep in steps:
        key = Key(namespace, name)
        if keep:
            old = store.set(record(namespace, name, label))
            assert (old is not None) == (key in model)
            model[key] = label
        else:
            assert (store.remove(key) is not None) == (model.pop(key, None) is not None)
    late: Store[Unstructured] = Store(store)
    late.add_index("label", labels)
    for each in (store, late):
        assert len(each) == len(model)
        assert [r.metadata.key for r in each.list()] == sorted(model)
        assert {r.metadata.key for r in each} == set(model)
        for namespace in "ab":
            expected = sorted(key for key in model if key.namespace == namespace)
            assert [r.metadata.key for r in each.list(namespace)] == expected
            assert sorted(r.metadata.key for r in each.namespace(namespace)) == expected
        for label in "pq":
            expected = sorted(key for key, held in model.items() if held == label)
            assert [r.metadata.key for r in each.by_index("label", label)] == expected


def test_an_index_that_is_not_there() -> None:
    """Is a mistake of the caller."""
    with pytest.raises(KeyError):
        Store([record("a", "x")]).by_index("none", "x")
