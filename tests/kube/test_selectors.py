"""Label and field selectors mean what they mean to kubectl."""

from __future__ import annotations

import pytest

from sandlane.kube.selectors import (
    SelectorError,
    equality,
    format_selector,
    matches,
    parse_field_selector,
    parse_label_selector,
    selector_of,
)

LABELS = {"app": "web", "tier": "front", "example.com/rank": "7"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("app=web", True),
        ("app==web", True),
        ("app = web , tier != back", True),
        ("app!=web", False),
        ("missing!=x", True),
        ("app in (api, web)", True),
        ("app notin (api,web)", False),
        ("missing notin (x)", True),
        ("app", True),
        ("!app", False),
        ("!missing", True),
        ("example.com/rank>6", True),
        ("example.com/rank<7", False),
        ("app>1", False),
        ("missing=", False),
    ],
)
def test_a_label_selector_matches(text: str, expected: bool) -> None:
    """A selector's text decides which labels it matches."""
    assert matches(parse_label_selector(text), LABELS) is expected


@pytest.mark.parametrize(
    "text", ["app=", "a in (b", "a in b", ",", "a,,b", "a b", "=x", "-a=b", "a=b=c", "a>x", "!", "a,"]
)
def test_bad_label_selectors_are_refused(text: str) -> None:
    """What kubectl refuses is refused; an empty value is none of it."""
    if text == "app=":
        assert matches(parse_label_selector(text), {"app": ""})
        return
    with pytest.raises(SelectorError):
        parse_label_selector(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("a in (b,", "unable to parse requirement: found '', expected: ',', or identifier"),
        ("a in (b c)", "unable to parse requirement: found 'c', expected: ',' or ')'"),
        ("a in (", "unable to parse requirement: found '', expected: ',', ')' or identifier"),
        ("a in b", "unable to parse requirement: found 'b' expected: '('"),
        ("a=b=c", "found '=', expected: ',' or 'end of string'"),
        ("a,,b", "found ',', expected: identifier after ','"),
        ("=x", "found '=', expected: !, identifier, or 'end of string'"),
    ],
)
def test_what_is_wrong_with_a_selector_is_told(text: str, why: str) -> None:
    """In the words of kube-apiserver."""
    with pytest.raises(SelectorError) as caught:
        parse_label_selector(text)
    assert str(caught.value) == why


@pytest.mark.parametrize("text", ["a=b", "a!=b", "a in (b,c)", "a notin (b,c)", "a", "!a", "a>3", "a<3", "a=b,!c"])
def test_a_selector_reads_as_it_was_written(text: str) -> None:
    """`format_selector` is the inverse of parsing."""
    assert format_selector(parse_label_selector(text)) == text


def test_a_label_selector_object_is_all_of_its_parts() -> None:
    """matchLabels and matchExpressions must hold together."""
    selector = selector_of(
        {
            "matchLabels": {"app": "web"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["front", "back"]},
                {"key": "tier", "operator": "Exists"},
                {"key": "app", "operator": "NotIn", "values": ["api"]},
                {"key": "old", "operator": "DoesNotExist"},
            ],
        }
    )
    assert selector is not None
    assert matches(selector, LABELS)
    assert not matches(selector, LABELS | {"old": ""})


def test_no_selector_and_an_empty_one_differ() -> None:
    """No LabelSelector selects nothing (None); an empty one selects everything."""
    assert selector_of(None) is None
    assert selector_of({}) == ()
    assert matches(equality({"app": "web"}), LABELS)


@pytest.mark.parametrize(
    "expression",
    [
        {"key": "a", "operator": "In"},
        {"key": "a", "operator": "Exists", "values": ["b"]},
        {"key": "a", "operator": "Near", "values": ["b"]},
    ],
)
def test_bad_expressions_are_refused(expression: dict[str, object]) -> None:
    """An expression whose values do not fit its operator is refused."""
    with pytest.raises(SelectorError):
        selector_of({"matchExpressions": [expression]})


def test_field_selectors() -> None:
    """Field selectors are equalities, with escapes."""
    assert parse_field_selector(r"metadata.name=a,status.phase!=Failed,x==a\,b") == (
        ("metadata.name", "a", True),
        ("status.phase", "Failed", False),
        ("x", "a,b", True),
    )
    with pytest.raises(SelectorError):
        parse_field_selector("metadata.name")
