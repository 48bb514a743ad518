"""Numbers that are probably wrong: those that a regression that has not seen them misses by far more than the others.

Shape suffixes: N = judged rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

Floats = npt.NDArray[np.float64]

NORMAL_MAD = 1.4826
"""Standard deviation of normal errors by their median absolute deviation."""


@dataclass(frozen=True)
class SuspectNumber:
    """A judged row, the number that the regression says, and the chance of so large an error among normal ones."""

    row: int
    suggested: float
    chance: float


def suspect_numbers(given_N: Floats, said_N: Floats) -> tuple[SuspectNumber, ...]:
    """Rows whose error is larger than the largest that is expected of as many normal errors of this spread; the largest error first.

    The spread is 1.4826 times the median absolute deviation, which wrong numbers hardly move (Rousseeuw & Croux 1993). Where
    more than half of the errors are the same there is no spread, and no row is suspect.

    Args:
        given_N: numbers as they are labelled.
        said_N: what a regression says that was fitted without the row.
    """
    off_N = deviations(said_N - given_N, float(np.abs(given_N).max(initial=0.0)))
    if off_N is None:
        return ()
    least, far_N = largest_expected(len(off_N), sides=2), np.abs(off_N)
    found = [int(n) for n in np.argsort(-far_N, kind="stable") if far_N[n] > least]
    return tuple(SuspectNumber(n, float(said_N[n]), float(2 * ndtr(-far_N[n]))) for n in found)


def deviations(values_N: Floats, scale: float = 1.0) -> Floats | None:
    """How many robust standard deviations each value is from their median; None where more than half of them are the same.

    Args:
        values_N: what is compared.
        scale: of numbers that the values were made from; a spread within rounding of these is none.
    """
    if len(values_N) < 2:
        return None
    off_N = values_N - np.median(values_N)
    spread = NORMAL_MAD * float(np.median(np.abs(off_N)))
    return None if spread <= 1e-12 * max(scale, 1e-300) else np.asarray(off_N / spread, np.float64)


def largest_expected(count: int, *, sides: int) -> float:
    """The largest of so many normal values, in standard deviations: one in `count` is beyond it, on one side or on both."""
    return float(ndtri(1 - 1 / (sides * count)))
