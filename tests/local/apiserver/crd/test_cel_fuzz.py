"""CEL takes any text: it gives a value or an ordinary error."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandlane.local.apiserver.crd.cel_cost import loops_of
from sandlane.local.apiserver.crd.cel_rules import UnsupportedExpression, compile_rule, run

# fmt: off
TOKENS = st.sampled_from([
    "self", ".", "x", "all", "exists", "(", ")", "[", "]", "{", "}", "'a'", "1", "-1", "9223372036854775807", "1.5",
    "0", "+", "-", "*", "/", "%", "==", "<", "&&", "||", "!", "?", ":", ",", "has", "size", "matches", "'('",
    "'\\u'", "true", "null", "in", "duration", "'1h'", "timestamp", "uint", "int", "string", "map", "filter",
    "b'\\xff'", "split", "quantity", "replace", "substring", "format", "'%d'", "ip", "url", "//", "\\", "é", "1u",
    "0x1", "1e999",
])
# fmt: on


def _try(expression: str) -> None:
    try:
        compile_rule(expression)
    except UnsupportedExpression:
        return
    with suppress(Exception):  # of any ordinary kind: a panic of the library would be no Exception
        run(expression, {"self": {"x": [1, "a", {"y": 2.5}, None]}})


@settings(max_examples=400, deadline=None)
@given(st.lists(TOKENS, min_size=1, max_size=12).map("".join))
def test_nearly_expressions(expression: str) -> None:
    """What is put together from pieces of CEL does no harm."""
    _try(expression)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80))
def test_any_text(text: str) -> None:
    """Any text does no harm, nor does the estimate of its cost."""
    loops_of(text)
    _try(text)


@pytest.mark.parametrize(
    "expression",
    [
        "(" * 8000 + "1" + ")" * 8000,
        "[" * 8000 + "]" * 8000,
        "!" * 16000 + "true",
        "1+" * 8000 + "1",
        "self" + ".x" * 8000,
        "true&&" * 2700 + "true",
        "self" + ".all(a,a" * 1000 + ")" * 1000,
        "{1:" * 4000 + "1" + "}" * 4000,
    ],
)
def test_deep_expressions(expression: str) -> None:
    """Deep nesting does not end the process."""
    _try(expression)
