"""Objects of every kind with well-typed nonsense in all fields."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandlane.kube.patch.values import copy_json, equal_json
from sandlane.kube.resource import Object
from sandlane.local.apiserver.kinds.kind import Kind
from sandlane.local.apiserver.kinds.quota import quota_fault, range_faults
from sandlane.local.apiserver.kinds.services import AddressError, AddressPool
from sandlane.local.apiserver.kinds.table import builtin_kinds
from sandlane.local.apiserver.wire.types import fields_of
from support.thorough import cases

TEXTS = (
    *("", "a", "A b", "-1", "Always", "ClusterIP", "None", "10%", "x" * 70, "v1", "50%", "RollingUpdate", "NodePort"),
    *("ExternalName", "10.96.0.9", "a/b", "Recreate", "Container", "Pod", "http", "IPv4", "*/5 * * * *"),
)
SCALARS: dict[str, tuple[Any, ...]] = {
    "s": TEXTS,
    "b": (True, False),
    "i": (-1, 0, 1, 80, 70000, 2**31 - 1),
    "l": (-1, 0, 1, 2**40),
    "f": (1.5,),
    "y": ("", "AAE=", "e30="),
    "T": ("2020-01-01T00:00:00Z",),
    "M": ("2020-01-01T00:00:00.000000Z",),
    "Q": ("0", "-1", "1", "100m", "1Gi"),
    "I": (0, -1, 80, "50%", "http", "x%"),
    "D": ("1s",),
}


def value_of(type_: str, random: Random, depth: int) -> Any:
    """A value of a type of the wire table, or null."""
    kind = type_[0]
    if random.random() < 0.05:
        return None
    if kind == ".":
        return object_of(type_[1:], random, depth + 1)
    if kind == "[":
        return [value_of(type_[1:], random, depth + 1) for _ in range(random.randint(0, 2))]
    if kind == "{":
        return {random.choice(TEXTS): value_of(type_[1:], random, depth + 1) for _ in range(random.randint(0, 2))}
    return random.choice(SCALARS.get(kind, ({"a": 1},)))


def object_of(definition: str, random: Random, depth: int) -> Object:
    """An object with some of its fields; deeper ones are sparser."""
    made: Object = {}
    share = 0.6 if depth < 5 else 0.15 if depth < 10 else 0.0
    for field in fields_of(definition):
        if field.inline:
            if random.random() < 0.5:
                made.update(object_of(field.type[1:], random, depth))
        elif random.random() < share:
            made[field.name] = value_of(field.type, random, depth)
    return made


class _Context:
    addresses = AddressPool("10.96.0.0/24", lambda: [])


def _decoded(kind: Kind, random: Random) -> Object:
    obj = object_of(kind.definition, random, 0)
    if not isinstance(obj.get("metadata"), dict):
        obj["metadata"] = {}
    obj["metadata"] |= {"name": "n", "namespace": "ns", "uid": "u"}
    assert kind.strategy.prune(obj) == []
    kind.strategy.default(obj)
    return obj


@pytest.mark.parametrize(
    "kind", builtin_kinds(), ids=lambda kind: f"{kind.resource.plural}.{kind.resource.api_version}"
)
@given(random=st.randoms(use_true_random=False))
@settings(max_examples=cases(5))
def test_the_pipeline_never_fails(kind: Kind, random: Random) -> None:
    """Whatever a well-typed object says, it is kept or refused with faults, and what is kept is in canonical form."""
    strategy = kind.strategy
    obj = _decoded(kind, random)
    strategy.prepare_create(obj, _Context())
    faults = strategy.validate_create(obj)
    strategy.warnings(obj)
    if not faults:
        try:
            strategy.allocate(obj, None, _Context())
        except AddressError:
            pass
    changed = _decoded(kind, random)
    strategy.prepare_update(changed, obj, _Context())
    faults += strategy.validate_update(changed, obj)
    assert all(fault.message and isinstance(fault.field, str) for fault in faults)
    quota = {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "1", "cpu": "1"}}}
    quota_fault(kind.resource, obj, None, [quota], lambda group, plural: [changed])
    range_faults(kind.resource, obj, [{"spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}}]}}])
    again = copy_json(obj)
    strategy.prune(again)
    assert equal_json(again, obj)
    if kind.to_storage is not None and kind.from_storage is not None:
        shown = kind.from_storage(kind.to_storage(copy_json(obj)))
        assert strategy.prune(shown) == []
