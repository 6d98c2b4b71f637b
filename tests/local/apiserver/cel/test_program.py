"""CEL: what expressions give, what is refused before it runs, and what would take too long."""

from __future__ import annotations

from typing import Any

import pytest

from sandlane.local.apiserver.cel.frame import Budget, TooExpensive
from sandlane.local.apiserver.cel.program import compile_expression
from sandlane.local.apiserver.cel.syntax import CompileError
from sandlane.local.apiserver.cel.types import DYN
from sandlane.local.apiserver.cel.values import EvaluationError


def run(expression: str, here: Any) -> Any:
    """The value of an expression on `self`."""
    return compile_expression(expression, (("self", DYN),)).run({"self": here})


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
    assert run(expression, HERE) == value


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
        ("'ab12c3'.find('[0-9]+') + 'x1y22'.findAll('[0-9]+').join(',')", "121,22"),
        ("'a1b2'.findAll('[0-9]', 1)", ["1"]),
        ("format.dns1123Label().validate('abc').hasValue()", False),
        ("format.dns1123Label().validate('A_').value().size()", 1),
        ("format.named('qualifiedName').value().validate('a.b/c').hasValue() || format.named('no').hasValue()", False),
        ("[3, 1, 2].sort()", [1, 2, 3]),
        ("[1, 1, 2].distinct()", [1, 2]),
        ("[1, 2, 3].slice(1, 3)", [2, 3]),
        ("[[1], [2]].flatten() + [3, 4].reverse()", [1, 2, 4, 3]),
        ("[1, 2].first().value() + [1, 2].last().orValue(0)", 3),
        ("[1, 2].all(i, v, v > i)", True),
        ("{'a': 1}.exists(k, v, k == 'a' && v == 1)", True),
        ("{'a': 1, 'b': 2}.transformMap(k, v, v > 1, v + 1)", {"b": 3}),
        ("{'a': 1}.transformMapEntry(k, v, {v: k})", {1: "a"}),
        ("[3, 1].transformList(i, v, i + v)", [3, 2]),
        ("semver('1.10.0').isGreaterThan(semver('1.2.3')) && semver('1.0.0-rc.1').isLessThan(semver('1.0.0'))", True),
        ("semver('v1.2', true).minor()", 2),
        ("isSemver('1.2') || isSemver('01.2.3')", False),
        ("ip.isCanonical('::1') && !ip.isCanonical('::01')", True),
        ("isIP('::ffff:1.2.3.4')", False),
        ("timestamp('2020-01-01T23:00:00Z').getHours('+02:00')", 1),
        ("timestamp('2020-01-02T00:00:00Z') - timestamp('2020-01-01T00:00:00Z') == duration('24h')", True),
        ("string(timestamp('2020-01-01T00:00:00.5Z')) + string(duration('1h30m'))", "2020-01-01T00:00:00.5Z5400s"),
        ("type(1) == int && type(timestamp('2020-01-01T00:00:00Z')) == google.protobuf.Timestamp", True),
        ("dyn(1) == 1.0 && 1u < 2 && 1 < 1.5", True),
        ("[?optional.none(), ?optional.of(1)]", [1]),
        ("{?'a': optional.none(), 'b': 1}", {"b": 1}),
        ("-7 / 2 * 10 + -7 % 2", -31),
        ("'%x %s'.format([255, [1, 'a']])", "ff [1, a]"),
        ("string(1.0) + string(1e21) + string(0.1)", "11e+210.1"),
        ("r'\\a' + '''b\\u00e9'''", "\\abé"),
        ("self[0] == 'no' && self[9] == '' || true", True),
        ("[1, 0].exists(x, 1 / x > 0)", True),
    ],
)
def test_functions(expression: str, value: Any) -> None:
    """Functions of Kubernetes' CEL give what they give there."""
    assert run(expression, ["a-b"]) == value


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("'a'.substring(2)", "index out of range: 2"),
        ("quantity('x').asInteger()", "quantities must match"),
        ("quantity('1m').asInteger()", "cannot convert value to integer"),
        ("url('x')", "URL parse error"),
        ("'%d'.format([])", "index 0 out of range"),
        ("self.a", "no such key: a"),
        ("self.b.c", "no such overload: int.c"),
        ("[1][1]", "index out of bounds: 1"),
        ("1 / 0", "division by zero"),
        ("9223372036854775807 + 1", "integer overflow"),
        ("self.b > 'x'", "no such overload"),
        ("optional.none().value()", "optional.none"),
        ("self.b.matches('a')", "no such overload"),
        ("[true].all(x, self.a)", "no such key: a"),
    ],
)
def test_faults(expression: str, why: str) -> None:
    """What has no value says why."""
    with pytest.raises(EvaluationError, match=why):
        run(expression, {"b": 1})


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("self.nonsense()", "undeclared reference to 'nonsense'"),
        ("other", "undeclared reference to 'other'"),
        ("cel.bind(x, 1, x)", "undeclared reference"),
        ("1 + 'a'", r"found no matching overload for '_\+_' applied to '\(int, string\)'"),
        ("'a'.size(1)", r"found no matching overload for 'size' applied to 'string.\(int\)'"),
        ("[1, 'a']", "expected type 'int' but found 'string'"),
        ("self.all(x, 1)", "expected type 'bool' but found 'int'"),
        ("self.all(1, true)", "argument must be a simple name"),
        ("1.all(x, true)", "cannot be range of a comprehension"),
        ("[1][0].a", "type 'int' does not support field selection"),
        ("has(self)", "invalid argument to has"),
        ("'a'.matches('[')", "invalid matches argument"),
        ("duration('x')", "invalid duration argument"),
        ("self.", "1:6: Syntax error"),
        ("self ==\n", "2:1: Syntax error"),
        ("let", "reserved identifier"),
        ("self.?a.optMap(v", "Syntax error"),
        ("T{a: 1}", "message construction"),
        ("9223372036854775808", "invalid int literal"),
    ],
)
def test_what_can_never_work_is_refused_before_it_runs(expression: str, why: str) -> None:
    """Names, types and texts that cannot be right are found without a value, and said with their place."""
    with pytest.raises(CompileError, match=why):
        compile_expression(expression, (("self", DYN),))


def test_loops_are_bounded() -> None:
    """An evaluation ends when it has taken its steps; several share a budget."""
    pairs = "self.all(a, self.all(b, a == b))"
    assert run(pairs, [1] * 50) is True
    with pytest.raises(TooExpensive):
        run(pairs, [1] * 1000)
    budget = Budget(50_000)
    program = compile_expression(pairs, (("self", DYN),))
    program.run({"self": [1] * 50}, budget)
    assert 20_000 < budget.left < 50_000
    program.run({"self": [1] * 50}, Budget(budget.left))
    budget.left = 1000
    with pytest.raises(TooExpensive):
        program.run({"self": [1] * 50}, budget)
    with pytest.raises(TooExpensive):
        run("self.all(a, a.split('').size() > 0)", ["x" * 100_000] * 1000)


def test_regular_expressions_take_time_that_grows_with_the_text_only() -> None:
    """A pattern that makes other engines try for ever gives its answer."""
    assert run("self.matches('^(a+)+$')", "a" * 5000 + "b") is False
