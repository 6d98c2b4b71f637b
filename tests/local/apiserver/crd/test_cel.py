"""CEL: Kubernetes' functions, and expressions that would take too long."""

from __future__ import annotations

from typing import Any

import pytest

from sandlane.local.apiserver.crd.cel_cost import Loops, TooExpensive, loops_of, rounds_of
from sandlane.local.apiserver.crd.cel_rules import UnsupportedExpression, check, compile_rule, run
from sandlane.local.apiserver.schema import Schema

HERE = {"a": 1, "list": [{"k": "x"}, {}], "map": {"c": 7}, "k-y": "z"}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("self.?a.orValue(3)", 1),
        ("self.?b.orValue(3)", 3),
        ("self.?map.c.orValue(0)", 7),
        ("self.?map.?d.e.hasValue()", False),
        ("self[?'k-y'].orValue('') + self[?'no'].orValue('!')", "z!"),
        ("self.list[?5].hasValue()", False),
        ("self.?b.or(self.?a).value()", 1),
        ("self.?a.optMap(v, v + 1).orValue(0)", 2),
        ("self.?b.optMap(v, v + 1).orValue(0)", 0),
        ("self.?map.optFlatMap(m, m.?c).orValue(0)", 7),
        ("self.list.filter(x, x.?k.orValue('') == 'x').size()", 1),
        ("'self.?a' == 'self.' + '?a' ? optional.of(4).value() : optional.none().orValue(5)", 4),
        ("sets.contains([1, 2], [1]) && sets.equivalent([1, 2], [2, 1, 1]) && !sets.intersects([1], [2])", True),
    ],
)
def test_optional_fields_and_sets(expression: str, value: Any) -> None:
    """Optional fields, keys and values, and the functions on sets, give what they give in Kubernetes."""
    assert run(expression, {"self": HERE}) == value


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("self.nonsense()", "undeclared reference to 'nonsense'"),
        ("self.find('a') == ''", "undeclared reference to 'find'"),
        ("self.all(i, v, v > 0)", "two variables"),
        ("self.a.optMap(v, v)", "after an optional field only"),
        ("x" + ".?a.optMap(v, v)" * 1, ""),
        ("(" + "self.?a" + ".optMap(v, v)" * 40 + ").orValue(1)", "too many optMap"),
        ("self.?a.optMap(v", "a bracket is not closed"),
    ],
)
def test_what_cannot_be_run_is_refused_when_it_is_written(expression: str, why: str) -> None:
    """A function or a form that is not there is a fault of the definition, not of each object later."""
    if not why:
        compile_rule(expression)
        return
    with pytest.raises(UnsupportedExpression, match=why):
        compile_rule(expression)


@pytest.mark.parametrize(("old", "value", "good"), [(None, "a", True), ("a", "a", True), ("a", "b", False)])
def test_an_optional_old_value(old: str | None, value: str, good: bool) -> None:
    """A rule with `optionalOldSelf` also runs where there is no old value, and can ask for it."""
    rules = [
        {"rule": "!oldSelf.hasValue() || self == oldSelf.value()", "optionalOldSelf": True},
        {"rule": "oldSelf.optMap(was, was == self).orValue(true)", "optionalOldSelf": True},
    ]
    errors: list[Any] = []
    schema = Schema({"type": "string", "x-kubernetes-validations": rules})
    check(value, schema, "spec.x", errors, old, updating=old is not None)
    assert len(errors) == (0 if good else 2)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("'a,b,c'.split(',', 2)", ["a", "b,c"]),
        ("'abc'.split('')", ["a", "b", "c"]),
        ("'a,b'.split(',').size()", 2),
        ("['a', 'b'].join('-')", "a-b"),
        ("['a', 'b'].join()", "ab"),
        ("'aXbX'.replace('X', '', 1)", "abX"),
        ("'tacocat'.substring(4)", "cat"),
        ("'tacocat'.substring(0, 4)", "taco"),
        ("'ÄBC'.lowerAscii()", "Äbc"),
        ("' a '.trim().upperAscii()", "A"),
        ("'abc'.charAt(1)", "b"),
        ("'abcb'.indexOf('b')", 1),
        ("'abcb'.lastIndexOf('b')", 3),
        ("'%s is %d, %.2f%%'.format(['x', 3, 1.5])", "x is 3, 1.50%"),
        ("'%s'.format([[1, true]])", "[1, true]"),
        ("[1, 2, 3].sum()", 6),
        ("[3, 1].isSorted()", False),
        ("[3, 1].min()", 1),
        ("[3, 1].max()", 3),
        ("[3, 1].indexOf(1)", 1),
        ("quantity('1Gi').isGreaterThan(quantity('1000Mi'))", True),
        ("quantity('1000m') == quantity('1')", True),
        ("quantity('500m').add(quantity('1')).compareTo(quantity('1.5'))", 0),
        ("quantity('2k').asInteger()", 2000),
        ("quantity('50m').sign()", 1),
        ("isQuantity('1 Gi')", False),
        ("isURL('https://a.example:80/x?y=1')", True),
        ("isURL('a.example')", False),
        ("url('https://a.example:80/x?y=1').getHost()", "a.example:80"),
        ("url('https://a.example:80/x?y=1').getPort()", "80"),
        ("url('https://a.example:80/x?y=1').getQuery()['y']", ["1"]),
        ("isIP('10.0.0.1') && !isIP('10.0.0')", True),
        ("ip('::1').family()", 6),
        ("ip('127.0.0.1').isLoopback()", True),
        ("cidr('10.0.0.0/8').containsIP('10.1.2.3')", True),
        ("cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16')", True),
        ("cidr('10.0.0.0/8').containsCIDR(cidr('::1/128'))", False),
        ("cidr('10.1.2.3/8').prefixLength()", 8),
        ("self.all(x, x.split('-').size() == 2)", True),
    ],
)
def test_functions(expression: str, value: Any) -> None:
    """Functions of Kubernetes' CEL give what they give there."""
    assert run(expression, {"self": ["a-b"]}) == value


