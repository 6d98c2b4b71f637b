"""Server-side apply: what holds for any objects, and who owns what after which write."""

from __future__ import annotations

import copy
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandlane.local.apiserver.managed_fields import managers
from sandlane.local.apiserver.managed_fields.compare import compare, fields_of_new
from sandlane.local.apiserver.managed_fields.fieldset import STRIPPED, DuplicateKey, fields_of, from_fields, to_fields
from sandlane.local.apiserver.managed_fields.managers import Change, Conflicts
from sandlane.local.apiserver.managed_fields.versions import OneVersion
from sandlane.local.apiserver.schema import Schema
from support.thorough import cases

Object = dict[str, Any]
T = TypeVar("T")

SCHEMA = Schema.from_crd(
    {
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "properties": {
                    "a": {"type": "integer"},
                    "free": {"type": "object", "additionalProperties": {"type": "integer"}},
                    "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                    "plain": {"type": "array", "items": {"type": "integer"}},
                    "box": {
                        "type": "object",
                        "x-kubernetes-map-type": "atomic",
                        "properties": {"x": {"type": "integer"}},
                    },
                    "items": {
                        "type": "array",
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["id"],
                        "items": {
                            "type": "object",
                            "properties": {
                                "id": {"type": "string"},
                                "v": {"type": "integer"},
                                "w": {"type": "integer"},
                            },
                        },
                    },
                },
            }
        },
    }
)
NUMBERS = st.integers(0, 3)
ITEMS = st.lists(
    st.fixed_dictionaries({"id": st.sampled_from("pqr")}, optional={"v": NUMBERS, "w": NUMBERS}),
    min_size=1,
    max_size=3,
    unique_by=lambda item: item["id"],
)
SPECS = st.fixed_dictionaries(
    {},
    optional={
        "a": NUMBERS,
        "free": st.dictionaries(st.sampled_from("kl"), NUMBERS, min_size=1, max_size=2),
        "tags": st.lists(st.sampled_from("xyz"), unique=True, min_size=1, max_size=3),
        "plain": st.lists(NUMBERS, min_size=1, max_size=2),
        "box": st.fixed_dictionaries({"x": NUMBERS}),
        "items": ITEMS,
    },
)


ONE = OneVersion(SCHEMA)


