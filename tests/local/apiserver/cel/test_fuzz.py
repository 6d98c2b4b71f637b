"""CEL takes any text: it gives a value or an ordinary error."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandlane.local.apiserver.cel.program import compile_expression
from sandlane.local.apiserver.cel.syntax import CompileError
from sandlane.local.apiserver.cel.types import DYN
from sandlane.local.apiserver.cel.values import EvaluationError
from sandlane.local.apiserver.crd.cel_cost import estimate
from sandlane.local.apiserver.schema import Schema
from support.thorough import cases

# fmt: off
TOKENS = st.sampled_from([
    "self", ".", "x", "all", "exists", "(", ")", "[", "]", "{", "}", "'a'", "1", "-1", "9223372036854775807", "1.5",
    "0", "+", "-", "*", "/", "%", "==", "<", "&&", "||", "!", "?", ":", ",", "has", "size", "matches", "'('",
    "'\\u'", "true", "null", "in", "duration", "'1h'", "timestamp", "uint", "int", "string", "map", "filter",
    "b'\\xff'", ".?", "[?", "optMap", "sort", "i, v", "find", "'('", "format", "split", "quantity", "replace", "substring", "format", "'%d'", "ip", "url", "//", "\\", "é", "1u",
    "0x1", "1e999",
])
# fmt: on


def _try(expression: str) -> None:
    try:
        program = compile_expression(expression, (("self", DYN),))
    except CompileError:
        return
    assert estimate(program.node, {"self": Schema({"type": "array", "items": {"type": "string"}})}) >= 0
    with suppress(EvaluationError):
        program.run({"self": {"x": [1, "a", {"y": 2.5}, None]}})


@settings(max_examples=cases(200))
@given(st.lists(TOKENS, min_size=1, max_size=12).map("".join))
def test_nearly_expressions(expression: str) -> None:
    """What is put together from pieces of CEL does no harm."""
    _try(expression)


@settings(max_examples=cases(100))
@given(st.text(max_size=80))
def test_any_text(text: str) -> None:
    """Any text does no harm."""
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