@pytest.mark.parametrize(
    "expression",
    ["'a'.substring(2)", "quantity('x').asInteger()", "url('x')", "'%d'.format([])", "quantity('1m').asInteger()"],
)
def test_faults(expression: str) -> None:
    """What a function cannot take is an error of the evaluation."""
    with pytest.raises(RuntimeError):
        run(expression, {"self": 1})


@pytest.mark.parametrize(
    ("expression", "flat", "walks"),
    [
        ("self > 1", 0, 0),
        ("self.all(x, x > 1)", 1, 0),
        ("self.all(x, x > 1) && self.all(y, y > 1)", 1, 0),
        ("self.all(x, self.exists_one(y, x.a == y.a))", 2, 0),
        ("self.all(x, x.items.all(y, y.parts[0].all(z, z > 1)))", 0, 1),
        ("self.all(x, x.a.all(y, y > 1) && x.b.all(z, z > 1))", 0, 1),
        ("self.all(x, x.a.all(y, x.b.all(z, z > y)))", 1, 1),
        ("self.all(x, self.f(x).all(y, self.all(z, true)))", 3, 0),
        ("self.all(x, ')(.all(y,' == x)", 1, 0),
        ("[1, 2].map(x, [3].filter(y, true))", 2, 0),
    ],
)
def test_loops(expression: str, flat: int, walks: int) -> None:
    """Loops within loops count, unless they walk down one value; texts are not looked into."""
    found = loops_of(expression)
    assert (found.flat, found.walks) == (flat, walks)


def test_unbalanced_text_is_no_fault() -> None:
    """Anything may be looked at: whether it compiles is asked elsewhere."""
    assert isinstance(loops_of("))self.all(x, (((.all(y, [}"), Loops)


def test_expensive_expressions_do_not_run() -> None:
    """An expression whose loops would take millions of rounds is refused at once, on small values it runs."""
    cubic = "self.all(a, self.all(b, self.all(c, a + b + c >= 0)))"
    assert run(cubic, {"self": list(range(20))}) is True
    with pytest.raises(TooExpensive):
        run(cubic, {"self": list(range(101))})
    with pytest.raises(TooExpensive):
        run("self.split('').all(a, self.split('').all(b, a == b))", {"self": "x" * 2000})
    assert rounds_of("self.all(x, x.all(y, y.all(z, z)))", [[[[True] * 100] * 30] * 30]) < 100_000


def test_budget_of_an_object() -> None:
    """Many rules that are fine one by one do not run on when they take too long together; the object is refused."""
    numbers = {"type": "array", "items": {"type": "integer"}}
    rule = {"rule": "self.all(a, self.all(b, a == b))"}
    schema = Schema.from_crd(
        {
            "type": "object",
            "properties": {"lists": {"type": "array", "items": {**numbers, "x-kubernetes-validations": [rule]}}},
        }
    )
    errors: list[Any] = []
    check({"lists": [[1] * 10] * 100}, schema, "", errors, None, False)
    assert errors == []
    check({"lists": [[1] * 400] * 100}, schema, "", errors, None, False)
    assert [(error.type, "running out of cost budget" in error.detail) for error in errors] == [
        ("FieldValueForbidden", True)
    ]
