"""Rational numbers of all versions of PyAV."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import pytest

from cpnpose.media.rational import fraction


@dataclass(frozen=True)
class Ratio:
    """As PyAV 19 has them."""

    numerator: int
    denominator: int


@pytest.mark.parametrize("given", [Fraction(1, 25), Ratio(1, 25)])
def test_a_number_is_a_fraction(given: Fraction | Ratio) -> None:
    found = fraction(given)
    assert type(found) is Fraction
    assert found == Fraction(1, 25)


@pytest.mark.parametrize("given", [None, Fraction(0), Ratio(0, 1), Ratio(0, 0), Ratio(1, 0)])
def test_what_a_file_does_not_say_is_none(given: Fraction | Ratio | None) -> None:
    assert fraction(given) is None
