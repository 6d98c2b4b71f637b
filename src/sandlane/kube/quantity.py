"""Quantities of resources (`500m`, `64Mi`, `1e3`): exact values and Kubernetes' canonical text.

The rules are those of https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from functools import lru_cache

_FORM = re.compile(
    r"([+-]?)([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE])|[eE]([+-]?[0-9]{1,3}))?", re.ASCII
)
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_DECIMAL_SUFFIX = {exponent: suffix for suffix, exponent in _DECIMAL.items()}
_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_NANO = Fraction(1, 10**9)


class QuantityError(ValueError):
    """A text that is not a quantity."""


@lru_cache(maxsize=8192)
def parse_quantity(text: str) -> Fraction:
    """The exact value; what is finer than a billionth is rounded up. Raises QuantityError."""
    return _parse(text)[0]


@lru_cache(maxsize=8192)
def canonical_quantity(text: str) -> str:
    """The text in which kube-apiserver returns a quantity. Raises QuantityError."""
    value, form = _parse(text)
    return format_quantity(value, form)


def format_quantity(value: Fraction, form: str = "decimal") -> str:
    """Canonical text of a value; `form` is `decimal` (k, M), `binary` (Ki, Mi) or `exponent` (e3, e6)."""
    if value == 0:
        return "0"
    if form == "binary" and abs(value) >= 1024 and value.denominator == 1:
        number, power = value.numerator, 0
        while number % 1024 == 0 and power < len(_BINARY) - 1:
            number, power = number // 1024, power + 1
        return f"{number}{_BINARY[power]}"
    exponent = -9
    number = math.ceil(value * 10**9) if value > 0 else math.floor(value * 10**9)
    while number % 1000 == 0 and exponent < 18:
        number, exponent = number // 1000, exponent + 3
    if form == "exponent":
        return f"{number}e{exponent}" if exponent else str(number)
    return f"{number}{_DECIMAL_SUFFIX[exponent]}"


def _parse(text: str) -> tuple[Fraction, str]:
    match = _FORM.fullmatch(text)
    if match is None or len(text) > 64:
        raise QuantityError(
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
        )
    sign, digits, suffix, exponent = match.groups()
    value = Fraction(digits)
    form = "decimal"
    if exponent is not None:
        form = "exponent"
        value *= Fraction(10) ** int(exponent)
    elif suffix and suffix.endswith("i"):
        form = "binary"
        value *= 1024 ** _BINARY.index(suffix)
    elif suffix:
        value *= Fraction(10) ** _DECIMAL[suffix]
    if value.denominator != 1 and (value / _NANO).denominator != 1:
        value = math.ceil(value / _NANO) * _NANO
    return (-value if sign == "-" else value), form
