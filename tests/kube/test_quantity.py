"""Quantities: exact values and canonical text."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandlane.kube.quantity import QuantityError, canonical_quantity, format_quantity, parse_quantity


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("0.5", "500m"), ("1024Ki", "1Mi"), ("1073741824", "1073741824"), ("1", "1"), ("1.5Gi", "1536Mi"),
        ("100m", "100m"), ("1e3", "1e3"), ("1E3", "1e3"), ("0.1Gi", "107374182400m"), ("1500m", "1500m"),
        ("100000", "100k"), ("0", "0"), ("0Mi", "0"), ("-5k", "-5k"), ("1E", "1E"), ("0.0000000001", "1n"),
        ("12.5Ki", "12800"), ("1.", "1"), (".5", "500m"), ("+1", "1"), ("512Ki", "512Ki"), ("1Ki", "1Ki"),
        ("0.5Ki", "512"),
    ],
)  # fmt: skip
def test_canonical(text: str, canonical: str) -> None:
    """Each text comes back as kube-apiserver writes it."""
    assert canonical_quantity(text) == canonical


@pytest.mark.parametrize("text", ["", "1X", "abc", "1.2.3", "Ki", "1 Mi", "--1", "1e", "1e9999", "٣", "1" * 100])
def test_not_a_quantity(text: str) -> None:
    """Other texts are refused."""
    with pytest.raises(QuantityError):
        parse_quantity(text)


@given(st.integers(-(10**12), 10**12), st.sampled_from(["", "n", "u", "m", "k", "M", "G", "Ki", "Mi", "Gi"]))
def test_canonical_text_keeps_the_value(number: int, suffix: str) -> None:
    """Canonical text has the same value, and is its own canonical text."""
    text = f"{number}{suffix}"
    canonical = canonical_quantity(text)
    assert parse_quantity(canonical) == parse_quantity(text)
    assert canonical_quantity(canonical) == canonical


def test_sums() -> None:
    """Values add up exactly and can be written again."""
    assert format_quantity(parse_quantity("100m") + parse_quantity("900m")) == "1"
    assert format_quantity(parse_quantity("512Mi") * 2, "binary") == "1Gi"
    assert parse_quantity("1m") == Fraction(1, 1000)