def done(computed: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that has nothing to wait for."""
    try:
        computed.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    raise AssertionError("it waits")


def obj(spec: Object) -> Object:
    """An object with a spec."""
    return {"apiVersion": "g/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": spec}


def change(manager: str, now: str = "2026-01-01T00:00:00Z") -> Change:
    """A write by a manager."""
    return Change(manager, "g/v1", "", now, typed=False)


def apply(live: Object | None, spec: Object, manager: str, *, force: bool = True) -> Object:
    """Apply a spec."""
    return done(managers.apply(live, obj(spec), ONE, change(manager), force=force))


def update(live: Object, spec: Object, manager: str) -> Object:
    """Replace the spec."""
    new = {**live, "metadata": {"name": "t"}, "spec": spec}
    done(managers.on_update(live, new, ONE, change(manager)))
    return new


def owned(live: Object, manager: str) -> frozenset[tuple[str, ...]]:
    """What a manager owns."""
    return frozenset().union(*(entry.fields for entry in managers.read(live) if entry.name == manager))


def covers(live: Any, applied: Any) -> bool:
    """Whether everything applied is there."""
    if isinstance(applied, dict):
        return isinstance(live, dict) and all(
            key in live and covers(live[key], value) for key, value in applied.items()
        )
    if isinstance(applied, list) and applied and isinstance(applied[0], dict):
        by_id = {item["id"]: item for item in live}
        return all(item["id"] in by_id and covers(by_id[item["id"]], item) for item in applied)
    if isinstance(applied, list) and applied and isinstance(applied[0], str):
        return set(applied) <= set(live)
    return bool(live == applied) or applied == []


@given(SPECS, SPECS, SPECS)
@settings(max_examples=cases(60))
def test_what_is_applied_is_there_and_again_changes_nothing(first: Object, second: Object, third: Object) -> None:
    """By force every applied value is in the object and owned; applying it once more changes nothing."""
    live = update(apply(None, first, "one"), third, "somebody")
    made = apply(live, second, "two")
    assert covers(made["spec"], second) or not second
    assert {path for path in fields_of(obj(second), SCHEMA) if path[0] == "f:spec"} == owned(made, "two")
    assert managers.same_but_times(apply(made, second, "two"), made)


@given(SPECS, SPECS)
@settings(max_examples=cases(60))
def test_who_applies_nothing_leaves_only_what_others_own(first: Object, second: Object) -> None:
    """When one applier withdraws everything, what remains is what the other applied."""
    both = apply(apply(None, first, "one"), second, "two")
    left = apply(both, {}, "one")
    alone = apply(None, second, "two")
    assert fields_of(left.get("spec") or {}, SCHEMA.properties["spec"]) == fields_of(
        alone.get("spec") or {}, SCHEMA.properties["spec"]
    )
    assert owned(left, "one") <= {("f:spec",)}


@given(SPECS, SPECS)
@settings(max_examples=cases(60))
def test_updates_own_what_they_change(before: Object, after: Object) -> None:
    """After an update nobody owns a field that is gone, and every field has an owner."""
    live = update(apply(None, before, "one"), after, "two")
    there = compare({}, obj(after), SCHEMA).added
    assert owned(live, "one") | owned(live, "two") <= there
    leaves = {path for path in there if not any(other[: len(path)] == path and other != path for other in there)}
    assert {path for path in leaves if len(path) > 1 and path[0] == "f:spec"} <= owned(live, "one") | owned(live, "two")


@given(SPECS)
def test_fields_round_trip(spec: Object) -> None:
    """A set of fields is the same after it was written to `FieldsV1` and read again."""
    fields = frozenset(fields_of(obj(spec), SCHEMA))
    assert from_fields(to_fields(fields)) == fields


def test_conflicts_name_managers_and_fields() -> None:
    """Without force a field of somebody else is a conflict; the same value is shared, no conflict."""
    live = apply(None, {"a": 1, "items": [{"id": "p", "v": 1}]}, "one")
    shared = apply(live, {"a": 1}, "two", force=False)
    assert ("f:spec", "f:a") in owned(shared, "one") & owned(shared, "two")
    with pytest.raises(Conflicts) as caught:
        apply(live, {"a": 2, "items": [{"id": "p", "v": 2}]}, "two", force=False)
    assert [cause["field"] for cause in caught.value.causes()] == [".spec.a", '.spec.items[id="p"].v']
    assert '"one"' in caught.value.message()


def test_force_takes_fields_over() -> None:
    """The old owner keeps its other fields, and withdrawing the taken one does not remove it."""
    live = apply(apply(None, {"a": 1, "plain": [1]}, "one"), {"a": 2}, "two")
    assert owned(live, "one") == {("f:spec", "f:plain")}
    assert apply(live, {"plain": [1]}, "one")["spec"] == {"a": 2, "plain": [1]}


def test_kubectl_takes_over_what_it_left() -> None:
    """`kubectl apply --server-side` meets no conflict with fields that its client-side apply set."""
    live = obj({"a": 1})
    live["metadata"]["annotations"] = {managers.LAST_APPLIED: '{"spec": {"a": 1}}'}
    done(managers.on_update(None, live, ONE, change("kubectl-client-side-apply")))
    assert apply(live, {"a": 2}, "kubectl", force=False)["spec"] == {"a": 2}
    with pytest.raises(Conflicts):
        apply(live, {"a": 2}, "helm", force=False)


def test_many_updaters_become_few() -> None:
    """The oldest of more than ten updaters are put together."""
    live = obj({"free": {}})
    done(managers.on_update(None, live, ONE, change("first")))
    for number in range(15):
        new = obj({"free": {**live["spec"]["free"], f"k{number}": number}})
        done(managers.on_update(live, new, ONE, change(f"m{number}", f"2026-01-01T00:00:{number:02}Z")))
        live = new
    names = [entry.name for entry in managers.read(live)]
    assert len(names) == 10
    assert managers.ANCIENT in names


@settings(max_examples=cases(30))
@given(SPECS, SPECS, st.booleans())
def test_a_new_object_is_compared_with_a_blank_one(spec: Object, blank: Object, known: bool) -> None:
    """The short way for new objects finds what a comparison with a blank one finds, in which some fields may be."""
    schema = SCHEMA if known else None
    blank = {"spec": {name: {} if isinstance(value, dict) else None for name, value in blank.items()}}
    new = {**obj({**blank["spec"], **spec}), "status": {"n": 1, "none": {}}}
    added = compare(blank, new, schema).changed - STRIPPED
    assert fields_of_new(new, schema, blank, status=True) == to_fields(added)
    without = {path for path in added if path[0] != "f:status"}
    assert fields_of_new(new, schema, blank, status=False) == to_fields(without)


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"items": [{"id": "p"}, {"id": "p"}]}, '.spec.items: duplicate entries for key [id="p"]'),
        ({"tags": ["x", "x"]}, '.spec.tags: duplicate entries for key [="x"]'),
    ],
)  # fmt: skip
def test_lists_that_cannot_be_applied(spec: Object, why: str) -> None:
    """An item that cannot be told from others is refused, with its list."""
    with pytest.raises(DuplicateKey) as caught:
        apply(None, spec, "m")
    assert str(caught.value).startswith(why)


def test_what_became_one_value_is_owned_whole() -> None:
    """Where a schema makes one value of a list or struct that was managed in parts, its managers have it whole."""
    live = apply(None, {"items": [{"id": "p", "v": 1}], "free": {"k": 1}}, "one")
    raw = copy.deepcopy(SCHEMA.raw)
    raw["properties"]["spec"]["properties"]["items"]["x-kubernetes-list-type"] = "atomic"
    raw["properties"]["spec"]["properties"]["free"]["x-kubernetes-map-type"] = "atomic"
    now = OneVersion(Schema.from_crd(raw))
    new = {**live, "metadata": {"name": "t"}, "spec": {**live["spec"], "a": 1}}
    done(managers.on_update(live, new, now, change("two")))
    assert owned(new, "one") == {("f:spec", "f:items"), ("f:spec", "f:free")}
    with pytest.raises(Conflicts) as caught:
        done(managers.apply(new, obj({"items": []}), now, change("three"), force=False))
    assert [cause["field"] for cause in caught.value.causes()] == [".spec.items"]
