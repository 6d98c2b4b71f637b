"""Request bodies: JSON, YAML, repeated keys and everything that is neither."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sandlane.local.apiserver.wire.bodies import BodyError, parse_json, parse_yaml

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (b'{"a":1,"a":2}', ["a"]),
        (b'{"a" :1,"a":2}', ["a"]),
        (b'{"a"\n:1,"a"\t:2,"b":{"c":"\\":"}}', ["a"]),
        (b'{"a":"\\":","b":1}', []),
        (b'{"a": 1, "b": {"a": 1}}', []),
    ],
)
def test_duplicates_are_found_however_they_are_written(body: bytes, wanted: list[str]) -> None:
    """White space before a colon, and texts that look like keys, hide no repeated key and make none up."""
    duplicates: list[str] = []
    parse_json(body, duplicates=duplicates)
    assert duplicates == wanted


def test_duplicates_are_named() -> None:
    """Repeated keys are named once each with their path, and the last value counts."""
    duplicates: list[str] = []
    body = b'{"a":{"b":1,"b":2,"b":3},"l":[{"x":1},{"x":1,"x":2}],"a":{"b":4}}'
    assert parse_json(body, duplicates=duplicates) == {"a": {"b": 4}, "l": [{"x": 1}, {"x": 2}]}
    assert duplicates == ["a.b", "l[1].x", "a"]
    duplicates = []
    assert parse_yaml(b"a: 1\nb: {c: 1, c: 2}\na: 2\n", duplicates=duplicates) == {"a": 2, "b": {"c": 2}}
    assert duplicates == ["b.c", "a"]


def test_yaml_is_read_as_json() -> None:
    """Dates stay text, keys become strings, aliases are expanded, and JSON is YAML."""
    assert parse_yaml(b"t: 2020-01-01T00:00:00Z\n1: yes\nd: 2020-01-01\nf: 1.0\n") == {
        "t": "2020-01-01T00:00:00Z",
        "1": True,
        "d": "2020-01-01",
        "f": 1,
    }
    assert parse_yaml(b"a: &x {b: 1}\nc: *x\nd: {<<: *x, e: 2}\n") == {
        "a": {"b": 1},
        "c": {"b": 1},
        "d": {"b": 1, "e": 2},
    }
    assert parse_yaml(b' {"a": "\\u00e9"}') == {"a": "é"}
    assert parse_yaml(b"{a: 1}") == {"a": 1}
    assert parse_yaml(b"") is None


@pytest.mark.parametrize(
    "body",
    [
        b'"\\ud800"',
        b'{"a":1e999}',
        b"",
        b"{not json",
        b'{"a":NaN}',
        b"\xff",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"1" * 10_000 + b"x",
        b"{} {}",
    ],
)
def test_not_json(body: bytes) -> None:
    """What is not JSON is a BodyError, with and without the search for repeated keys."""
    with pytest.raises(BodyError):
        parse_json(body)
    with pytest.raises(BodyError):
        parse_json(body, duplicates=[])


@pytest.mark.parametrize(
    "body",
    [
        b"a: b: c",
        b"a: [",
        b"---\na: 1\n---\nb: 2\n",
        b"!!python/object:os.system {}",
        b"? [a]\n: 1",
        b"a: .inf",
        b"a: &a [*a]",
    ],
)
def test_not_yaml(body: bytes) -> None:
    """What is not one YAML document of JSON values is a BodyError."""
    with pytest.raises(BodyError):
        parse_yaml(body)


def test_yaml_bomb() -> None:
    """Aliases that would expand to millions of values are refused before they are expanded."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(BodyError, match="excessive aliasing"):
        parse_yaml("\n".join(lines).encode())


@given(VALUES)
def test_round_trips(value: Any) -> None:
    """JSON and YAML of one value read back as that value."""
    body = msgspec.json.encode(value)
    assert parse_json(body) == value
    duplicates: list[str] = []
    assert parse_json(body, duplicates=duplicates) == value
    assert duplicates == []
    assert parse_yaml(yaml.safe_dump(value).encode()) == value


@given(st.binary(max_size=60) | st.text(alphabet="{}[]:,-&*!?|>'\"ab1 \n", max_size=40).map(str.encode))
def test_never_anything_but_a_body_error(body: bytes) -> None:
    """Whatever comes, the answer is a value or a BodyError."""
    for parse in (parse_json, parse_yaml):
        for duplicates in (None, []):
            try:
                parse(body, duplicates=duplicates)
            except BodyError:
                pass


def test_depth_is_bounded() -> None:
    """Two hundred levels are fine, more are refused, whatever the format."""
    for depth, fine in ((150, True), (250, False)):
        for body in (
            b"[" * depth + b"]" * depth,
            b'{"a":' * depth + b"1" + b"}" * depth,
            b"{a: " * depth + b"1" + b"}" * depth,
        ):
            for parse in (parse_json, parse_yaml):
                if b"a:" in body and parse is parse_json:
                    continue
                if fine:
                    assert parse(body, duplicates=[]) is not None
                else:
                    with pytest.raises(BodyError):
                        parse(body)
