"""PyAV's rational numbers, the same for all of its versions."""

from __future__ import annotations

from fractions import Fraction
from typing import Protocol


class Rational(Protocol):
    """A numerator and a denominator."""

    @property
    def numerator(self) -> int: ...
    @property
    def denominator(self) -> int: ...


def fraction(value: Rational | None) -> Fraction | None:
    """A time base, rate or aspect ratio of PyAV as a fraction; None where the file does not say it.

    PyAV 18 has fractions and None for what is not set; PyAV 19 has numbers of its own, and 0 (or a denominator of 0)
    there.
    """
    if value is None or not value.numerator or not value.denominator:
        return None
    return Fraction(value.numerator, value.denominator)
