"""JSON patch: RFC 6902 with the limits of kube-apiserver."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandlane.kube.patch.errors import MalformedPatchError, PatchError, PatchTooLargeError
from sandlane.kube.patch.json_patch import json_patch
from sandlane.kube.patch.values import copy_json, equal_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "a", "b/~"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b/c", "d~", "-"]), inner, max_size=3)
    ),
    max_leaves=8,
)


POINTER = st.sampled_from(["", "/a", "/a/0", "/a/-", "/b~1c/d~0", "/-/a", "x"])
OPERATION = st.fixed_dictionaries(
    {},
    optional={
        "op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]),
        "path": POINTER,
        "from": POINTER,
        "value": JSON,
    },
)


@pytest.mark.parametrize(
    ("document", "operations", "expected"),
    [
        ({"a": 1}, [{"op": "add", "path": "/b", "value": [1]}], {"a": 1, "b": [1]}),
        ({"a": [1, 3]}, [{"op": "add", "path": "/a/1", "value": 2}], {"a": [1, 2, 3]}),
        ({"a": [1]}, [{"op": "add", "path": "/a/-", "value": 2}], {"a": [1, 2]}),
        ({"a": [1, 2]}, [{"op": "remove", "path": "/a/-1"}], {"a": [1]}),
        ({"a": [1, 2]}, [{"op": "add", "path": "/a/2", "value": 3}], {"a": [1, 2, 3]}),
        ({"x/y": 1, "m~n": 2}, [{"op": "remove", "path": "/x~1y"}, {"op": "remove", "path": "/m~0n"}], {}),
        ({"a": 1}, [{"op": "replace", "path": "", "value": {"b": 2}}], {"b": 2}),
        ({"a": {"b": 1}}, [{"op": "move", "from": "/a/b", "path": "/c"}], {"a": {}, "c": 1}),
        ({"a": {"b": 1}}, [{"op": "copy", "from": "/a", "path": "/c"}], {"a": {"b": 1}, "c": {"b": 1}}),
        ({"a": 1}, [{"op": "test", "path": "/a", "value": 1.0}], {"a": 1}),
        ({"a": 1}, [{"op": "test", "path": "/b", "value": None}], {"a": 1}),
        ({"": {"": 1}}, [{"op": "replace", "path": "//", "value": 2}], {"": {"": 2}}),
    ],
)
def test_operations(document: Any, operations: list[Any], expected: Any) -> None:
    """Each operation does what RFC 6902 says, and leaves the document that it was given alone."""
    before = copy_json(document)
    assert equal_json(json_patch(document, operations), expected)
    assert document == before


@pytest.mark.parametrize(
    "operations",
    [
        [{"op": "remove", "path": "/zzz"}],
        [{"op": "replace", "path": "/zzz", "value": 1}],
        [{"op": "add", "path": "/zzz/a", "value": 1}],
        [{"op": "add", "path": "/a"}],
        [{"op": "add", "path": "a", "value": 1}],
        [{"op": "add", "value": 1}],
        [{"op": "frob", "path": "/a"}],
        [{"op": ["add"], "path": "/a"}],
        [{"op": "remove", "path": "/l/2"}],
        [{"op": "remove", "path": "/l/x"}],
        [{"op": "remove", "path": "/l/1e0"}],
        [{"op": "remove", "path": "/l/9999999999999999999999"}],
        [{"op": "add", "path": "/a/b", "value": 1}],
        [{"op": "move", "from": "/m", "path": "/m/n/x"}],
        [{"op": "copy", "from": "/zzz", "path": "/a"}],
        [{"op": "test", "path": "/a", "value": True}],
        [{"op": "test", "path": "/zzz", "value": 1}],
        [{"op": "test", "path": "/zzz"}],
    ],
)
def test_refused(operations: list[Any]) -> None:
    """An operation that does not fit is an error, and so is a failing test."""
    with pytest.raises(PatchError) as caught:
        json_patch({"a": 1, "l": [0, 1], "m": {"n": {}}}, operations)
    assert caught.value.status == 422


@pytest.mark.parametrize("operations", [{"a": 1}, None, ["x"], [[]], "[]"])
def test_not_a_patch(operations: Any) -> None:
    """What is not a list of objects is a malformed patch (400)."""
    with pytest.raises(MalformedPatchError):
        json_patch({}, operations)


def test_limits() -> None:
    """More than 10,000 operations are too many (413), and copies cannot blow up the document."""
    operation = {"op": "add", "path": "/a", "value": 1}
    assert json_patch({}, [operation] * 10_000) == {"a": 1}
    with pytest.raises(PatchTooLargeError):
        json_patch({}, [operation] * 10_001)
    doubling = [{"op": "copy", "from": "", "path": "/a"}] * 40
    with pytest.raises(PatchError, match="exceeding the limit"):
        json_patch({"b": "x" * 1000}, [{"op": "copy", "from": "", "path": f"/{n}"} for n in range(40)])
    with pytest.raises(PatchError, match="exceeding the limit"):
        json_patch({"b": "x" * 1_000_000}, doubling)


@given(JSON, JSON)
def test_replace_then_test(document: Any, value: Any) -> None:
    """What an operation puts in, a test finds; and a removal takes it out again."""
    wrapped = {"doc": document}
    operations = [{"op": "add", "path": "/new", "value": value}, {"op": "test", "path": "/new", "value": value}]
    assert equal_json(json_patch(wrapped, [*operations, {"op": "remove", "path": "/new"}]), wrapped)


@given(JSON, st.lists(OPERATION, max_size=4))
def test_never_anything_but_a_patch_error(document: Any, operations: list[Any]) -> None:
    """Whatever comes, the answer is a document or a PatchError, and the arguments are left alone."""
    before, given_operations = copy_json(document), copy_json(operations)
    try:
        json_patch(document, operations)
    except PatchError:
        pass
    assert equal_json(document, before)
    assert equal_json(operations, given_operations)
