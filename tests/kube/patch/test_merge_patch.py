"""Merge patch: RFC 7386."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandlane.kube.patch.merge_patch import make_merge_patch, merge_patch
from sandlane.kube.patch.values import copy_json, equal_json

WITHOUT_NULL = st.recursive(
    st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=10,
)


@pytest.mark.parametrize(
    ("document", "patch", "expected"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_examples_of_the_rfc(document: Any, patch: Any, expected: Any) -> None:
    """The examples of RFC 7386, appendix A."""
    before = copy_json(document)
    assert merge_patch(document, patch) == expected
    assert document == before


@given(WITHOUT_NULL, WITHOUT_NULL)
def test_round_trip(before: Any, after: Any) -> None:
    """The patch made from two documents turns the one into the other, and is empty for equal ones."""
    assert equal_json(merge_patch(before, make_merge_patch(before, after)), after)
    if isinstance(before, dict):
        assert make_merge_patch(before, before) == {}


@given(st.dictionaries(st.sampled_from("abc"), WITHOUT_NULL), st.dictionaries(st.sampled_from("abc"), WITHOUT_NULL))
def test_idempotent(document: Any, patch: Any) -> None:
    """Applying a patch twice is applying it once."""
    once = merge_patch(document, patch)
    assert equal_json(merge_patch(once, patch), once)
