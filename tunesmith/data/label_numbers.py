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
    if len(given_N) < 2:
        return ()
    error_N = said_N - given_N
    off_N = np.abs(error_N - np.median(error_N))
    spread = NORMAL_MAD * float(np.median(off_N))
    if spread <= 1e-12 * max(float(np.abs(given_N).max()), 1e-300):
        return ()
    least = float(ndtri(1 - 1 / (2 * len(given_N))))
    found = [int(n) for n in np.argsort(-off_N, kind="stable") if off_N[n] / spread > least]
    return tuple(SuspectNumber(n, float(said_N[n]), float(2 * ndtr(-off_N[n] / spread))) for n in found)
